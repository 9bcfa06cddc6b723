import math

import pytest
import torch
import torch.nn.functional as F

from csgcnn.data.targets import Target
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
