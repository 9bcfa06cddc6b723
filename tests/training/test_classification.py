import math
from pathlib import Path

import matplotlib.image
import pytest
import torch
import torch.nn.functional as F

from csgcnn.data.targets import Target
from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.evaluation.metrics import classification_metrics, roc_auc, roc_curve, target_metrics
from csgcnn.evaluation.plots import plot_test
from csgcnn.nn.heads import TargetScaler
from csgcnn.training.losses import (
    MultiTaskLoss,
    WeightedRegressionLoss,
    balanced_class_weights,
    cross_entropy,
)

NAN = float("nan")
METAL = Target("is_metal", task="classification", classes=("0", "1"))
SYSTEM = Target("system", task="classification", classes=("a", "b", "c"))
GAP = Target("gap", "eV")


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
def test_roc_auc_is_the_share_of_pairs_in_order(
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


def test_classification_metrics_in_closed_form() -> None:
    probability = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    metrics = classification_metrics(probability, torch.tensor([0, 0, 0, 1, 1]))
    assert metrics == pytest.approx(
        {
            "accuracy": 3 / 5,
            "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
            "roc_auc": 3 / 6,
            "cross_entropy": -sum(map(math.log, (0.9, 0.6, 0.2, 0.3, 0.6))) / 5,
            "n": 5,
        }
    )
    certain = classification_metrics(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert math.isfinite(certain["cross_entropy"])
    assert math.isnan(certain["roc_auc"])
    nothing = classification_metrics(torch.empty(0, 2), torch.empty(0, dtype=torch.long))
    assert nothing["n"] == 0
    assert math.isnan(nothing["accuracy"])


def test_more_than_two_classes() -> None:
    probability = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])
    label = torch.tensor([0, 1, 1, 0])
    metrics = classification_metrics(probability, label)
    assert metrics["accuracy"] == 0.75
    assert metrics["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2), "of the classes that occur"
    assert metrics["roc_auc"] == pytest.approx((3 / 4 + 3 / 4) / 2), (
        "the third class has no rows, so no curve"
    )


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


def test_the_scaler_knows_numbers_from_classes() -> None:
    scaler = TargetScaler([1, 2, 1])
    targets = torch.tensor([[1.0, 0, 10], [3.0, 1, NAN], [NAN, 1, 30], [5.0, NAN, NAN]])
    scaler.fit(targets)
    torch.testing.assert_close(scaler.mean, torch.tensor([3.0, 0, 20]))
    torch.testing.assert_close(scaler.std, torch.tensor([math.sqrt(8 / 3), 1, 10]))
    torch.testing.assert_close(scaler.standardize(targets)[:, 1], targets[:, 1], equal_nan=True)
    answer = scaler(torch.tensor([[0.0, 1.0, 1.0, 2.0], [1.0, 0.0, math.log(3), 0.0]]))
    expected = [[3, 0.5, 0.5, 40], [3 + math.sqrt(8 / 3), 0.25, 0.75, 20]]
    torch.testing.assert_close(answer, torch.tensor(expected))
    assert list(scaler.state_dict()) == ["mean", "std"]


def test_cross_entropy_is_that_of_torch_on_the_known_rows() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, NAN, 2, NAN, 1])
    weights, known = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0, 1, 3, 5])
    value = cross_entropy(logits, label, weights)
    torch.testing.assert_close(value, F.cross_entropy(logits[known], label[known].long(), weights))
    value.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert torch.equal(logits.grad.abs().sum(1) > 0, label.isfinite())
    assert cross_entropy(logits, torch.full((6,), NAN), weights) == 0


def test_balanced_class_weights_give_every_class_the_same_total() -> None:
    label = torch.tensor([0, 0, 0, 1, NAN, 0, 3])
    weight = balanced_class_weights(label, 4)
    torch.testing.assert_close(weight, torch.tensor([6 / (3 * 4), 6 / 3, 0, 6 / 3]))
    torch.testing.assert_close(
        balanced_class_weights(torch.tensor([0.0, 1, 1, 0]), 2), torch.ones(2)
    )


def test_a_missing_label_influences_nothing_of_its_target() -> None:
    torch.manual_seed(0)
    loss = MultiTaskLoss(WeightedRegressionLoss(mse=1.0), [1, 3, 1], learn_weights=True)
    target = torch.tensor([[1.0, 2, NAN], [NAN, 0, NAN], [2.0, NAN, NAN]])
    outputs = torch.randn(3, 5, requires_grad=True)
    value = loss(outputs, target)
    value.backward()
    assert outputs.grad is not None
    known = target.isfinite()[:, [0, 1, 1, 1, 2]]
    assert torch.equal(outputs.grad != 0, known)
    assert loss.log_variance is not None
    assert loss.log_variance.grad is not None
    assert loss.log_variance.grad[2] == 0, "a target that the batch has no label of"
    changed = torch.where(known, outputs.detach(), 1e6)
    torch.testing.assert_close(loss(changed, target), value)
    assert loss(outputs, torch.full_like(target, NAN)) == 0


def test_fixed_weights_are_those_of_a_mean() -> None:
    target = torch.tensor([[0.0, 0.0], [0.0, NAN]])
    outputs = torch.tensor([[1.0, 3.0], [2.0, 7.0]])
    first, second = 2.5, 9.0
    assert MultiTaskLoss(WeightedRegressionLoss(mse=1.0), [1, 1])(
        outputs, target
    ).item() == pytest.approx((first + second) / 2)
    weighted = MultiTaskLoss(WeightedRegressionLoss(mse=1.0), [1, 1], [3.0, 1.0])
    assert weighted(outputs, target).item() == pytest.approx((3 * first + second) / 4)
    assert MultiTaskLoss(WeightedRegressionLoss(mse=1.0))(outputs[:, :1], target[:, :1]) == first, (
        "one target: its loss alone"
    )


def test_learned_weights_in_closed_form() -> None:
    """d/ds of exp(-s) L / 2 + s / 2 is zero at s = log L; without the first half, of a class, at s = log 2 L."""
    target, outputs = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.5, -0.5]])
    loss = MultiTaskLoss(WeightedRegressionLoss(mse=1.0), [1, 2], learn_weights=True)
    squared, surprise = 9.0, math.log(1 + math.e)
    assert loss(outputs, target).item() == pytest.approx((squared / 2 + surprise) / 2)
    assert loss.log_variance is not None
    with torch.no_grad():
        loss.log_variance.copy_(torch.tensor([math.log(squared), math.log(2 * surprise)]))
    value = loss(outputs, target)
    value.backward()
    torch.testing.assert_close(loss.log_variance.grad, torch.zeros(2), atol=1e-6, rtol=0)
    expected = (0.5 + math.log(squared) / 2 + 0.5 + math.log(2 * surprise) / 2) / 2
    assert value.item() == pytest.approx(expected)
    torch.testing.assert_close(
        loss.task_weights, torch.tensor([0.5 / squared, 1 / (2 * surprise)]) / 2
    )


def test_figures_of_mixed_targets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    many = Target("space group/no.", task="classification", classes=tuple(map(str, range(40))))
    targets = [METAL, GAP, SYSTEM, many]
    prediction = torch.cat(
        [torch.rand(50, n).softmax(1) if n > 1 else torch.rand(50, 1) for n in (2, 1, 3, 40)], 1
    )
    values = torch.stack([torch.randint(0, n, (50,)).float() for n in (2, 9, 3, 40)], 1)
    values[:5], values[:, 2] = NAN, 1.0
    plot_test(prediction, values, targets, tmp_path)
    names = ["is_metal", "system", "space_group_no."]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["parity.png", *(f"{kind}_{name}.png" for kind in ("confusion", "roc") for name in names)]
    )
    assert all(matplotlib.image.imread(path).std() > 0.01 for path in tmp_path.iterdir())
