import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.evaluation.metrics import (
    ACCURACY,
    CROSS_ENTROPY,
    MAE,
    R2,
    REGRESSION,
    TASKS,
    Metric,
    format_metrics,
    metric_named,
    metrics_of,
    register_metric,
    target_metrics,
    task_metrics,
    unregister_metric,
)

NAN = float("nan")
TARGETS = [Target("gap"), Target("bulk")]
GAP = Target("gap", "eV")
METAL = Target("is_metal", task="classification", classes=("0", "1"))
SYSTEM = Target("system", task="classification", classes=("a", "b", "c"))
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


def test_a_target_without_known_values() -> None:
    metrics = target_metrics(PREDICTION, torch.full_like(VALUES, NAN), TARGETS)["gap"]
    assert metrics["n"] == 0
    assert all(math.isnan(metrics[name]) for name in ("mae", "rmse", "r2"))


def test_the_baseline_predicts_the_training_mean() -> None:
    train = torch.tensor([[0.0, NAN], [2.0, 4.0]])
    baseline = baseline_metrics(train, VALUES, TARGETS)
    assert (baseline["gap"]["mae"], baseline["bulk"]["mae"]) == pytest.approx(((1 + 1 + 3) / 3, 1))


def test_metrics_and_baseline_of_mixed_targets_leave_missing_labels_out() -> None:
    targets = [METAL, GAP, SYSTEM]
    prediction = torch.tensor(
        [[0.9, 0.1, 5, 0.2, 0.2, 0.6], [0.3, 0.7, 9, 0.8, 0.1, 0.1], [0.5, 0.5, 1, 0.1, 0.8, 0.1]]
    )
    truth = torch.tensor([[0, NAN, 2], [1, 8, NAN], [NAN, NAN, 0]])
    metrics = target_metrics(prediction, truth, targets)
    assert [(name, row["n"]) for name, row in metrics.items()] == [
        ("is_metal", 2),
        ("gap", 1),
        ("system", 2),
    ]
    assert (
        metrics["is_metal"]["accuracy"],
        metrics["gap"]["mae"],
        metrics["system"]["accuracy"],
    ) == (1, 1, 0.5)

    train = torch.tensor([[0, 2, 0], [0, NAN, 0], [0, 4, NAN], [1, NAN, 2], [NAN, NAN, 1]])
    baseline = baseline_metrics(train, truth, targets)
    assert baseline["is_metal"]["accuracy"] == 0.5, (
        "the most frequent class of the training rows is 0"
    )
    assert baseline["is_metal"]["roc_auc"] == 0.5
    assert baseline["is_metal"]["cross_entropy"] == pytest.approx(
        -(math.log(0.75) + math.log(0.25)) / 2
    )
    assert baseline["gap"]["mae"] == 8 - 3
    assert baseline["system"]["accuracy"] == 0.5


def test_the_keys_of_each_task() -> None:
    """Files of earlier runs have the same keys."""
    assert [metric.name for metric in metrics_of("regression")] == ["mae", "rmse", "r2"]
    assert [metric.name for metric in metrics_of("classification")] == [
        "accuracy",
        "balanced_accuracy",
        "roc_auc",
        "cross_entropy",
    ]
    assert [m.name for m in metrics_of("grid")] == ["mae", "rmse", "r2", "wasserstein"]
    each_epoch = [m.name for task in TASKS for m in metrics_of(task) if m.each_epoch]
    assert each_epoch == ["mae", "balanced_accuracy", "cross_entropy", "mae"]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [(MAE, [1.0, 2.0, 3.0]), (CROSS_ENTROPY, [1.0, 2.0, 3.0]), (R2, [3.0, 2.0, 1.0])],
    ids=lambda value: getattr(value, "name", None),
)
def test_values_are_sorted_from_the_best_to_the_worst(
    metric: Metric, expected: list[float]
) -> None:
    values = sorted([2.0, NAN, 3.0, 1.0], key=metric.sort_key)
    assert values[:3] == expected
    assert math.isnan(values[3])


def max_error(prediction: Tensor, truth: Tensor) -> float:
    return (prediction - truth).abs().max().item()


MAX_ERROR = Metric(
    "max_error", "max error", REGRESSION, max_error, has_unit=True, lower_is_better=True
)


@pytest.fixture
def registered() -> Iterator[None]:
    register_metric(MAX_ERROR)
    yield
    unregister_metric(MAX_ERROR)


@pytest.mark.usefixtures("registered")
def test_a_registered_metric_is_computed_and_printed() -> None:
    metrics = target_metrics(PREDICTION, VALUES, TARGETS)
    assert metrics["gap"]["max_error"] == 2
    assert ", max error 2, 3 crystals (" in format_metrics(GAP, metrics["gap"], metrics["gap"])
    assert metric_named("max_error") is MAX_ERROR


@pytest.mark.usefixtures("registered")
def test_a_metric_may_be_registered_again_but_not_replaced() -> None:
    register_metric(MAX_ERROR)
    other = Metric("mae", "other", REGRESSION, max_error)
    with pytest.raises(ValueError, match="another metric with the name mae"):
        register_metric(other)
    with pytest.raises(ValueError, match="task=ranking: expected regression or classification"):
        register_metric(Metric("ndcg", "NDCG", "ranking", max_error))


def test_the_line_about_a_number() -> None:
    metrics = task_metrics(REGRESSION, torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.0]))
    assert format_metrics(GAP, metrics, {"mae": 0.25}) == (
        "MAE of gap: 0.75 eV, RMSE 0.7906, R2 -9, 2 crystals (predicting the mean: 0.25 eV)"
    )
    one = task_metrics(REGRESSION, torch.tensor([1.0]), torch.tensor([3.0]))
    assert format_metrics(GAP, one, one).startswith("MAE of gap: 2 eV, RMSE 2, R2 nan, 1 crystal (")


def test_the_line_about_a_class() -> None:
    metrics = {"accuracy": 0.5, "balanced_accuracy": 0.75, "roc_auc": 1.0, "cross_entropy": 2.0}
    assert format_metrics(METAL, {**metrics, "n": 4}, {ACCURACY.name: 0.25}) == (
        "accuracy of is_metal: 0.5, balanced accuracy 0.75, ROC-AUC 1, cross entropy 2, 4 crystals "
        "(always the most frequent class: 0.25)"
    )


def test_the_line_about_a_target_without_known_values() -> None:
    prediction, nothing = torch.tensor([[1.0, 0.2, 0.3, 0.5]]), torch.full((1, 2), NAN)
    metrics = target_metrics(prediction, nothing, [GAP, SYSTEM])
    lines = [
        format_metrics(target, metrics[target.name], metrics[target.name])
        for target in (GAP, SYSTEM)
    ]
    assert lines == [
        f"{name}: none of the crystals has a known value" for name in ("gap", "system")
    ]


@pytest.mark.parametrize(
    "factor", [2.0**power for power in (-100, -40, 40, 100, 119)], ids="{:.0e}".format
)
def test_regression_metrics_scale_with_the_unit(factor: float) -> None:
    values = torch.tensor([0.5, 1.25, 3.0, 7.0, 2.0, 1.0])
    expected, found = (
        task_metrics(REGRESSION, (values + 0.5) * f, values * f) for f in (1.0, factor)
    )
    scaled = {name: expected[name] * factor for name in ("mae", "rmse")}
    assert found == pytest.approx(expected | scaled)
    column = values.unsqueeze(1) * factor
    baseline = baseline_metrics(column, column, [Target("gap", "eV")])["gap"]["mae"]
    assert baseline == pytest.approx((values - values.mean()).abs().mean().item() * factor)
