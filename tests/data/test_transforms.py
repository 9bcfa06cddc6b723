"""Test transforms of targets."""

import math

import pytest
import torch

from csgcnn.data.targets import Target
from csgcnn.data.transforms import (
    TRANSFORMS,
    interval_in_unit,
    labels_in_unit,
    predictions_in_unit,
    transformed,
)

LOG = Target("k", "GPa", transform="log10")
KIND = Target("kind", task="classification", classes=("a", "b"))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_inverse_undoes_a_transform(name: str) -> None:
    transform = TRANSFORMS[name]
    values = torch.tensor([1e-6, 0.3, 1.0, 7.0, 1e6], dtype=torch.float64)
    torch.testing.assert_close(transform.inverse(transform.forward(values)), values)


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("log10", [1e-9], [0, -1]),
        ("log", [1e-9], [0, -1]),
        ("log1p", [0, -0.9], [-1, -2]),
        ("sqrt", [0, 1], [-1e-9]),
        ("none", [-1, 0, 1], []),
    ],
)
def test_values_outside_the_domain_are_refused(
    name: str, inside: list[float], outside: list[float]
) -> None:
    target = Target("x", transform=name)
    assert all(math.isfinite(transformed(value, target)) for value in inside)
    for value in outside:
        with pytest.raises(ValueError, match=rf"^expected a number .*dataset\.transform\.x={name}"):
            transformed(value, target)


def test_only_targets_with_a_transform_change() -> None:
    targets = [Target("gap"), KIND, LOG]
    labels = torch.tensor([[1.0, 1.0, 2.0], [math.nan, 0.0, math.nan]])
    expected = torch.tensor([[1.0, 1.0, 100.0], [math.nan, 0.0, math.nan]])
    torch.testing.assert_close(labels_in_unit(labels, targets), expected, equal_nan=True)
    outputs = torch.tensor([[1.0, 0.3, 0.7, -1.0]])
    in_unit = predictions_in_unit(outputs, targets)
    torch.testing.assert_close(in_unit, torch.tensor([[1.0, 0.3, 0.7, 0.1]]))
    assert predictions_in_unit(outputs, [Target("gap"), KIND, Target("k")]) is outputs


def test_a_deviation_becomes_an_interval() -> None:
    lower, upper = interval_in_unit(torch.tensor([[100.0]]), torch.tensor([[0.5]]), [LOG], 2.0)
    torch.testing.assert_close((lower, upper), (torch.tensor([[10.0]]), torch.tensor([[1000.0]])))
    below = Target("x", transform="sqrt")
    lower, _ = interval_in_unit(torch.tensor([[1.0]]), torch.tensor([[2.0]]), [below])
    assert lower.item() == 0, "a root is not negative"


def test_a_prediction_far_outside_the_data_stays_finite() -> None:
    assert predictions_in_unit(torch.tensor([[500.0]]), [LOG]).isfinite().all()
