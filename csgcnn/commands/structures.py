"""What the commands share that apply a model to structures."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from csgcnn.commands.outputs import check_output
from csgcnn.config.paths import user_path
from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.records import ReadOptions
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.data.record_reports import (
    RecordReports,
    report_warnings,
    warn_of_rejected,
    write_rejected,
)
from csgcnn.data.store_files import is_store
from csgcnn.errors import ConfigError
from csgcnn.hardware import select_device
from csgcnn.predictor import Predictor
from csgcnn.runs.predictions import model_notes
from csgcnn.screening.table_files import check_format

log = logging.getLogger(__name__)


def listed(given: Any) -> list[str]:
    """Return the paths that a key holds: one, or a list."""
    return [*map(str, given)] if isinstance(given, ListConfig) else [str(given)]


def structure_options(cfg: DictConfig) -> ReadOptions:
    """Return how a command reads the structures of its configuration."""
    return ReadOptions(
        cfg.id_column,
        cfg.structure_column,
        all_blocks=cfg.all_blocks,
        formula_mismatch=cfg.formula_mismatch,
    )


def folder_of_graphs(sources: Sequence[str]) -> Path | None:
    """Return the folder of built graphs that is given as structures; None: other sources.

    Raises:
        ConfigError: Others are given beside it.
    """
    folders = [folder for source in sources if is_store(folder := user_path(source))]
    if folders and len(sources) > 1:
        raise ConfigError(
            f"structures: {folders[0]} is a folder of built graphs; give it by itself"
        )
    return folders[0] if folders else None


def check_outputs(
    cfg: DictConfig, output: Path, formats: Sequence[str], others: Sequence[Path] = ()
) -> RecordReports:
    """Check that an output, and the files beside it, replace nothing that the user may need.

    Args:
        cfg: Configuration of the command.
        output: The output.
        formats: Ends of names that it may have.
        others: Files that are written beside it, other than the lists of records.

    Returns:
        The lists of records beside it.
    """
    reports = RecordReports.beside(output, check_format(output, formats))
    inputs = map(user_path, [*listed(cfg.ckpt), *listed(cfg.structures)])
    check_output(output, [*others, *reports.paths], inputs, cfg.overwrite)
    return reports


def load_model(cfg: DictConfig, threads: int | None = None) -> Predictor:
    """Return the model of a command, and log what to know of all its predictions.

    Args:
        cfg: Configuration of the command.
        threads: Threads of the network; None: by the number of cores.
    """
    device = select_device(cfg.device, threads)
    predictor = Predictor.load(listed(cfg.ckpt), device, cfg.plugins)
    for note in model_notes(predictor.domain, predictor.uncalibrated):
        log.warning("%s", note)
    return predictor


def write_reports(
    rejected: Sequence[Rejected],
    notes: Sequence[StructureNote],
    lines: Iterable[str],
    reports: RecordReports,
    noun: str = "structure",
) -> None:
    """List rejected structures and warnings in files, and log a summary of both.

    Args:
        rejected: Structures that could not be used.
        notes: Warnings about the others.
        lines: Warnings about predictions, which are logged only.
        reports: The files.
        noun: What the structures are called.
    """
    write_rejected(rejected, reports.rejected)
    report_warnings(notes, reports.warnings)
    for line in lines:
        log.warning("%s", line)
    warn_of_rejected(rejected, len(rejected), reports.rejected, noun)


def exit_code(rejected: object, on_error: str) -> int:
    """Return the exit code of a command that has written its output: 1 if records were rejected.

    Args:
        rejected: The rejected records, or their number.
        on_error: What the user wants then; skip: the exit code is 0.
    """
    return 1 if rejected and on_error != "skip" else 0
