from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from training_helpers import timeless, trained

from csgcnn.data.splits import Split
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution, IsomorphismConvolution
from csgcnn.training.losses import MultiTaskLoss, WeightedRegressionLoss
from csgcnn.training.schedulers import one_cycle, plateau
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]


def test_the_seed_determines_the_training(trainer: Make) -> None:
    first, same, other = (
        trained(trainer(seed, ema=0.9, make_scheduler=one_cycle)) for seed in (1, 1, 2)
    )
    assert timeless(first) == timeless(same)
    assert timeless(first) != timeless(other)
    assert [row["epoch"] for row in first] == [1, 2, 3]
    assert list(first[0])[:5] == ["epoch", "lr", "train_loss", "val_loss", "val_mae_band_gap"]


def test_the_loss_falls_and_the_best_epoch_is_kept(trainer: Make) -> None:
    made, bests = trainer(max_epochs=25), dict[int, int]()
    made.fit(lambda: bests.update({made.epoch: made.best_epoch}))
    rows = made.history
    maes = [row["val_mae_band_gap"] for row in rows]
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]
    assert made.best_epoch == 1 + maes.index(min(maes))
    assert made.best_score == pytest.approx(min(maes) / made.model.scaler.std.item(), rel=1e-5)
    lowest = [mae == min(maes[: i + 1]) for i, mae in enumerate(maes)]
    assert [bests[epoch] == epoch for epoch in range(1, 26)] == lowest
    assert not all(lowest), "else the test does not tell best from last"


def test_patience_stops_after_epochs_without_improvement(trainer: Make) -> None:
    still = partial(torch.optim.SGD, lr=0.0)
    made = trainer(max_epochs=50, patience=4, make_optimizer=still, ema=None)
    for norm in (module for module in made.model.modules() if hasattr(module, "momentum")):
        norm.momentum = 0.0  # so that validation repeats itself exactly
    assert len(trained(made)) == 5
    assert made.best_epoch == 1


@pytest.mark.parametrize(
    "convolution", [GatedConvolution, AttentionConvolution, IsomorphismConvolution]
)
def test_bfloat16_is_as_exact_as_the_format(convolution: type[nn.Module], trainer: Make) -> None:
    """The loss within the unit roundoff of 8 significant bits, gradients within a few of them."""
    roundoff = 2.0**-8
    found = {}
    for precision in ("float32", "bfloat16"):
        made = trainer(convolution=convolution, precision=precision, max_epochs=1)
        dtypes: list[torch.dtype] = []
        hook = made.model.head.out.register_forward_hook(
            lambda *args, seen=dtypes: seen.append(args[2].dtype)
        )
        rows = made.split["train"][:16]
        loss = made.compute_gradients(rows, made.store.batch(rows)).item()
        hook.remove()
        gradient = torch.cat([weight.grad.flatten() for weight in made.trained])
        found[precision] = dtypes, loss, gradient, trained(made)[0]["train_loss"]
    (dtypes, loss, gradient, mean), (low_dtypes, low_loss, low_gradient, low_mean) = found.values()
    assert (dtypes, low_dtypes) == ([torch.float32], [torch.bfloat16])
    assert low_loss == pytest.approx(loss, rel=roundoff)
    assert (low_gradient - gradient).norm() < 4 * roundoff * gradient.norm()
    assert low_mean == pytest.approx(mean, rel=roundoff), "after an epoch"


def test_batches_of_one_crystal(trainer: Make, split: Split) -> None:
    few = split | {"train": split["train"][:5]}
    for batch_size in (1, 4):
        rows = trained(trainer(split=few, batch_size=batch_size, max_epochs=2))
        assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)


def test_only_training_rows_fit_the_scaler(trainer: Make, targets: Tensor, split: Split) -> None:
    planted = targets.clone()
    planted[torch.cat([split["val"], split["test"]])] = 1e6
    scaler = trainer(values=planted).model.scaler
    expected = targets[split["train"]]
    assert scaler.mean.item() == pytest.approx(expected.mean().item())
    assert scaler.std.item() == pytest.approx(expected.std(correction=0).item())


def test_validation_and_test_rows_never_train(trainer: Make, targets: Tensor, split: Split) -> None:
    planted = targets.clone()
    planted[torch.cat([split["val"], split["test"]])] = 1e6
    weights = []
    for values in (targets, planted):
        made = trainer(values=values)
        trained(made)
        weights.append(made.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_rows_with_missing_labels_are_trained_on_without_them(
    trainer: Make, targets: Tensor
) -> None:
    holes = targets.clone()
    holes[::3] = torch.nan
    rows = trained(trainer(values=holes))
    assert torch.tensor([list(row.values()) for row in rows]).isfinite().all()


class Flat(nn.Module):
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return prediction.sum() * 0 + 1


def test_plateau_follows_the_validation_loss(trainer: Make) -> None:
    rows = trained(
        trainer(loss=Flat(), make_scheduler=partial(plateau, factor=0.1, patience=1), max_epochs=6)
    )
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.01, 0.01, 0.001, 0.001, 0.0001])


def test_the_clipped_gradient_includes_the_weights_that_the_loss_learns(trainer: Make) -> None:
    limit = 1e-3
    made = trainer(
        loss=MultiTaskLoss(WeightedRegressionLoss(mse=1.0), learn_weights=True), grad_clip=limit
    )
    rows = torch.arange(16)
    made.compute_gradients(rows, made.store.batch(rows))
    gradients = [weight.grad for weight in (*made.model.parameters(), *made.loss.parameters())]
    squares = sum(gradient.square().sum() for gradient in gradients if gradient is not None)
    assert torch.as_tensor(squares).sqrt().item() == pytest.approx(limit, rel=1e-3)


def test_a_batch_without_a_finite_gradient_of_the_loss_is_skipped(trainer: Make) -> None:
    loss = MultiTaskLoss(WeightedRegressionLoss(mse=1.0), learn_weights=True)
    made = trainer(loss=loss, grad_clip=None, max_skipped=1)
    weight = next(iter(made.loss.parameters()))
    weight.register_hook(lambda gradient: gradient * torch.inf)
    rows = torch.arange(16)
    before = weight.detach().clone()
    assert made.train_step(rows, made.store.batch(rows)).isnan()
    assert torch.equal(weight, before)
