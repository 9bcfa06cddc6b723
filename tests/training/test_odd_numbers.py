"""Numbers that data sets are not supposed to hold, and do."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from csgcnn.data.targets import Target
from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.evaluation.metrics import REGRESSION, task_metrics
from csgcnn.nn.heads import TargetScaler
from csgcnn.training.losses import MultiTaskLoss, WeightedRegressionLoss, balanced_class_weights
from csgcnn.training.schedulers import cosine, one_cycle

NAN = float("nan")
GAP, KIND = Target("gap", "eV"), Target("kind", task="classification", classes=("a", "b", "c"))
VALUES = torch.tensor([0.5, 1.25, 3.0, 7.0, 2.0, 1.0])
MAGNITUDES = [
    2.0**power for power in (-100, -40, 0, 40, 100, 119)
]  # 8e-31, 9e-13, 1, 1e12, 1e30, 7e35


@pytest.mark.parametrize("magnitude", MAGNITUDES, ids="{:.0e}".format)
def test_the_unit_of_a_target_does_not_matter(magnitude: float) -> None:
    plain, scaled = TargetScaler([1]), TargetScaler([1])
    values = VALUES.unsqueeze(1)
    plain.fit(values)
    scaled.fit(values * magnitude)
    standardized = scaled.standardize(values * magnitude)
    assert torch.equal(standardized, plain.standardize(values)), "powers of two lose no digit"
    assert torch.equal(scaled(standardized), plain(plain.standardize(values)) * magnitude)

    prediction = VALUES + 0.5
    expected, found = (
        task_metrics(REGRESSION, prediction * m, VALUES * m) for m in (1.0, magnitude)
    )
    assert found == pytest.approx(
        expected | {name: expected[name] * magnitude for name in ("mae", "rmse")}
    )
    baseline = baseline_metrics(values * magnitude, values * magnitude, [GAP])["gap"]
    assert baseline["mae"] == pytest.approx(
        (VALUES - VALUES.mean()).abs().mean().item() * magnitude
    )


@pytest.mark.parametrize("value", [0.0, 3.7, -1e-12, 1e30, 123456.7])
@pytest.mark.parametrize("n_rows", [1, 2, 37])
def test_a_scaler_of_one_value(value: float, n_rows: int) -> None:
    scaler, values = TargetScaler([1]), torch.full((n_rows, 1), value)
    scaler.fit(values)
    assert scaler.std.item() == 1
    assert not scaler.standardize(values).any()
    assert torch.equal(scaler(torch.zeros(n_rows, 1)), values)


@pytest.mark.parametrize(
    "values",
    [[1e-12, 1e12, 1e30, 2.0], [1.0, 2.0, 3.0, 1e6], [True, False, True, True], [1, 2, 3, -4]],
    ids=["mixed", "outlier", "bool", "int"],
)
def test_a_scaler_of_mixed_values(values: list[float]) -> None:
    scaler, targets = TargetScaler([1]), torch.tensor([[float(value)] for value in values])
    scaler.fit(targets)
    assert scaler.std.item() == pytest.approx(np.std(values), rel=1e-6)
    assert scaler.standardize(targets).abs().max() <= len(values) ** 0.5
    torch.testing.assert_close(
        scaler(scaler.standardize(targets)), targets, atol=1e-6 * max(values), rtol=0
    )


@pytest.mark.parametrize("make", [one_cycle, cosine])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.9])
def test_a_schedule_of_any_length(make: Callable[..., LRScheduler], warmup: float) -> None:
    for n_steps in range(1, 41):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
        scheduler = make(optimizer, n_steps, warmup=warmup)
        rates = []
        for _ in range(n_steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert all(0 < rate <= 0.01 * (1 + 1e-6) for rate in rates), (n_steps, rates)
        assert n_steps < 3 or max(rates) > 0.003, (n_steps, rates)
        rising = [a < b for a, b in pairwise(rates)]
        assert rising == sorted(rising, reverse=True), "up, then down"


def test_a_class_that_never_trains_weighs_nothing() -> None:
    weights = balanced_class_weights(torch.tensor([0.0, 1.0, 1.0, NAN]), 3)
    assert weights.tolist() == [1.5, 0.75, 0]
    loss = MultiTaskLoss(WeightedRegressionLoss(mse=1.0), [3], class_weights=[weights])
    outputs = torch.randn(2, 3, requires_grad=True)
    value = loss(outputs, torch.tensor([[2.0], [2.0]]))
    value.backward()
    assert value == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()
