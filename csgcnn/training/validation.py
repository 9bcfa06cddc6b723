"""Metrics on the validation rows: those shown for each epoch, and the score of an epoch."""

import math
from collections.abc import Mapping, Sequence

import torch

from csgcnn.data.targets import Target
from csgcnn.evaluation.metrics import TASKS, Metrics, metrics_of, target_metrics, task_of


def shown_metrics(metrics: Mapping[str, Metrics], targets: Sequence[Target]) -> dict[str, float]:
    """Return the columns of metrics.csv with metrics on the validation rows.

    Args:
        metrics: Metrics of each target.
        targets: The targets.
    """
    columns = dict[str, float]()
    for target in targets:
        names = [metric.name for metric in metrics_of(task_of(target)) if metric.each_epoch]
        columns |= {f"val_{name}_{target.name}": metrics[target.name][name] for name in names}
    return columns


def no_metrics(targets: Sequence[Target]) -> dict[str, Metrics]:
    """Return the metrics of each target on no rows: NaN."""
    n_outputs = sum(target.n_outputs for target in targets)
    n_labels = sum(target.n_labels for target in targets)
    return target_metrics(torch.empty(0, n_outputs), torch.empty(0, n_labels), targets)


def validation_score(
    metrics: Mapping[str, Metrics], targets: Sequence[Target], stds: Sequence[float]
) -> float:
    """Return the score that decides on the best epoch, the lower the better.

    It is the mean over the targets: of a number the MAE in standard deviations of the training
    rows, of a class the cross entropy.

    Args:
        metrics: Metrics of each target.
        targets: The targets.
        stds: Standard deviation of each target among the training rows.

    Returns:
        The score; NaN if no target has a known value.
    """
    scores = []
    for target, std in zip(targets, stds, strict=True):
        metric = TASKS[task_of(target)].selection
        scores.append(metrics[target.name][metric.name] / (std if metric.has_unit else 1))
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known) if known else math.nan
