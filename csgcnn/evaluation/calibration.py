"""Calibration of predicted standard deviations, and how well they describe the errors."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
from csgcnn.evaluation.class_metrics import NAN
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.evaluation.metrics import known_labels
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork

log = logging.getLogger(__name__)

# Coverage of a normal distribution within 0.67, 1, 1.64 and 1.96 standard deviations.
LEVELS = (0.5, 0.6827, 0.9, 0.95)
ONE_STD = 0.6827
# Fewer labels do not determine a scale, which is then their largest relative error.
MIN_LABELS = 5


def calibrate(
    model: CrystalGraphNetwork | Ensemble,
    store: GraphStore,
    targets: Sequence[Target],
    values: Tensor,
    rows: Tensor,
    batch_size: int,
) -> list[str]:
    """Set the model's `std_scale` from the errors of the validation rows, see `std_scales`.

    A number with fewer than five labels among them is logged as a warning.

    Args:
        model: A model that predicts standard deviations.
        store: Graphs, on the device of the model.
        targets: The targets.
        values: Values [n_graphs, n_targets], NaN where unknown.
        rows: Validation rows [n_rows] int64.
        batch_size: Crystals per forward pass.

    Returns:
        Names of the numbers whose standard deviations are not calibrated.
    """
    model.std_scale.fill_(1.0)
    n_known = calibration_labels(values[rows], targets)
    if not len(rows):
        log.warning("no validation rows: the predicted standard deviations are not calibrated")
        return [*n_known]
    prediction, std = predict_with_std(model, store, rows, batch_size)
    assert std is not None, "the model predicts no standard deviation"
    scales = std_scales(prediction.cpu(), std.cpu(), values[rows].cpu(), targets)
    model.std_scale.copy_(torch.tensor(scales))
    few = {name: n_labels for name, n_labels in n_known.items() if n_labels < MIN_LABELS}
    for name, n_labels in few.items():
        log.warning(
            "the standard deviations of %s are not calibrated: it has %d labels among the "
            "validation rows, expected at least %d",
            *(name, n_labels, MIN_LABELS),
        )
    return [*few]


def calibration_labels(values: Tensor, targets: Sequence[Target]) -> dict[str, int]:
    """Return the number of labels that determine the scale of each number.

    Args:
        values: Values of the validation rows [n_rows, n_targets], NaN where unknown.
        targets: The targets.
    """
    known = values.isfinite().sum(0).tolist()
    return {target.name: n for target, n in zip(targets, known, strict=True) if not target.classes}


def std_scales(
    prediction: Tensor, std: Tensor, truth: Tensor, targets: Sequence[Target]
) -> list[float]:
    """Return the factors after which 68.27 % of the errors lie within one standard deviation.

    The factor is the ⌈0.6827 (n + 1)⌉-th smallest |error| / std of n rows, as in split conformal
    prediction (Lei et al., JASA 113, 1094, 2018), which assumes no distribution. Probabilities,
    and numbers without known values, have the factor 1.

    Args:
        prediction: Predictions [n_rows, sum of n_outputs].
        std: Predicted standard deviations, of the same shape.
        truth: Values [n_rows, n_targets], NaN where unknown.
        targets: The targets.

    Returns:
        The factors [sum of n_outputs].
    """
    found = {
        target.name: _std_scale(error, deviation)
        for target, error, deviation in known_errors(prediction, std, truth, targets)
    }
    return [found.get(target.name, 1.0) for target in targets for _ in target.outputs]


def _std_scale(error: Tensor, std: Tensor) -> float:
    relative = (error / std.clamp(min=torch.finfo(torch.float32).tiny)).sort().values
    # of n + 1, so that it holds for other rows, however few these are
    rank = math.ceil(ONE_STD * (len(relative) + 1))
    found = float(relative[min(rank, len(relative)) - 1]) if len(relative) else 1.0
    return found if 0 < found < math.inf else 1.0


def coverage(
    prediction: Tensor, std: Tensor, truth: Tensor, targets: Sequence[Target]
) -> dict[str, dict[str, float]]:
    """Compare the errors of each number with its predicted standard deviations.

    Args:
        prediction: Predictions [n_rows, sum of n_outputs].
        std: Predicted standard deviations, of the same shape.
        truth: Values [n_rows, n_targets], NaN where unknown.
        targets: The targets.

    Returns:
        For each number the fraction of errors within the bounds that a normal distribution has
        for each of `LEVELS`, and `rank_correlation`: Spearman's correlation of standard deviation
        and absolute error.
    """
    found = {}
    for target, error, deviation in known_errors(prediction, std, truth, targets):
        fractions = covered(error, deviation, LEVELS)
        found[target.name] = {
            **{f"{level:.4g}": part for level, part in zip(LEVELS, fractions, strict=True)},
            "rank_correlation": _rank_correlation(error, deviation),
        }
    return found


def interval_stds(level: float, is_laplace: bool) -> float:
    """Return how many standard deviations the central interval of a level extends to each side.

    The standard deviations are calibrated: 68.27 % of the errors lie within one. A normal
    distribution then has the interval of the level p at Φ⁻¹((1 + p) / 2) of them, a Laplace
    distribution at log(1 - p) / log(1 - 0.6827).

    Args:
        level: Coverage of the interval, between 0 and 1.
        is_laplace: Whether the distribution is one of Laplace.

    Raises:
        ConfigError: The level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: expected a number between 0 and 1")
    if is_laplace:
        return math.log1p(-level) / math.log1p(-ONE_STD)
    return NormalDist().inv_cdf((1 + level) / 2)


def known_errors(
    prediction: Tensor, std: Tensor, truth: Tensor, targets: Sequence[Target]
) -> Iterator[tuple[Target, Tensor, Tensor]]:
    """Yield each number with its absolute errors and standard deviations where it is known.

    Args:
        prediction: Predictions [n_rows, sum of n_outputs].
        std: Predicted standard deviations, of the same shape.
        truth: Values [n_rows, n_targets], NaN where unknown.
        targets: The targets.

    Yields:
        The target, its absolute errors and its standard deviations, both [n_known] float64.
    """
    predicted, deviations = (known_labels(outputs, truth, targets) for outputs in (prediction, std))
    for (target, values, known), (_, deviation, _) in zip(predicted, deviations, strict=True):
        if not target.classes:
            error = (values.squeeze(1).double() - known).abs()
            yield target, error, deviation.squeeze(1).double()


def covered(error: Tensor, std: Tensor, levels: Sequence[float]) -> list[float]:
    """Return the fraction of errors within each level's central interval of a normal distribution.

    The interval of the level p is ± Φ⁻¹((1 + p) / 2) standard deviations.

    Args:
        error: Absolute errors [n_rows].
        std: Standard deviations [n_rows].
        levels: Coverages of a normal distribution, between 0 and 1.
    """
    bounds = [interval_stds(level, is_laplace=False) for level in levels]
    return [
        (error <= bound * std).double().mean().item() if len(error) else NAN for bound in bounds
    ]


def format_coverage(fractions: Mapping[str, float], name: str) -> str:
    """Return the line about a number that is printed to the user.

    Args:
        fractions: The result of `coverage` for it.
        name: Name of the target.
    """
    return (
        f"errors of {name} within 1 and 1.96 std: {fractions['0.6827']:.0%} and "
        f"{fractions['0.95']:.0%} (68 % and 95 %)"
    )


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    if len(a) < 2:
        return NAN
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return torch.corrcoef(ranks)[0, 1].item()
