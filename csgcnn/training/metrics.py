"""How good predictions are, per target and in its unit."""

from collections.abc import Sequence

import torch
from torch import Tensor


def regression_metrics(prediction: Tensor, target: Tensor, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """MAE, RMSE and R2 per target over the known labels.

    Shapes: prediction, target [n_rows, n_targets]; a NaN target is left out. R2 is NaN where the targets are constant.
    """
    result = {}
    for i, name in enumerate(names):
        known = target[:, i].isfinite()
        truth, error = target[known, i].double(), (prediction[known, i] - target[known, i]).double()
        spread = (truth - truth.mean()).square().sum()
        result[name] = {
            "mae": error.abs().mean().item(),
            "rmse": error.square().mean().sqrt().item(),
            "r2": (1 - error.square().sum() / spread).item() if spread > 0 else float("nan"),
            "n": int(known.sum()),
        }
    return result


def baseline_mae(mean: Tensor, target: Tensor, names: Sequence[str]) -> dict[str, float]:
    """MAE per target of predicting the training mean [n_targets] for every row: the number any model must beat."""
    constant = mean.expand(len(target), -1)
    return {name: row["mae"] for name, row in regression_metrics(constant, target, names).items()}


def mean_absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """MAE per target over the known labels: [n_targets]."""
    return torch.nanmean((prediction - target).abs(), dim=0)
