"""Prediction intervals of a trained model, from the calibration rows of its split."""

import logging
from typing import Any

import torch
from torch import Tensor

from csgcnn.commands.prepare import Prepared
from csgcnn.data.dataset import Dataset
from csgcnn.data.split_files import CALIBRATION
from csgcnn.data.store import GraphStore
from csgcnn.evaluation.conformal import ConformalScores, interval_lines
from csgcnn.evaluation.inference import predict_with_pooled
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.predictor import Predictor

log = logging.getLogger(__name__)


def calibration_scores(
    model: CrystalGraphNetwork | Ensemble, data: Prepared
) -> ConformalScores | None:
    """Return the scores of the calibration rows, if there are such rows.

    Args:
        model: The model that will predict.
        data: The data of its training.
    """
    rows = data.split.get(CALIBRATION)
    if rows is None:
        return None
    outputs, _ = predict_with_pooled(model, data.store, rows, data.batch_size)
    return ConformalScores.of(outputs.cpu(), data.dataset.values[rows], data.dataset.targets)


def interval_facts(
    model: CrystalGraphNetwork | Ensemble,
    scores: ConformalScores,
    store: GraphStore,
    dataset: Dataset,
    rows: Tensor,
    batch_size: int,
) -> dict[str, Any]:
    """Return the entries of metrics.json about intervals: their coverage, and calibration labels.

    Args:
        model: The model.
        scores: Scores of its calibration rows.
        store: Graphs, on the device of the model.
        dataset: Targets and their values.
        rows: Rows that neither trained nor calibrated [n_rows] int64.
        batch_size: Crystals per forward pass.
    """
    covered = {}
    if len(rows):
        outputs, _ = predict_with_pooled(model, store, rows, batch_size, scores.n_networks > 1)
        values = dataset.values[rows]
        covered = {"intervals": scores.coverage(outputs.cpu(), values, dataset.targets)}
    return {**covered, "interval_labels": scores.n_labels}


def measured_intervals(
    predictor: Predictor, store: GraphStore, dataset: Dataset, rows: Tensor, batch_size: int
) -> dict[str, Any]:
    """Log how many values the intervals of a model hold; return `interval_facts`, if there are any.

    Args:
        predictor: The model.
        store: Graphs, on the device of the model.
        dataset: Targets and their values.
        rows: Rows [n_rows] int64, of which those that trained or calibrated are left out.
        batch_size: Crystals per forward pass.
    """
    if not (scores := predictor.conformal):
        return {}
    new = _new_rows(predictor, store, rows)
    facts = interval_facts(predictor.network, scores, store, dataset, new, batch_size)
    for line in interval_lines(facts):
        log.info(line)
    return facts


def _new_rows(predictor: Predictor, store: GraphStore, rows: Tensor) -> Tensor:
    """Return the rows that neither trained nor calibrated."""
    calibrated = {*(predictor.split or {}).get(CALIBRATION, ())}
    is_new = [
        not is_trained and store.ids[row] not in calibrated
        for row, is_trained in zip(
            rows.tolist(), predictor.training_set.contains(store, rows), strict=True
        )
    ]
    return rows[torch.tensor(is_new, dtype=torch.bool)]
