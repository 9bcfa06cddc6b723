"""The crystals of a report: read again by id, and checked against the data of the training."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from csgcnn.commands.prepare import dataset_settings, read_dataset, read_options
from csgcnn.config.paths import data_path
from csgcnn.config.upgrade import upgrade_config
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.datasets import iter_records
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.data.record_reports import RecordReports
from csgcnn.data.splits import split_dataset
from csgcnn.data.store_files import is_store
from csgcnn.errors import UserError, log_level, one_line
from csgcnn.reports.crystals import (
    N_ELEMENTS,
    CrystalFacts,
    atoms_of_store,
    composition_distance,
    crystal_system,
    read_structures,
)
from csgcnn.reports.predicted import Predictions
from csgcnn.reports.worst import worst_ids
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.training.resume import data_digest

# Crystals whose system, and whose distance to the training set, is determined.
N_SAMPLE = 2000
# Checkpoints of a run; those of an ensemble have the data of their members.
CHECKPOINTS = ("checkpoints/best.ckpt", "member-0/checkpoints/best.ckpt")


def crystals_of_run(
    folder: Path, config: Mapping[str, Any], predictions: Predictions, structures: str | None
) -> CrystalFacts:
    """Return what the data set of a run says about the predicted crystals.

    The data set must have the digest of the training, which covers the fingerprint of every graph.

    Args:
        folder: The run directory.
        config: Its plain configuration.
        predictions: Its predictions.
        structures: Where the data set is now, or structure files; None: where it was.
    """
    cfg: Any = OmegaConf.create(upgrade_config(config))
    if structures:
        cfg.dataset.path = structures
    settings = dataset_settings(cfg)
    try:
        # The report has the messages about the data set.
        with log_level("csgcnn", logging.ERROR), tempfile.TemporaryDirectory() as scratch:
            dataset = read_dataset(cfg, RecordReports(Path(scratch) / "rejected.csv", None))
            split = split_dataset(dataset, settings.split)
        path = data_path(settings.path, settings.hint)
        paths = [folder / name for name in CHECKPOINTS if (folder / name).is_file()]
        trained_on = load_checkpoint(paths[0]).get("data") if paths else None
        if trained_on != data_digest(dataset, split):
            reason = "no longer holds the data of the training" if paths else "cannot be compared"
            raise UserError(f"{path} {reason}")
    except UserError as error:
        if structures:
            return crystals_of_files(predictions, structures)
        note = f"No structures: {one_line(error)}. Give structures=PATH."
        return CrystalFacts.unknown(len(predictions.ids), note)
    atoms = atoms_of_store(dataset.store)
    row_of = {id_: row for row, id_ in enumerate(dataset.store.ids)}
    rows = np.array([row_of[id_] for id_ in predictions.ids])
    sample = _sample(len(rows))
    distance = np.full(len(rows), np.nan)
    if len(split["train"]):
        train = atoms[split["train"].numpy()]
        distance[sample] = composition_distance(atoms[rows[sample]], train)
    facts = CrystalFacts(atoms[rows], distance)
    if is_store(path):
        note = f"No structures: {path} holds built graphs. Give structures=PATH."
        return replace(facts, note=note)
    wanted = [predictions.ids[row] for row in sample]
    found = read_structures(
        iter_records(path, read_options(settings)), [*wanted, *worst_ids(predictions)]
    )
    note = f"Structures of {path}, which holds the crystals of the training (checked)."
    return replace(facts, structures=found, systems=_systems(found, wanted), note=note)


def crystals_of_files(predictions: Predictions, structures: str | None) -> CrystalFacts:
    """Return what structure files say about the predicted crystals, which is not checked.

    Args:
        predictions: The predictions.
        structures: File, folder, pattern or data file with the ids of the predictions.
    """
    n_rows = len(predictions.ids)
    if not structures:
        note = "No structures: structures=PATH adds them, with elements and crystal systems."
        return CrystalFacts.unknown(n_rows, note)
    found = read_structures(iter_structures([structures]), predictions.ids)
    if not found:
        example = predictions.ids[0] if n_rows else ""
        raise UserError(f"structures={structures}: no structure has an id of the table: {example}")
    facts = CrystalFacts.unknown(
        n_rows,
        f"Structures of {structures} by id ({len(found):,} of {n_rows:,}). They were not compared "
        "with the predicted ones.",
    )
    for row, id_ in enumerate(predictions.ids):
        if id_ in found:
            facts.atoms[row] = np.bincount(found[id_].atomic_number, minlength=N_ELEMENTS)
    wanted = [predictions.ids[row] for row in _sample(n_rows)]
    return replace(facts, structures=found, systems=_systems(found, wanted))


def _sample(n_rows: int) -> Any:
    """Return all rows, or some at random."""
    return np.sort(np.random.default_rng(0).permutation(n_rows)[:N_SAMPLE])


def _systems(structures: Mapping[str, Crystal], wanted: list[str]) -> dict[str, str]:
    return {id_: crystal_system(structures[id_]) for id_ in wanted if id_ in structures}
