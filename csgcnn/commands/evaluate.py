"""`csgcnn evaluate`: measure the errors of a trained model on a data set with known targets."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from csgcnn.commands.prepare import dataset_settings, load_dataset, move_to_device, read_options
from csgcnn.config.paths import data_path, user_path
from csgcnn.crystals.crystal import Unusable
from csgcnn.crystals.datasets import iter_records, mark_repeated
from csgcnn.data.dataset import Dataset
from csgcnn.data.record_reports import RecordReports
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.evaluation.calibration import coverage, format_coverage
from csgcnn.evaluation.domain_metrics import format_domain_metrics, metrics_with_domain
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.evaluation.invariance import Changes, largest_changes
from csgcnn.evaluation.metrics import Metrics, format_metrics
from csgcnn.evaluation.unit_metrics import reported_metrics
from csgcnn.hardware import select_device
from csgcnn.predictor import Predictor
from csgcnn.runs.predictions import NO_DOMAIN, OUT_OF_DOMAIN, domain_cells
from csgcnn.runs.tables import compared_columns, compared_rows, write_predictions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Errors of a model on a data set.

    Attributes:
        metrics: Metrics by target.
        columns: Names of the columns of `rows`, with units.
        rows: Id, known value, prediction, error and reasons for each crystal.
    """

    metrics: dict[str, Metrics]
    columns: list[str]
    rows: list[list[Any]]


def evaluate(cfg: DictConfig) -> Evaluation:
    """Predict all rows of a data set, or those of one part of its split, and log the errors.

    Args:
        cfg: Configuration of the command.

    Raises:
        UserError: The checkpoint or the data cannot be used.
    """
    predictor = Predictor.load(cfg.ckpt, select_device(cfg.device), cfg.plugins)
    output = user_path(cfg.output) if cfg.output else None
    if output and not output.parent.is_dir():
        raise UserError(f"output={output}: there is no folder {output.parent}")
    reports = RecordReports.beside(output or Path("evaluation.csv"))
    if not output:
        reports = reports._replace(warnings=None)
    settings = dataset_settings(cfg)
    dataset = load_dataset(settings, predictor.graph, reports, targets=predictor.targets)
    rows, train_rows = _rows(dataset, predictor, cfg.split)
    evaluation = _evaluate(predictor, dataset, rows, train_rows, cfg.batch_size)
    if output:
        write_predictions(output, evaluation.columns, evaluation.rows)
        log.info("predictions: %s", output)
    if cfg.check_invariance:
        ids = {dataset.store.ids[row] for row in rows.tolist()}
        path = data_path(settings.path, settings.hint)
        records = mark_repeated(iter_records(path, read_options(settings)))
        usable = (record for record in records if not isinstance(record.source, Unusable))
        described = (record for record in usable if record.id in ids)
        targets = dataset.targets
        _log_changes(largest_changes(predictor.predict_usable, targets, described), targets)
    return evaluation


def _evaluate(
    predictor: Predictor, dataset: Dataset, rows: Tensor, train_rows: Tensor, batch_size: int
) -> Evaluation:
    targets, values = dataset.targets, dataset.values[rows]
    store = move_to_device(dataset.store, predictor.device)
    prediction, std = predict_with_std(predictor.network, store, rows, batch_size)
    prediction, std = prediction.cpu(), std if std is None else std.cpu()
    outside = domain_cells(predictor.domain, store, rows)
    if predictor.domain.is_known:
        metrics = metrics_with_domain(prediction, values, targets, outside[OUT_OF_DOMAIN])
    else:
        metrics = reported_metrics(prediction, values, targets)
        log.warning("%s", NO_DOMAIN)
    known = dataset.values[train_rows] if len(train_rows) else values
    baseline = baseline_metrics(known, values, targets)
    covered = {} if std is None else coverage(prediction, std, values, targets)
    for target in targets:
        log.info(format_metrics(target, metrics[target.name], baseline[target.name]))
        if target.name in covered and metrics[target.name]["n"]:
            log.info(format_coverage(covered[target.name], target.name))
        if line := format_domain_metrics(target, metrics[target.name]):
            log.info(line)
    ids = [dataset.store.ids[row] for row in rows.tolist()]
    cells = compared_rows(prediction, values, targets, std)
    return Evaluation(
        metrics,
        ["id", *compared_columns(targets, std is not None), *outside],
        [
            [id_, *of_row, *texts]
            for id_, of_row, *texts in zip(ids, cells, *outside.values(), strict=True)
        ],
    )


def _rows(dataset: Dataset, predictor: Predictor, part: str | None) -> tuple[Tensor, Tensor]:
    """Return the rows to evaluate, and those that the model was trained on."""
    row_of = {dataset.store.ids[row]: row for row in dataset.rows.tolist()}
    parts = {
        name: torch.tensor([row_of[id_] for id_ in ids if id_ in row_of], dtype=torch.long)
        for name, ids in (predictor.split or {"train": []}).items()
    }
    if part is None:
        if n_train := len(parts["train"]):
            log.warning(
                "%d of these crystals were in the training set; the errors are optimistic. "
                "split=test evaluates the test set",
                n_train,
            )
        return dataset.rows, parts["train"]
    if part not in parts:
        raise UserError(f"split={part}: the checkpoint does not name these crystals; omit split")
    if not len(parts[part]):
        raise UserError(f"split={part}: this data set has no crystal of that part; omit split")
    return parts[part], parts["train"]


def _log_changes(changes: Mapping[str, Changes], targets: Sequence[Target]) -> None:
    for transform, found in changes.items():
        for target in targets if found.largest else ():
            quantity = f"a probability of {target.name}" if target.classes else target.name
            unit = f" {target.unit}" if target.unit else ""
            largest, id_ = found.largest[target.name]
            log.info(
                "largest change of %s by %s: %.2g%s%s",
                quantity,
                transform,
                largest,
                unit,
                f" ({id_})" if largest else "",
            )
        if found.n_left_out:
            log.warning(
                "%s: %d crystals have no such description, or one that is too large",
                transform,
                found.n_left_out,
            )
