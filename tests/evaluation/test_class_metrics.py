import math

import pytest
import torch

from csgcnn.evaluation.class_metrics import roc_auc, roc_curve
from csgcnn.evaluation.metrics import CLASSIFICATION, task_metrics

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),  # 3 of 4 pairs in order
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
        ([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1], 3.5 / 4),
        ([0.3, 0.3, 0.3, 0.1, 0.7], [1, 0, 1, 0, 0], 3 / 6),
        ([0.3, 0.4], [1, 1], NAN),
        ([0.3, 0.4], [0, 0], NAN),
        ([], [], NAN),
    ],
)
def test_roc_auc_is_the_fraction_of_pairs_in_order(
    scores: list[float], positive: list[int], expected: float
) -> None:
    score, is_positive = torch.tensor(scores), torch.tensor(positive, dtype=torch.bool)
    assert roc_auc(score, is_positive) == pytest.approx(expected, nan_ok=True)


def test_roc_auc_equals_the_pairs_counted_and_the_area_below_the_curve() -> None:
    torch.manual_seed(0)
    score, positive = torch.randint(0, 12, (200,)) / 12, torch.rand(200) < 0.3
    difference = score[positive].unsqueeze(1) - score[~positive]
    pairs = ((difference > 0).double() + 0.5 * (difference == 0)).mean().item()
    assert roc_auc(score, positive) == pytest.approx(pairs)
    false_rate, true_rate = roc_curve(score, positive)
    assert torch.trapezoid(true_rate, false_rate).item() == pytest.approx(pairs)
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)


def test_closed_forms() -> None:
    probability = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    metrics = task_metrics(CLASSIFICATION, probability, torch.tensor([0, 0, 0, 1, 1]))
    assert metrics == pytest.approx(
        {
            "accuracy": 3 / 5,
            "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
            "roc_auc": 3 / 6,
            "cross_entropy": -sum(map(math.log, (0.9, 0.6, 0.2, 0.3, 0.6))) / 5,
            "n": 5,
        }
    )
    certain = task_metrics(CLASSIFICATION, torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert math.isfinite(certain["cross_entropy"])
    assert math.isnan(certain["roc_auc"])
    nothing = task_metrics(CLASSIFICATION, torch.empty(0, 2), torch.empty(0, dtype=torch.long))
    assert nothing["n"] == 0
    assert math.isnan(nothing["accuracy"])


def test_the_metrics_of_several_classes() -> None:
    probability = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])
    label = torch.tensor([0, 1, 1, 0])
    metrics = task_metrics(CLASSIFICATION, probability, label)
    assert metrics["accuracy"] == 0.75
    assert metrics["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2), "of the classes that occur"
    assert metrics["roc_auc"] == pytest.approx((3 / 4 + 3 / 4) / 2), (
        "the third class has no rows, so no curve"
    )
