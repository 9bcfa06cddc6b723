"""Split-conformal prediction intervals (Lei et al., JASA 113, 1094, 2018)."""

import math

import torch
from torch import Tensor

from csgcnn.errors import ConfigError


def conformal_scores(error: Tensor, std: Tensor | None) -> Tensor:
    """Return the sorted scores of calibration rows, float32.

    The score of a row is its absolute error, divided by its predicted standard deviation if the
    model predicts one. Rows without a label (NaN) have no score.

    Args:
        error: Prediction minus label [n_rows], NaN where the label is unknown.
        std: Predicted standard deviations [n_rows], or None.
    """
    scores = error.abs()
    if std is not None:
        scores = scores / std.clamp(min=torch.finfo(torch.float32).tiny)
    return scores[~scores.isnan()].float().sort().values


def conformal_width(scores: Tensor, level: float) -> float:
    """Return half of the width of the interval of a level, in the unit of the scores.

    It is the k-th smallest of n scores, k = ⌈(n + 1) level⌉. If calibration rows and new rows are
    exchangeable, the interval holds a new label with a probability of at least the level.

    Args:
        scores: Sorted scores of the calibration rows [n].
        level: Coverage of the interval, between 0 and 1.

    Raises:
        ConfigError: The level is not between 0 and 1, or needs more labels than there are.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: expected a number between 0 and 1")
    n = len(scores)
    # 0.9 of 10 is 9, although the product of floats may be slightly larger
    rank = math.ceil((n + 1) * level - 1e-9)
    if rank > n:
        needed = math.ceil(level / (1 - level) - 1e-9)
        raise ConfigError(
            f"level={level} needs {needed} calibration labels, and the model has {n}; choose a "
            "lower level, or train with a larger dataset.split.calibration"
        )
    return float(scores[rank - 1])
