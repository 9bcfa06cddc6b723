"""How good predictions are, per target: of numbers in their unit, of classes from their probabilities."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from csgcnn.data.targets import Target

Metrics = dict[str, float]
NAN = float("nan")


def target_metrics(
    prediction: Tensor, truth: Tensor, targets: Sequence[Target]
) -> dict[str, Metrics]:
    """Metrics of every target over its known labels, see `regression_metrics` and `classification_metrics`.

    Shapes: prediction [n_rows, sum of n_outputs], truth [n_rows, n_targets], NaN where missing.
    """
    return {
        target.name: classification_metrics(predicted, column.long())
        if target.classes
        else regression_metrics(predicted.squeeze(1), column)
        for target, predicted, column in known_labels(prediction, truth, targets)
    }


def known_labels(
    prediction: Tensor, truth: Tensor, targets: Sequence[Target]
) -> Iterator[tuple[Target, Tensor, Tensor]]:
    """Every target with its outputs [n_known, n_outputs] and its known labels [n_known]."""
    parts = prediction.split([target.n_outputs for target in targets], dim=1)
    for target, part, column in zip(targets, parts, truth.unbind(1), strict=True):
        known = column.isfinite()
        yield target, part[known], column[known]


def regression_metrics(prediction: Tensor, truth: Tensor) -> Metrics:
    """MAE, RMSE and R2; NaN without rows, R2 also where the truth is constant.

    Shapes: prediction, truth [n_rows].
    """
    truth = truth.double()
    error = prediction.double() - truth
    spread = (truth - truth.mean()).square().sum()
    return {
        "mae": error.abs().mean().item(),
        "rmse": error.square().mean().sqrt().item(),
        "r2": (1 - error.square().sum() / spread).item() if spread > 0 else NAN,
        "n": len(truth),
    }


def classification_metrics(probability: Tensor, label: Tensor) -> Metrics:
    """Accuracy, balanced accuracy (mean recall of the classes that occur), ROC-AUC and cross entropy; NaN without rows.

    Of more than two classes, the ROC-AUC is the mean over each against the rest.

    Shapes: probability [n_rows, n_classes], label [n_rows] int64, positions of the true classes.
    """
    if not len(label):
        return {
            "accuracy": NAN,
            "balanced_accuracy": NAN,
            "roc_auc": NAN,
            "cross_entropy": NAN,
            "n": 0,
        }
    n_classes = probability.shape[1]
    confusion = confusion_matrix(probability, label).double()
    occurs = confusion.sum(1) > 0
    recall = confusion.diag()[occurs] / confusion.sum(1)[occurs]
    aucs = [roc_auc(probability[:, c], label == c) for c in range(n_classes)]
    true_probability = probability.gather(1, label.unsqueeze(1)).double()
    return {
        "accuracy": (confusion.diag().sum() / len(label)).item(),
        "balanced_accuracy": recall.mean().item(),
        "roc_auc": aucs[1]
        if n_classes == 2
        else torch.tensor(aucs, dtype=torch.float64).nanmean().item(),
        "cross_entropy": -true_probability.clamp(min=torch.finfo(torch.float32).tiny)
        .log()
        .mean()
        .item(),
        "n": len(label),
    }


def confusion_matrix(probability: Tensor, label: Tensor) -> Tensor:
    """Rows of each true class (first index) that are predicted as each class (second): [n_classes, n_classes] int64."""
    n_classes = probability.shape[1]
    return torch.bincount(
        label * n_classes + probability.argmax(1), minlength=n_classes**2
    ).reshape(n_classes, -1)


def roc_auc(score: Tensor, positive: Tensor) -> float:
    """Probability that a positive row scores above a negative one, ties counting half; NaN without one of either.

    From ranks (Mann & Whitney, 1947), equal scores sharing their mean rank. Shapes: score [n_rows], positive [n_rows].
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not (n_positive and n_negative):
        return NAN
    _, place, count = score.unique(return_inverse=True, return_counts=True)
    mean_rank = count.cumsum(0).double() - (count - 1) / 2
    rank_sum = mean_rank[place][positive].sum().item()
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def roc_curve(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """False and true positive rate at every threshold, from none to all; the area below is the `roc_auc`.

    Shapes: score [n_rows], positive [n_rows] -> two of [n_thresholds + 1].
    """
    _, place, count = score.unique(return_inverse=True, return_counts=True)
    hits = torch.zeros(len(count), dtype=torch.float64, device=score.device).index_add(
        0, place, positive.double()
    )
    rates = (
        torch.cat([part.new_zeros(1), part.flip(0).cumsum(0)]) for part in (count - hits, hits)
    )
    false_rate, true_rate = (rate / rate[-1] for rate in rates)
    return false_rate, true_rate


def format_metrics(target: Target, metrics: Metrics, baseline: Metrics) -> str:
    """The line of a target on the terminal; `baseline`: of `baseline_metrics`."""
    n, unit = metrics["n"], f" {target.unit}" if target.unit else ""
    if not n:
        return f"{target.name}: none of the crystals has a known value"
    if target.classes:
        return (
            f"accuracy of {target.name}: {metrics['accuracy']:.4g}, balanced {metrics['balanced_accuracy']:.4g}, "
            f"ROC-AUC {metrics['roc_auc']:.4g}, {n} crystals "
            f"(always the most frequent class: {baseline['accuracy']:.4g})"
        )
    return (
        f"MAE of {target.name}: {metrics['mae']:.4g}{unit}, RMSE {metrics['rmse']:.4g}, R2 {metrics['r2']:.4g}, "
        f"{n} crystals (predicting the mean: {baseline['mae']:.4g}{unit})"
    )
