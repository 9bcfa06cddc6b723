"""`csgcnn evaluate`: a checkpoint and a data set with known targets in, its errors out."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from csgcnn.config import user_path
from csgcnn.data.splits import SplitSettings, split_rows
from csgcnn.predictor import Predictor
from csgcnn.training.metrics import baseline_mae, regression_metrics
from csgcnn.training.run_directory import with_unit, write_predictions
from csgcnn.training.trainer import predict_rows
from csgcnn.wiring import load_dataset, select_device

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> None:
    """Predict the rows of a data set, all or those of one part of its split, and report the errors per target."""
    predictor = Predictor.load(cfg.ckpt, select_device(cfg.device))
    cfg.dataset.targets = predictor.names
    dataset = load_dataset(cfg.dataset, predictor.graph, Path("rejected.csv"))
    rows = dataset.rows
    if cfg.split:
        rows = split_rows(dataset.store, rows, SplitSettings(**cfg.dataset.split))[cfg.split]
    prediction = predict_rows(predictor.network, dataset.store.to(predictor.device), rows, cfg.batch_size).cpu()
    target = dataset.targets[rows]
    metrics = regression_metrics(prediction, target, predictor.names)
    baseline = baseline_mae(target.nanmean(0), target, predictor.names)
    for name, unit in zip(predictor.names, predictor.units, strict=True):
        row = metrics[name]
        log.info(
            "MAE of %s: %.4g %s, RMSE %.4g, R2 %.4f, %d crystals (predicting their mean: MAE %.4g)",
            *(name, row["mae"], unit, row["rmse"], row["r2"], row["n"], baseline[name]),
        )
    if cfg.output:
        columns = [
            with_unit(f"{n}{kind}", u)
            for n, u in zip(predictor.names, predictor.units, strict=True)
            for kind in ("", "_prediction")
        ]
        pairs = zip(target.tolist(), prediction.tolist(), strict=True)
        cells = ([cell for pair in zip(*row, strict=True) for cell in pair] for row in pairs)
        ids = [dataset.store.ids[row] for row in rows.tolist()]
        table = ([id_, *row] for id_, row in zip(ids, cells, strict=True))
        write_predictions(user_path(cfg.output), ["id", *columns], table)
        log.info("predictions: %s", user_path(cfg.output))
