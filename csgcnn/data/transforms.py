"""Transforms of regression targets: a model is trained on them and predicts in the original unit.

The values of a data set and the outputs of a network are on the scale of the transform. The
functions here take them back to the original unit, for everything that is reported.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from csgcnn.data.targets import Target

Floats = NDArray[np.float32]

# Largest absolute value of a target. The largest float32 is 3e38; the rest of the range is left
# for differences and for predictions beyond the data.
LARGEST = 1e37


@dataclass(frozen=True, slots=True)
class Transform:
    """An increasing function of a target, and its inverse for any number.

    Attributes:
        forward: The function, of tensors.
        inverse: Its inverse.
        of_number: The function, of one number.
        above: Values must be above this number.
        includes_end: Whether `above` itself is in the domain.
    """

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    of_number: Callable[[float], float]
    above: float = -math.inf
    includes_end: bool = False

    def accepts(self, value: float) -> bool:
        """Return whether a value is in the domain."""
        return value > self.above or (self.includes_end and value == self.above)

    @property
    def domain(self) -> str:
        """The domain in words."""
        relation = "of at least" if self.includes_end else "above"
        return f"a number {relation} {self.above:g}"


TRANSFORMS = {
    "none": Transform(lambda x: x, lambda x: x, lambda x: x),
    "log10": Transform(torch.log10, lambda x: 10**x, math.log10, above=0),
    "log": Transform(torch.log, torch.exp, math.log, above=0),
    "log1p": Transform(torch.log1p, torch.expm1, math.log1p, above=-1),
    "sqrt": Transform(
        torch.sqrt, lambda x: x.clamp(min=0).square(), math.sqrt, above=0, includes_end=True
    ),
}


def transformed(value: float, target: "Target") -> float:
    """Return a value on the scale on which the target is trained.

    Args:
        value: The value in the unit of the target, NaN where missing.
        target: The target.

    Raises:
        ValueError: The value is outside the domain of the transform.
    """
    if target.transform == "none" or value != value:
        return value
    transform = TRANSFORMS[target.transform]
    if not transform.accepts(value):
        raise ValueError(
            f"expected {transform.domain} for dataset.transform.{target.name}={target.transform}"
        )
    return transform.of_number(value)


def labels_in_unit(values: Tensor, targets: Sequence["Target"]) -> Tensor:
    """Return values of targets in their units.

    Args:
        values: Values as they are trained [n_rows, sum of n_labels]; classes remain.
        targets: The targets.
    """
    of_labels = [target for target in targets for _ in range(target.n_labels)]
    return _inverse(values, of_labels)


def predictions_in_unit(prediction: Tensor, targets: Sequence["Target"]) -> Tensor:
    """Return predictions in the units of the targets.

    Args:
        prediction: Outputs of a network [n_rows, sum of n_outputs]; probabilities remain.
        targets: The targets.
    """
    return _inverse(prediction, _of_outputs(targets))


def interval_in_unit(
    prediction: Tensor, std: Tensor, targets: Sequence["Target"], n_std: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the ends of intervals around predictions, in the units of the targets.

    The ends are those of the interval on the trained scale, transformed back: the interval of a
    transformed target is not symmetric, and its coverage is that on the trained scale.

    Args:
        prediction: Predictions in the units of the targets [n_rows, sum of n_outputs].
        std: Standard deviations on the trained scale, of the same shape.
        targets: The targets.
        n_std: Half of the width, in standard deviations.
    """
    of_outputs = _of_outputs(targets)
    center = _columns(prediction, of_outputs, lambda transform, column: transform.forward(column))
    low, high = center - n_std * std, center + n_std * std
    return _inverse(low, of_outputs), _inverse(high, of_outputs)


def std_in_unit(prediction: Floats, std: Floats, targets: Sequence["Target"]) -> Floats:
    """Return standard deviations in the units; of transforms, half of the width of an interval.

    Args:
        prediction: Predictions in the units of the targets [n_rows, sum of n_outputs].
        std: Standard deviations on the trained scale, of the same shape.
        targets: The targets.
    """
    deviations = torch.from_numpy(std)
    lower, upper = interval_in_unit(torch.from_numpy(prediction), deviations, targets)
    has_transform = torch.tensor([target.transform != "none" for target in _of_outputs(targets)])
    return torch.where(has_transform, (upper - lower) / 2, deviations).numpy()


def _of_outputs(targets: Sequence["Target"]) -> list["Target"]:
    return [target for target in targets for _ in target.outputs]


def _inverse(values: Tensor, targets: Sequence["Target"]) -> Tensor:
    return _columns(values, targets, lambda transform, column: transform.inverse(column))


def _columns(
    values: Tensor, targets: Sequence["Target"], apply: Callable[[Transform, Tensor], Tensor]
) -> Tensor:
    """Apply a function of the transform to each column whose target has one."""
    if all(target.transform == "none" for target in targets):
        return values
    columns = [
        column
        if target.transform == "none"
        else apply(TRANSFORMS[target.transform], column.double())
        .clamp(-LARGEST, LARGEST)
        .to(values.dtype)
        for target, column in zip(targets, values.unbind(1), strict=True)
    ]
    return torch.stack(columns, dim=1)
