"""Metrics of numbers [n_rows], and of targets with a grid [n_rows, n_points], NaN where unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csgcnn.evaluation.class_metrics import NAN

# `csgcnn table` imports this module without torch, whose import takes seconds.
if TYPE_CHECKING:
    from torch import Tensor


def mean_absolute_error(prediction: Tensor, truth: Tensor, *grid: Tensor) -> float:
    """Return the mean of |prediction - truth| over all known values.

    Args:
        prediction: Predictions.
        truth: True values.
        *grid: The points of a target with a grid; not used.
    """
    return _mean((prediction.double() - truth.double()).abs(), truth).item()


def root_mean_square_error(prediction: Tensor, truth: Tensor, *grid: Tensor) -> float:
    """Return sqrt(mean (prediction - truth)²) over all known values.

    Args:
        prediction: Predictions.
        truth: True values.
        *grid: The points of a target with a grid; not used.
    """
    return _mean((prediction.double() - truth.double()).square(), truth).sqrt().item()


def r2(prediction: Tensor, truth: Tensor, *grid: Tensor) -> float:
    """Return 1 - sum (prediction - truth)² / sum (truth - mean)², NaN if the truth is constant.

    With a grid, each point has a mean of its own: predicting these has the value 0.

    Args:
        prediction: Predictions.
        truth: True values.
        *grid: The points of a target with a grid; not used.
    """
    truth = truth.double()
    total = (truth - truth.nanmean(0)).square().nansum()
    error = (prediction.double() - truth).square().where(truth.isfinite(), 0.0).sum()
    return (1 - error / total).item() if total > 0 else NAN


def _mean(values: Tensor, truth: Tensor) -> Tensor:
    """Return the mean of the values whose truth is known."""
    known = truth.isfinite()
    return values.where(known, 0.0).sum() / known.sum()


def wasserstein(prediction: Tensor, truth: Tensor, grid: Tensor) -> float:
    """Return the mean of `wasserstein_distances` over the rows that have one, NaN without any.

    Args:
        prediction: Predictions.
        truth: True values.
        grid: The points [n_points].
    """
    return wasserstein_distances(prediction, truth, grid).nanmean().item()


def wasserstein_distances(prediction: Tensor, truth: Tensor, grid: Tensor) -> Tensor:
    """Return the distance of each row from its truth, both as distributions over the grid.

    The values at the known points, negative ones as 0, are weights with the sum 1; the distance is
    the integral of the absolute difference of their cumulative sums, in the unit of the grid.

    Args:
        prediction: Predictions.
        truth: True values.
        grid: The points [n_points].

    Returns:
        [n_rows] float64; the length of the grid, which is the largest distance, where only the
        prediction has no weight, and NaN where the truth has none.
    """
    known, grid = truth.isfinite(), grid.double()
    weights = [values.double().clamp(min=0).where(known, 0.0) for values in (prediction, truth)]
    first, second = (weight.cumsum(1) / weight.sum(1, keepdim=True) for weight in weights)
    distance = ((first - second).abs()[:, :-1] * grid.diff()).sum(1)
    is_lost = (weights[0].sum(1) == 0) & (weights[1].sum(1) > 0)
    return distance.masked_fill(is_lost, (grid[-1] - grid[0]).item())
