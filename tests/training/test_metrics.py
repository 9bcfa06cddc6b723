import math

import pytest
import torch

from csgcnn.training.metrics import baseline_mae, mean_absolute_error, regression_metrics

NAN = float("nan")
TARGET = torch.tensor([[0.0, 5.0], [2.0, NAN], [4.0, 5.0]])
PREDICTION = torch.tensor([[1.0, 6.0], [2.0, 99.0], [2.0, 2.0]])


def test_closed_forms_leave_missing_targets_out() -> None:
    metrics = regression_metrics(PREDICTION, TARGET, ["gap", "bulk"])
    assert metrics["gap"] == pytest.approx({"mae": 1, "rmse": math.sqrt(5 / 3), "r2": 1 - 5 / 8, "n": 3})
    constant = metrics["bulk"]
    assert (constant["mae"], constant["rmse"], constant["n"]) == (2, pytest.approx(math.sqrt(5)), 2)
    assert math.isnan(constant["r2"])
    torch.testing.assert_close(mean_absolute_error(PREDICTION, TARGET), torch.tensor([1.0, 2.0]))


def test_the_baseline_predicts_the_training_mean() -> None:
    assert baseline_mae(torch.tensor([1.0, 4.0]), TARGET, ["gap", "bulk"]) == pytest.approx(
        {"gap": (1 + 1 + 3) / 3, "bulk": 1}
    )
