import math

import pytest
import torch

from csgcnn.data.targets import Target
from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.evaluation.metrics import target_metrics

NAN = float("nan")
TARGETS = [Target("gap"), Target("bulk")]
VALUES = torch.tensor([[0.0, 5.0], [2.0, NAN], [4.0, 5.0]])
PREDICTION = torch.tensor([[1.0, 6.0], [2.0, 99.0], [2.0, 2.0]])


def test_closed_forms_leave_missing_targets_out() -> None:
    metrics = target_metrics(PREDICTION, VALUES, TARGETS)
    assert metrics["gap"] == pytest.approx(
        {"mae": 1, "rmse": math.sqrt(5 / 3), "r2": 1 - 5 / 8, "n": 3}
    )
    constant = metrics["bulk"]
    assert (constant["mae"], constant["rmse"], constant["n"]) == (2, pytest.approx(math.sqrt(5)), 2)
    assert math.isnan(constant["r2"])


def test_a_target_that_no_row_has() -> None:
    metrics = target_metrics(PREDICTION, torch.full_like(VALUES, NAN), TARGETS)["gap"]
    assert metrics["n"] == 0
    assert all(math.isnan(metrics[name]) for name in ("mae", "rmse", "r2"))


def test_the_baseline_predicts_the_training_mean() -> None:
    train = torch.tensor([[0.0, NAN], [2.0, 4.0]])
    baseline = baseline_metrics(train, VALUES, TARGETS)
    assert (baseline["gap"]["mae"], baseline["bulk"]["mae"]) == pytest.approx(((1 + 1 + 3) / 3, 1))
