"""Terms of losses: the cross entropy of classes, weights of classes, integrals over a grid."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cumulative(
    output: Tensor, label: Tensor, grid: Sequence[float] | None
) -> tuple[Tensor, Tensor]:
    r"""Return the integrals of outputs and labels from the start of a grid to each point.

    .. math:: C_k = \frac{1}{\sqrt{n}} \sum_{i \le k} w_i y_i

    with the widths :math:`w_i` of the trapezoidal rule divided by their mean, so that independent
    errors of 1 at all points keep their scale. At a point without label the error is 0.

    Args:
        output: Standardized outputs [n_graphs, n_points].
        label: Standardized labels [n_graphs, n_points], NaN where missing.
        grid: The points [n_points]; None: both are returned as they are.

    Returns:
        The integrals, those of the labels NaN where the label is missing.
    """
    if grid is None:
        return output, label
    width = torch.tensor(grid, dtype=torch.float64).diff()
    width = (F.pad(width, (1, 0)) + F.pad(width, (0, 1))) / 2
    weight = (width / (width.mean() * len(width) ** 0.5)).to(output)
    filled = torch.where(label.isfinite(), label, output)
    integral = (weight * filled).cumsum(1)
    return (weight * output).cumsum(1), torch.where(label.isfinite(), integral, torch.nan)


def cross_entropy(
    logits: Tensor, label: Tensor, class_weights: Tensor, row_weight: Tensor | None = None
) -> Tensor:
    """Return the weighted mean of -log(probability of the true class) over the known labels.

    Args:
        logits: Logits [n_graphs, n_classes].
        label: Positions of the classes [n_graphs], NaN where missing.
        class_weights: Weights [n_classes].
        row_weight: Factors of the terms [n_graphs, 1].

    Returns:
        Scalar; 0 without a known label.
    """
    known = label.isfinite()
    position = torch.where(known, label, 0.0).long()
    weight = torch.where(known, class_weights[position], 0.0)
    loss = F.cross_entropy(logits, position, reduction="none")
    if row_weight is not None:
        loss = row_weight.squeeze(1) * loss
    return (weight * loss).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def balanced_class_weights(label: Tensor, n_classes: int) -> Tensor:
    """Return the inverse frequency of each class: n_labels / (n_classes present * n_of_class).

    Args:
        label: Positions of the classes [n_rows], NaN where missing.
        n_classes: Number of classes.

    Returns:
        Weights [n_classes], 0 for a class that does not occur.
    """
    count = torch.bincount(label[label.isfinite()].long(), minlength=n_classes).float()
    weight = count.sum() / (count.count_nonzero() * count)
    return torch.where(count > 0, weight, 0.0)
