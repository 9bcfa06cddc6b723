"""`csgcnn evaluate`: a checkpoint and a data set with known targets in, its errors out."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from csgcnn.commands.prepare import load_dataset, move_to_device
from csgcnn.config.paths import data_path, user_path
from csgcnn.crystals.datasets import read_records
from csgcnn.crystals.records import ReadOptions
from csgcnn.data.dataset import Dataset
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.evaluation.calibration import coverage, format_coverage
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.evaluation.invariance import Changes, largest_changes
from csgcnn.evaluation.metrics import format_metrics, target_metrics
from csgcnn.hardware import select_device
from csgcnn.predictor import Predictor
from csgcnn.runs.tables import compared_columns, compared_rows, rejected_path, write_predictions

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> None:
    """Predict the rows of a data set, all or those of one part of its split, and report the errors per target."""
    predictor = Predictor.load(cfg.ckpt, select_device(cfg.device))
    output = user_path(cfg.output) if cfg.output else None
    if output and not output.parent.is_dir():
        raise UserError(f"output={output}: there is no folder {output.parent}")
    report = rejected_path(output or Path("evaluation.csv"))
    dataset = load_dataset(cfg.dataset, predictor.graph, report, targets=predictor.targets)
    rows, trained_on = _rows(dataset, predictor, cfg.split)
    store = move_to_device(dataset.store, predictor.device)
    prediction, std = predict_with_std(predictor.network, store, rows, cfg.batch_size)
    prediction, std = prediction.cpu(), std if std is None else std.cpu()
    targets, values = dataset.targets, dataset.values[rows]
    metrics = target_metrics(prediction, values, targets)
    baseline = baseline_metrics(
        dataset.values[trained_on] if len(trained_on) else values, values, targets
    )
    covered = {} if std is None else coverage(prediction, std, values, targets)
    for target in targets:
        log.info(format_metrics(target, metrics[target.name], baseline[target.name]))
        if target.name in covered and metrics[target.name]["n"]:
            log.info(format_coverage(covered[target.name], target.name))
    if output:
        ids = [dataset.store.ids[row] for row in rows.tolist()]
        compared = compared_rows(prediction, values, targets, std)
        table = ([id_, *cells] for id_, cells in zip(ids, compared, strict=True))
        write_predictions(output, ["id", *compared_columns(targets, std is not None)], table)
        log.info("predictions: %s", output)
    if cfg.check_invariance:
        wanted = {dataset.store.ids[row] for row in rows.tolist()}
        path = data_path(cfg.dataset.path, cfg.dataset.hint)
        columns = ReadOptions(cfg.dataset.id_column, cfg.dataset.structure_column)
        records = read_records(path, columns)
        _tell_changes(
            largest_changes(
                predictor.predict_usable,
                targets,
                (record for record in records if record.id in wanted),
            ),
            targets,
        )


def _tell_changes(changes: Mapping[str, Changes], targets: Sequence[Target]) -> None:
    for transform, found in changes.items():
        for target in targets if found.largest else ():
            what = f"a probability of {target.name}" if target.classes else target.name
            unit = f" {target.unit}" if target.unit else ""
            largest, id_ = found.largest[target.name]
            where = f" ({id_})" if largest else ""
            log.info("largest change of %s by %s: %.2g%s%s", what, transform, largest, unit, where)
        if found.n_left_out:
            log.warning(
                "%s: %d left out (spglib finds none, or it is too large)",
                transform,
                found.n_left_out,
            )


def _rows(dataset: Dataset, predictor: Predictor, part: str | None) -> tuple[Tensor, Tensor]:
    """The rows to evaluate, all or those that were `part` when the model was trained, and those it was trained on.

    Raises:
        UserError: none of the data set's ids was in that part, or the checkpoint does not say.
    """
    row_of = {dataset.store.ids[row]: row for row in dataset.rows.tolist()}
    parts = {
        name: torch.tensor([row_of[id_] for id_ in ids if id_ in row_of], dtype=torch.long)
        for name, ids in (predictor.split or {"train": []}).items()
    }
    if part is None:
        if len(parts["train"]):
            told = "%d of these crystals trained the model: the errors are too small; split=test is honest"
            log.warning(told, len(parts["train"]))
        return dataset.rows, parts["train"]
    if part not in parts:
        raise UserError(
            f"split={part}: the checkpoint does not say which crystals those were; leave split out"
        )
    if not len(parts[part]):
        raise UserError(
            f"split={part}: no crystal of this data set was in that part of the training; leave split out"
        )
    return parts[part], parts["train"]
