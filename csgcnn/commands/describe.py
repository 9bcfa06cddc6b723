"""`csgcnn describe`: report what a data set holds and what to check, without training."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from csgcnn.commands.data_report_text import format_report
from csgcnn.commands.outputs import check_output
from csgcnn.commands.prepare import dataset_settings, open_graphs, plain
from csgcnn.commands.site_features import pin_site_features
from csgcnn.config.paths import data_path, user_path
from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.data.cache import OpenedDataset
from csgcnn.data.dataset import Dataset, select_targets
from csgcnn.data.derived import derive_columns
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import describe_targets
from csgcnn.data.transforms import labels_in_unit
from csgcnn.evaluation.data_report import DataReport
from csgcnn.evaluation.data_summary import report_data
from csgcnn.io import write_csv, write_json, writing
from csgcnn.reports.data_page import data_page
from csgcnn.reports.page import write_page
from csgcnn.screening.table_files import check_format

log = logging.getLogger(__name__)

FINDINGS = ("finding", "id", "other_id", "target", "value", "expected", "message")


def describe(cfg: DictConfig) -> DataReport:
    """Describe a data set; rejected records are part of the report.

    Raises:
        UserError: The data cannot be read, or the output cannot be written.
    """
    pin_site_features(cfg)
    output = user_path(cfg.output) if cfg.output else None
    if output:
        check_format(output, (".json", ".csv", ".html"))
        check_output(output, [], [user_path(cfg.dataset.path)], cfg.overwrite)
    settings = dataset_settings(cfg)
    opened = open_graphs(settings, GraphSettings(**plain(cfg.graph)), cfg.workers)
    path = data_path(settings.path, settings.hint)
    dataset = _dataset(opened, settings, path)
    report = report_data(
        dataset, str(settings.path), opened.warnings, settings.split, cfg.max_difference
    )
    log.info("%s", format_report(report))
    if output:
        _write(report, output)
        log.info("report: %s", output)
    return report


def _findings(report: DataReport) -> Iterator[list[Any]]:
    """Yield the rows of a csv file of findings, below `FINDINGS`."""
    for id_, reason in report.rejected:
        yield ["rejected", id_, "", "", "", "", reason]
    for note in report.warnings:
        yield [note.code, note.id, "", "", "", "", note.message]
    for target in report.targets:
        unlike = target.composition.outliers if target.composition else []
        for kind, found in (("outlier", target.outliers), ("unlike composition", unlike)):
            for entry in found:
                numbers = [entry.value, entry.expected, f"z = {entry.z:.3g}"]
                yield [kind, entry.id, "", target.name, *numbers]
    for first, *others in report.duplicates:
        yield from (["equal crystals", first, other, "", "", "", ""] for other in others)
    for conflict in report.conflicts:
        yield ["conflict", *conflict.ids, conflict.target, *conflict.values, conflict.kind]


def _dataset(opened: OpenedDataset, settings: DatasetSettings, path: Path) -> Dataset:
    store = opened.store
    failed = derive_columns(store, settings.derived, path)
    names = settings.targets
    if names is None:
        names = [
            name for name in store.columns if name in settings.tasks or _is_number(store, name)
        ]
    if not names:
        rows, values = torch.arange(len(store)), torch.zeros(len(store), 0)
        return Dataset(store, [], values, rows, opened.rejected)
    targets = describe_targets(store, replace(settings, targets=names), path)
    dataset = select_targets(store, targets, opened.rejected, path, failed)
    # The report is in the units of the targets; a transform rejects rows outside its domain.
    return replace(dataset, values=labels_in_unit(dataset.values, targets))


def _is_number(store: GraphStore, name: str) -> bool:
    """Return whether more of a column's values are numbers than texts, which are rejected then."""
    values = [value for value in store.columns[name] if value is not None]
    return 2 * sum(isinstance(value, str) for value in values) < len(values)


def _write(report: DataReport, output: Path) -> None:
    with writing(output):
        if output.suffix == ".html":
            write_page(data_page(report), output)
        elif output.suffix == ".json":
            write_json(output, report.to_dict())
        else:
            write_csv(output, FINDINGS, _findings(report))
