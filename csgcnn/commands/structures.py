"""What the commands share that apply a model to structures."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

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
from csgcnn.runs.models import checkpoint_paths
from csgcnn.runs.predictions import model_notes

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


def load_model(cfg: DictConfig) -> Predictor:
    """Return the model of a command, and log what to know of all its predictions."""
    device = select_device(cfg.device)
    predictor = Predictor.load(checkpoint_paths(listed(cfg.ckpt)), device, cfg.plugins)
    for note in model_notes(predictor.domain, predictor.uncalibrated):
        log.warning("%s", note)
    return predictor


def write_reports(
    rejected: Sequence[Rejected],
    notes: Sequence[StructureNote],
    lines: Iterable[str],
    reports: RecordReports,
) -> None:
    """List rejected structures and warnings in files, and log a summary of both.

    Args:
        rejected: Structures that could not be used.
        notes: Warnings about the others.
        lines: Warnings about predictions, which are logged only.
        reports: The files.
    """
    write_rejected(rejected, reports.rejected)
    report_warnings(notes, reports.warnings)
    for line in lines:
        log.warning("%s", line)
    warn_of_rejected(rejected, len(rejected), reports.rejected)
