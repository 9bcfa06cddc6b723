"""Metrics on the validation rows: those shown for each epoch, and the score of an epoch."""

import math
from collections.abc import Mapping, Sequence

from csgcnn.data.targets import Target
from csgcnn.evaluation.metrics import Metrics


def shown_metrics(metrics: Mapping[str, Metrics], targets: Sequence[Target]) -> dict[str, float]:
    """Return the columns of metrics.csv with metrics on the validation rows.

    Args:
        metrics: Metrics of each target.
        targets: The targets.
    """
    columns = dict[str, float]()
    for target in targets:
        names = ("balanced_accuracy", "cross_entropy") if target.classes else ("mae",)
        columns |= {f"val_{name}_{target.name}": metrics[target.name][name] for name in names}
    return columns


def validation_score(
    metrics: Mapping[str, Metrics], targets: Sequence[Target], stds: Sequence[float]
) -> float:
    """Return the score that decides on the best epoch, the lower the better.

    It is the mean over the targets: of a number the MAE in standard deviations of the training
    rows, of a class the cross entropy. The accuracy of few rows would tie between epochs.

    Args:
        metrics: Metrics of each target.
        targets: The targets.
        stds: Standard deviation of each target among the training rows.

    Returns:
        The score; NaN if no target has a known value.
    """
    scores = [
        metrics[target.name]["cross_entropy"]
        if target.classes
        else metrics[target.name]["mae"] / std
        for target, std in zip(targets, stds, strict=True)
    ]
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known) if known else math.nan
