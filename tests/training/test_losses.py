import math

import pytest
import torch
import torch.nn.functional as F

from csgcnn.config.compose import compose
from csgcnn.config.instantiate import instantiate
from csgcnn.errors import ConfigError
from csgcnn.training.losses import (
    Likelihood,
    MultiTaskLoss,
    WeightedRegressionLoss,
    balanced_class_weights,
    cross_entropy,
)

NAN = float("nan")
ERRORS = torch.tensor([[2.0], [-0.5]])


@pytest.mark.parametrize(
    ("option", "of_2", "of_half"),
    [("mse", 4, 0.25), ("mae", 2, 0.5), ("huber", 1.5, 0.125), ("weighted", 2.7, 0.325)],
)
def test_closed_forms(option: str, of_2: float, of_half: float) -> None:
    loss = instantiate(compose("train", [f"loss={option}"]).loss)
    target = torch.tensor([[1.0], [3.0]])
    assert loss(target + ERRORS, target).item() == pytest.approx((of_2 + of_half) / 2)
    assert loss(target, target) == 0


def test_missing_labels_reach_neither_loss_nor_gradient() -> None:
    loss = instantiate(compose("train").loss)
    target = torch.tensor([[0.0, NAN], [NAN, NAN], [1.0, 2.0]])
    prediction = torch.tensor([[2.0, 7.0], [8.0, 9.0], [3.0, 4.0]], requires_grad=True)
    value = loss(prediction, target)
    assert value.item() == pytest.approx(2.7), "the mean over the three known labels, each 2 off"
    value.backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert torch.equal(prediction.grad != 0, target.isfinite())

    nothing_known = loss(prediction, torch.full_like(target, NAN))
    assert nothing_known == 0


@pytest.mark.parametrize(
    ("option", "misfit"), [("gaussian", 0.5 * 2**2), ("laplace", math.sqrt(2) * 2)]
)
def test_likelihoods(option: str, misfit: float) -> None:
    cfg = compose("train", [f"loss={option}"])
    assert cfg.model.predict_std
    loss, log_std = instantiate(cfg.loss), torch.full((4, 1), math.log(0.5))
    target = torch.tensor([[1.0], [2.0], [NAN], [3.0]])
    prediction = (target.nan_to_num(5.0) + 1).requires_grad_()
    assert loss(prediction, target, log_std).item() == pytest.approx(math.log(0.5) + misfit)
    loss(prediction, target, log_std).backward()
    assert prediction.grad is not None
    assert prediction.grad[2] == 0
    assert loss(prediction, torch.full_like(target, NAN), log_std) == 0


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_a_likelihood_is_minimal_at_the_deviation_of_the_errors(distribution: str) -> None:
    generator = torch.Generator().manual_seed(0)
    error = torch.randn(5000, 1, generator=generator) * 0.3
    if distribution == "laplace":
        sign = torch.randn(5000, 1, generator=generator).sign()
        error = sign * torch.empty(5000, 1).exponential_(math.sqrt(2) / 0.3, generator=generator)
    log_std = torch.zeros(1, 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_std], max_iter=50)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = Likelihood(distribution)(error, torch.zeros_like(error), log_std.expand_as(error))
        value.backward()
        return value

    optimizer.step(step)
    assert log_std.exp().item() == pytest.approx(0.3, rel=0.05)


def test_a_vanishing_deviation_has_a_finite_loss() -> None:
    value = Likelihood("gaussian")(torch.ones(2, 1), torch.zeros(2, 1), torch.full((2, 1), -1e4))
    assert value.isfinite()


def test_outputs_of_several_targets_with_deviations() -> None:
    """Outputs of a number, a class and a number, then the deviations of the numbers."""
    loss = MultiTaskLoss(Likelihood("gaussian"), [1, 2, 1])
    outputs = torch.tensor([[1.0, 0.0, 0.0, 5.0, math.log(2), math.log(4)]])
    target = torch.tensor([[0.0, 1.0, 1.0]])
    first, last = math.log(2) + 0.5 * (1 / 2) ** 2, math.log(4) + 0.5 * (4 / 4) ** 2
    assert loss(outputs, target).item() == pytest.approx((first + math.log(2) + last) / 3)


def test_cross_entropy_equals_torch_on_the_known_rows() -> None:
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


def test_balanced_class_weights_give_classes_equal_totals() -> None:
    label = torch.tensor([0, 0, 0, 1, NAN, 0, 3])
    weight = balanced_class_weights(label, 4)
    torch.testing.assert_close(weight, torch.tensor([6 / (3 * 4), 6 / 3, 0, 6 / 3]))
    torch.testing.assert_close(
        balanced_class_weights(torch.tensor([0.0, 1, 1, 0]), 2), torch.ones(2)
    )


def test_missing_labels_change_neither_loss_nor_gradient() -> None:
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


def test_fixed_task_weights_are_those_of_a_weighted_mean() -> None:
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


def test_learned_task_weights_in_closed_form() -> None:
    """Of a number the optimum is s = log L, of a class s = log 2 L."""
    target, outputs = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.5, -0.5]])
    loss = MultiTaskLoss(WeightedRegressionLoss(mse=1.0), [1, 2], learn_weights=True)
    squared, entropy = 9.0, math.log(1 + math.e)
    assert loss(outputs, target).item() == pytest.approx((squared / 2 + entropy) / 2)
    assert loss.log_variance is not None
    with torch.no_grad():
        loss.log_variance.copy_(torch.tensor([math.log(squared), math.log(2 * entropy)]))
    value = loss(outputs, target)
    value.backward()
    torch.testing.assert_close(loss.log_variance.grad, torch.zeros(2), atol=1e-6, rtol=0)
    expected = (0.5 + math.log(squared) / 2 + 0.5 + math.log(2 * entropy) / 2) / 2
    assert value.item() == pytest.approx(expected)
    torch.testing.assert_close(
        loss.task_weights, torch.tensor([0.5 / squared, 1 / (2 * entropy)]) / 2
    )


def test_a_class_without_training_rows_has_weight_0() -> None:
    weights = balanced_class_weights(torch.tensor([0.0, 1.0, 1.0, NAN]), 3)
    assert weights.tolist() == [1.5, 0.75, 0]
    loss = MultiTaskLoss(WeightedRegressionLoss(mse=1.0), [3], class_weights=[weights])
    outputs = torch.randn(2, 3, requires_grad=True)
    value = loss(outputs, torch.tensor([[2.0], [2.0]]))
    value.backward()
    assert value == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_a_loss_with_parameters_is_trained_and_a_function_is_accepted() -> None:
    """The contract `RegressionLoss`, as a plugin follows it."""

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return self.scale * F.mse_loss(prediction, target)

    outputs, target = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    loss = MultiTaskLoss(Scaled())
    assert loss(outputs, target).item() == pytest.approx(2 * 5)
    assert len(list(loss.parameters())) == 1
    assert MultiTaskLoss(F.l1_loss)(outputs, target).item() == pytest.approx(2)


@pytest.mark.parametrize("regression", [WeightedRegressionLoss(mse=1, l1=1), Likelihood("laplace")])
def test_a_weight_of_two_counts_a_row_twice(regression: torch.nn.Module) -> None:
    loss = MultiTaskLoss(regression, [1, 3])
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(4, 5, generator=generator)[
        :, : 5 - isinstance(regression, WeightedRegressionLoss)
    ]
    target = torch.tensor([[0.3, 0], [-1.0, 2], [2.0, 1], [0.5, 1]])
    equal = loss(outputs, target, torch.ones(4, 1))
    torch.testing.assert_close(equal, loss(outputs, target))
    # weights of 1, 1, 2 and 2, with the mean 1
    weighted = loss(outputs, target, torch.tensor([[1.0], [1], [2], [2]]) / 1.5)
    rows = [0, 1, 2, 2, 3, 3]
    torch.testing.assert_close(weighted, loss(outputs[rows], target[rows]))


def test_the_weights_of_a_likelihood_cannot_be_learned() -> None:
    for distribution in ("gaussian", "laplace"):
        with pytest.raises(ConfigError, match="learned weights of a negative loss have no limit"):
            MultiTaskLoss(Likelihood(distribution), [1, 1], learn_weights=True)


def test_the_loss_of_a_list_is_the_mean_over_its_known_points() -> None:
    loss = MultiTaskLoss(WeightedRegressionLoss(l1=1.0), [3], n_labels=[3])
    outputs = torch.tensor([[1.0, 5.0, 2.0]], requires_grad=True)
    value = loss(outputs, torch.tensor([[0.0, float("nan"), 0.0]]))
    assert value.item() == pytest.approx(1.5)
    value.backward()
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[0.5, 0, 0.5]]


def test_cumulative_losses_compare_integrals_from_the_start_of_the_grid() -> None:
    grid, label = (0.0, 1.0, 3.0), torch.tensor([[0.0, float("nan"), 2.0]])
    loss = MultiTaskLoss(WeightedRegressionLoss(l1=1.0), [3], n_labels=[3], grids=[grid])
    outputs = torch.tensor([[3.0, 7.0, 1.0]], requires_grad=True)
    # Widths 0.5, 1.5 and 1, with the mean 1; the integrals of the errors are 1.5 and 0.5.
    value = loss(outputs, label)
    assert value.item() == pytest.approx((1.5 + 0.5) / 2 / 3**0.5)
    value.backward()
    assert outputs.grad is not None
    assert outputs.grad[0, 1] == 0, "a missing point has no gradient"


def test_lists_shifted_by_one_point_are_nearer_by_their_integrals_than_by_their_points() -> None:
    peaks, grid = torch.eye(10), tuple(map(float, range(10)))
    by_points, by_integrals = (
        MultiTaskLoss(WeightedRegressionLoss(l1=1.0), [10], n_labels=[10], grids=[grids])
        for grids in (None, grid)
    )
    near, far = (peaks[5:6], peaks[4:5]), (peaks[5:6], peaks[:1])
    assert by_points(*near) == by_points(*far)
    assert by_integrals(*near) < by_integrals(*far) / 2
