"""Formulas of classification metrics.

torch is imported where it is needed: `csgcnn table` imports the metrics without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NAN = float("nan")


def confusion_matrix(probability: Tensor, label: Tensor) -> Tensor:
    """Count the rows of each true class (first index) that are predicted as each class (second).

    Args:
        probability: Probabilities [n_rows, n_classes].
        label: Positions of the true classes [n_rows] int64.

    Returns:
        Counts [n_classes, n_classes] int64.
    """
    import torch

    n_classes = probability.shape[1]
    pair = label * n_classes + probability.argmax(1)
    return torch.bincount(pair, minlength=n_classes**2).reshape(n_classes, -1)


def accuracy(probability: Tensor, label: Tensor) -> float:
    """Return the fraction of rows whose most probable class is the true one.

    Args:
        probability: Probabilities [n_rows, n_classes].
        label: Positions of the true classes [n_rows] int64.
    """
    return (confusion_matrix(probability, label).double().diag().sum() / len(label)).item()


def balanced_accuracy(probability: Tensor, label: Tensor) -> float:
    """Return the mean recall over the classes that occur (Brodersen et al., ICPR 2010, 3121).

    Args:
        probability: Probabilities [n_rows, n_classes].
        label: Positions of the true classes [n_rows] int64.
    """
    confusion = confusion_matrix(probability, label).double()
    occurs = confusion.sum(1) > 0
    return (confusion.diag()[occurs] / confusion.sum(1)[occurs]).mean().item()


def roc_auc(score: Tensor, positive: Tensor) -> float:
    """Return the probability that a positive row scores above a negative one; ties count half.

    Computed from ranks: AUC = (R - n₊ (n₊ + 1) / 2) / (n₊ n₋), where R is the sum of the ranks of
    the positive rows and equal scores share their mean rank (Mann & Whitney, Ann. Math. Stat. 18,
    50, 1947).

    Args:
        score: Scores [n_rows].
        positive: Which rows are positive [n_rows] bool.

    Returns:
        The area under the ROC curve; NaN without a positive or without a negative row.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not (n_positive and n_negative):
        return NAN
    _, rank, count = score.unique(return_inverse=True, return_counts=True)
    mean_rank = count.cumsum(0).double() - (count - 1) / 2
    rank_sum = mean_rank[rank][positive].sum().item()
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def class_roc_auc(probability: Tensor, label: Tensor) -> float:
    """Return the ROC-AUC of the second of two classes, or the mean of each class against the rest.

    Classes for which it is not defined are left out of the mean.

    Args:
        probability: Probabilities [n_rows, n_classes].
        label: Positions of the true classes [n_rows] int64.
    """
    import torch

    aucs = [roc_auc(column, label == c) for c, column in enumerate(probability.unbind(1))]
    return aucs[1] if len(aucs) == 2 else torch.tensor(aucs, dtype=torch.float64).nanmean().item()


def mean_cross_entropy(probability: Tensor, label: Tensor) -> float:
    """Return the mean of -log(probability of the true class).

    Args:
        probability: Probabilities [n_rows, n_classes]; 0 counts as the smallest float32.
        label: Positions of the true classes [n_rows] int64.
    """
    import torch

    true = probability.gather(1, label.unsqueeze(1)).double()
    return -true.clamp(min=torch.finfo(torch.float32).tiny).log().mean().item()


def roc_curve(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return false and true positive rates at every threshold; the area below is the `roc_auc`.

    Args:
        score: Scores [n_rows].
        positive: Which rows are positive [n_rows] bool.

    Returns:
        Two tensors [n_thresholds + 1] float64, from 0 to 1.
    """
    import torch

    hits, misses = (torch.nn.functional.pad(n, (1, 0)) for n in _counts_above(score, positive))
    return misses / misses[-1], hits / hits[-1]


def precision_recall_curve(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return recall and precision at every threshold, from the highest score down.

    Args:
        score: Scores [n_rows].
        positive: Which rows are positive [n_rows] bool, at least one.

    Returns:
        Two tensors [n_thresholds] float64.
    """
    hits, misses = _counts_above(score, positive)
    return hits / hits[-1], hits / (hits + misses)


def average_precision(recall: Tensor, precision: Tensor) -> float:
    """Return the sum of precision times the step of recall over all thresholds.

    Args:
        recall: Recall, from `precision_recall_curve`.
        precision: Precision, likewise.
    """
    steps = recall.diff(prepend=recall.new_zeros(1))
    return (precision * steps).sum().item()


def _counts_above(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of positive and negative rows at or above each score, highest first."""
    import torch

    _, rank, count = score.unique(return_inverse=True, return_counts=True)
    hits = torch.zeros(len(count), dtype=torch.float64, device=score.device)
    hits = hits.index_add(0, rank, positive.double())
    return hits.flip(0).cumsum(0), (count - hits).flip(0).cumsum(0)
