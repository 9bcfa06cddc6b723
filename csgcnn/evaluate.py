"""`csgcnn evaluate`: a checkpoint and a data set with known targets in, its errors out."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from csgcnn.config import data_path, user_path
from csgcnn.crystals.datasets import read_records
from csgcnn.data.splits import SplitSettings, split_rows
from csgcnn.invariance import largest_changes
from csgcnn.predictor import Predictor
from csgcnn.training.metrics import baseline_metrics, target_metrics
from csgcnn.training.report import compared_columns, compared_rows, told
from csgcnn.training.run_directory import write_predictions
from csgcnn.training.trainer import predict_rows
from csgcnn.wiring import load_dataset, select_device

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> None:
    """Predict the rows of a data set, all or those of one part of its split, and report the errors per target."""
    predictor = Predictor.load(cfg.ckpt, select_device(cfg.device))
    report = Path("rejected.csv")
    dataset = load_dataset(cfg.dataset, predictor.graph, report, targets=predictor.targets)
    rows = dataset.rows
    if cfg.split:
        rows = split_rows(dataset.store, rows, SplitSettings(**cfg.dataset.split))[cfg.split]
    prediction = predict_rows(predictor.network, dataset.store.to(predictor.device), rows, cfg.batch_size).cpu()
    targets, values = dataset.targets, dataset.values[rows]
    metrics = target_metrics(prediction, values, targets)
    baseline = baseline_metrics(values, values, targets)
    for target in targets:
        log.info(told(target, metrics[target.name], baseline[target.name]))
    if cfg.check_invariance:
        wanted = {dataset.store.ids[row] for row in rows.tolist()}
        path = data_path(cfg.dataset.path, cfg.dataset.hint)
        records = read_records(path, cfg.dataset.id_column, cfg.dataset.structure_column)
        changes = largest_changes(predictor, [record for record in records if record.id in wanted])
        for name, (change, id_) in changes.items():
            log.info("largest change of a prediction by %s: %.2g (%s)", name, change, id_)
    if cfg.output:
        ids = [dataset.store.ids[row] for row in rows.tolist()]
        table = ([id_, *cells] for id_, cells in zip(ids, compared_rows(prediction, values, targets), strict=True))
        write_predictions(user_path(cfg.output), ["id", *compared_columns(targets)], table)
        log.info("predictions: %s", user_path(cfg.output))
