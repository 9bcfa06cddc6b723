"""Charts of the predictions of one target: of classes, and of standard deviations."""

from collections.abc import Iterator

import numpy as np
import torch

from csgcnn.evaluation.calibration import covered
from csgcnn.evaluation.class_metrics import (
    average_precision,
    confusion_matrix,
    precision_recall_curve,
    roc_auc,
    roc_curve,
)
from csgcnn.reports import figures
from csgcnn.reports.page import Chart
from csgcnn.reports.predicted import PredictedTarget

MAX_POINTS = 1000  # of a curve
LEVELS = [level / 100 for level in range(2, 100, 2)]
N_BINS = 10

Curve = tuple[list[float], list[float]]


def class_charts(target: PredictedTarget) -> Iterator[Chart]:
    """Yield confusion matrix, ROC, precision-recall and calibration of a classification target."""
    known = target.target
    probability, label = torch.from_numpy(target.prediction), torch.from_numpy(target.truth).long()
    count = confusion_matrix(probability, label).numpy()
    chart = figures.confusion(count, known.classes, known.title)
    yield Chart(chart, "Colors are fractions of the true class.", "Confusion matrix")
    roc, recall = dict[str, Curve](), dict[str, Curve]()
    for c in range(len(known.classes)) if len(known.classes) > 2 else [1]:
        score, positive = probability[:, c], label == c
        if 0 < int(positive.sum()) < len(label):
            name = known.classes[c]
            roc[f"{name}, AUC {roc_auc(score, positive):.3f}"] = _thinned(
                *roc_curve(score, positive)
            )
            found = precision_recall_curve(score, positive)
            recall[f"{name}, AP {average_precision(*found):.3f}"] = _thinned(*found)
    axes = ("false positive rate", "true positive rate")
    yield Chart(figures.unit_lines(roc, *axes, diagonal=True), "", "ROC")
    chart = figures.unit_lines(recall, "recall", "precision", diagonal=False)
    yield Chart(chart, "", "Precision and recall")
    confidence = target.prediction.max(1)
    bins = (confidence * N_BINS).astype(int).clip(0, N_BINS - 1)
    groups = [rows for i in range(N_BINS) if len(rows := np.flatnonzero(bins == i))]
    curve = (
        [confidence[rows].mean() for rows in groups],
        [1 - target.error[g].mean() for g in groups],
    )
    chart = figures.unit_lines(
        {known.title: curve}, "probability of the predicted class", "accuracy", diagonal=True
    )
    yield Chart(chart, "On the diagonal, probabilities are calibrated.", "Calibration")


def calibration_chart(target: PredictedTarget) -> Chart:
    """Return observed against nominal coverage of the errors of a number."""
    assert target.std is not None
    error, std = torch.from_numpy(target.loss), torch.from_numpy(target.std)
    curve = {target.target.title: (LEVELS, covered(error, std, LEVELS))}
    chart = figures.unit_lines(curve, "nominal coverage", "coverage of the errors", diagonal=True)
    caption = "Below the diagonal, the standard deviations are too small."
    return Chart(chart, caption, "Calibration")


def _thinned(x: torch.Tensor, y: torch.Tensor) -> Curve:
    kept = torch.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().long()
    return x[kept].tolist(), y[kept].tolist()
