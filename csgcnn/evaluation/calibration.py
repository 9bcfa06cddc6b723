"""Whether predicted standard deviations are those of the errors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.evaluation.metrics import NAN, known_labels
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork

LEVELS = (
    0.5,
    0.6827,
    0.9,
    0.95,
)  # shares of the errors that a normal distribution has within 0.67, 1, 1.64, 1.96 std
ONE_STD = 0.6827


def calibrate(
    model: CrystalGraphNetwork | Ensemble,
    store: GraphStore,
    targets: Sequence[Target],
    values: Tensor,
    rows: Tensor,
    batch_size: int,
) -> None:
    """Set the model's `std_scale` so that of the rows' errors, 68.27 % lie within one standard deviation.

    The quantile of |error| / std, as of conformal prediction (Lei et al., JASA 113, 1094, 2018), asks for no
    distribution. The probability of a class, and a number without known labels, keep 1.

    Shapes: values [n_graphs, n_targets], NaN where missing; rows [n_rows], of the validation part.
    """
    model.std_scale.fill_(1.0)
    prediction, std = predict_with_std(model, store, rows, batch_size)
    assert std is not None, "only of models that tell deviations"
    prediction, std = prediction.cpu(), std.cpu()
    of_number = {
        target.name: _scale(error, deviation)
        for target, error, deviation in known_errors(prediction, std, values[rows].cpu(), targets)
    }
    model.std_scale.copy_(
        torch.tensor([of_number.get(t.name, 1.0) for t in targets for _ in t.outputs])
    )


def _scale(error: Tensor, std: Tensor) -> float:
    """The factor by which `std` [n_known] is too small for absolute errors [n_known]."""
    relative = (error / std.clamp(min=torch.finfo(torch.float32).tiny)).sort().values
    rank = math.ceil(
        ONE_STD * (len(relative) + 1)
    )  # of n + 1, so that it holds for others, however few there are
    found = float(relative[min(rank, len(relative)) - 1]) if len(relative) else 1.0
    return found if 0 < found < math.inf else 1.0


def coverage(
    prediction: Tensor, std: Tensor, truth: Tensor, targets: Sequence[Target]
) -> dict[str, dict[str, float]]:
    """Of each number the share of the errors within the bounds that a normal distribution has for each of `LEVELS`.

    With them `rank_correlation` (Spearman's) of deviation and absolute error: whether a large one warns of the other.

    Shapes: prediction, std [n_rows, sum of n_outputs], truth [n_rows, n_targets], NaN where missing.
    """
    found = {}
    for target, error, deviation in known_errors(prediction, std, truth, targets):
        shares = covered(error, deviation, LEVELS)
        found[target.name] = {
            f"{level:.4g}": share for level, share in zip(LEVELS, shares, strict=True)
        }
        found[target.name]["rank_correlation"] = _rank_correlation(error, deviation)
    return found


def known_errors(
    prediction: Tensor, std: Tensor, truth: Tensor, targets: Sequence[Target]
) -> Iterator[tuple[Target, Tensor, Tensor]]:
    """Each number with its absolute errors and its deviations where it is known: [n_known] both, float64."""
    predicted, deviations = (known_labels(outputs, truth, targets) for outputs in (prediction, std))
    for (target, of_target, label), (_, deviation, _) in zip(predicted, deviations, strict=True):
        if not target.classes:
            yield (
                target,
                (of_target.squeeze(1).double() - label).abs(),
                deviation.squeeze(1).double(),
            )


def covered(error: Tensor, std: Tensor, levels: Sequence[float]) -> list[float]:
    """The share of the absolute errors [n_rows] within each level's bound of a normal distribution."""
    bounds = [NormalDist().inv_cdf((1 + level) / 2) for level in levels]
    return [
        (error <= bound * std).double().mean().item() if len(error) else NAN for bound in bounds
    ]


def format_coverage(shares: Mapping[str, float], name: str) -> str:
    """The line of a target on the terminal."""
    return f"errors of {name} within 1 and 1.96 std: {shares['0.6827']:.0%} and {shares['0.95']:.0%} (68 % and 95 %)"


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    if len(a) < 2:
        return NAN
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return torch.corrcoef(ranks)[0, 1].item()
