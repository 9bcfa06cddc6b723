from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csgcnn.data.augment import DistanceNoise
from csgcnn.data.splits import Split
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution, IsomorphismConvolution
from csgcnn.training.divergence import DivergenceError
from csgcnn.training.losses import MultiTaskLoss, WeightedRegressionLoss
from csgcnn.training.schedulers import cosine, one_cycle, plateau
from csgcnn.training.state import load_training_state, training_state
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]


def trained(trainer: Trainer) -> list[dict[str, float]]:
    trainer.fit(lambda: None)
    return trainer.history


def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {name: v for name, v in row.items() if name not in ("seconds", "graphs_per_second")}
        for row in rows
    ]


def test_the_seed_decides_everything(trainer: Make) -> None:
    first, same, other = (
        trained(trainer(seed, ema=0.9, make_scheduler=one_cycle)) for seed in (1, 1, 2)
    )
    assert timeless(first) == timeless(same)
    assert timeless(first) != timeless(other)
    assert [row["epoch"] for row in first] == [1, 2, 3]
    assert list(first[0])[:5] == ["epoch", "lr", "train_loss", "val_loss", "val_mae_band_gap"]


def test_it_learns_and_knows_its_best_epoch(trainer: Make) -> None:
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


def test_patience_stops(trainer: Make) -> None:
    still = partial(torch.optim.SGD, lr=0.0)
    made = trainer(max_epochs=50, patience=4, make_optimizer=still, ema=None)
    for norm in (module for module in made.model.modules() if hasattr(module, "momentum")):
        norm.momentum = 0.0  # so that validation repeats itself exactly
    assert len(trained(made)) == 5
    assert made.best_epoch == 1


class Infinite(nn.Module):
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return prediction.sum() * torch.inf


@pytest.mark.parametrize(
    "changes",
    [
        {"make_optimizer": partial(torch.optim.SGD, lr=1e6), "max_epochs": 50, "grad_clip": None},
        {"loss": Infinite()},
    ],
    ids=["lr=1e6", "infinite loss"],
)
def test_divergence_is_told(changes: dict[str, Any], trainer: Make) -> None:
    with pytest.raises(DivergenceError, match=r"diverged in epoch \d+.*optimizer\.lr") as caught:
        trained(trainer(**changes))
    assert 0 < len(caught.value.culprits) <= 32


@pytest.mark.parametrize(
    "convolution", [GatedConvolution, AttentionConvolution, IsomorphismConvolution]
)
def test_bfloat16_stays_close_to_float32(convolution: type[nn.Module], trainer: Make) -> None:
    exact, rough = (
        trained(trainer(convolution=convolution, precision=precision))[-1]
        for precision in ("float32", "bfloat16")
    )
    assert rough["train_loss"] != exact["train_loss"], "else autocast does nothing"
    assert rough["train_loss"] == pytest.approx(exact["train_loss"], rel=0.1)


def test_batches_of_one_and_a_last_batch_of_one(trainer: Make, split: Split) -> None:
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


def test_moving_average_of_the_weights(trainer: Make) -> None:
    made, decay = trainer(ema=0.5, max_epochs=2, batch_size=20), 0.5
    steps: list[Tensor] = []
    made.optimizer.register_step_post_hook(
        lambda *_: steps.append(made.model.head.out.weight.detach().clone())
    )
    trained(made)
    average = steps[0]
    for n, weight in enumerate(steps[1:], 1):
        kept = min(decay, (1 + n) / (10 + n))
        average = kept * average + (1 - kept) * weight
    assert len(steps) == 4
    assert made.evaluated is not made.model
    torch.testing.assert_close(made.evaluated.head.out.weight, average)
    assert not torch.equal(made.evaluated.head.out.weight, made.model.head.out.weight)
    for name in ("mean", "std"):
        torch.testing.assert_close(
            getattr(made.evaluated.scaler, name), getattr(made.model.scaler, name)
        )


def test_missing_targets_of_one_property(trainer: Make, targets: Tensor) -> None:
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


class StopHereError(Exception):
    """Ends a training where it is raised."""


def stopped(trainer: Trainer, call: int) -> Trainer:
    """Train until `watch` is called for the so-manieth time."""
    calls = iter(range(1, 1000))

    def watch() -> None:
        if next(calls) == call:
            raise StopHereError

    with pytest.raises(StopHereError):
        trainer.fit(watch)
    return trainer


SETTINGS: dict[str, dict[str, Any]] = {
    "average, one cycle": {"ema": 0.9, "make_scheduler": one_cycle, "batch_size": 15},
    "patience, plateau": {
        "patience": 2,
        "make_scheduler": partial(plateau, patience=0),
        "batch_size": 20,
    },
    "momentum, cosine": {
        "make_optimizer": partial(torch.optim.SGD, lr=0.01, momentum=0.9),
        "make_scheduler": cosine,
    },
    "noise, learned weights": {
        "augment": DistanceNoise(0.1, decay=0.5),
        "loss": MultiTaskLoss(WeightedRegressionLoss(l1=1.0), [1], learn_weights=True),
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_cut_off_and_continued_is_the_same_to_the_bit(
    settings: dict[str, Any], trainer: Make, tmp_path: Path
) -> None:
    def make(seed: int) -> Trainer:
        return trainer(seed, **deepcopy(settings), max_epochs=3)

    whole = make(1)
    n_calls = 0

    def count() -> None:
        nonlocal n_calls
        n_calls += 1

    whole.fit(count)
    assert n_calls >= 3 * (2 + 1), "batches and epochs"
    for call in range(1, n_calls + 1):
        torch.save(training_state(stopped(make(1), call)), tmp_path / "state.pt")
        continued = make(2)  # other weights, other random numbers
        torch.rand(100)
        load_training_state(continued, torch.load(tmp_path / "state.pt", weights_only=True))
        continued.fit(lambda: None)
        assert timeless(continued.history) == timeless(whole.history), call
        for one, other in (
            (continued.best, whole.best),
            (training_state(continued)["model"], training_state(whole)["model"]),
        ):
            assert all(torch.equal(one[name], other[name]) for name in other), call
        assert (continued.best_epoch, continued.n_steps) == (whole.best_epoch, whole.n_steps)


def test_more_epochs_than_were_planned(trainer: Make) -> None:
    made = trainer(make_scheduler=one_cycle, max_epochs=2)
    trained(made)
    longer = trainer(make_scheduler=one_cycle, max_epochs=6)
    load_training_state(longer, training_state(made))
    assert not longer.is_over
    assert [row["epoch"] for row in trained(longer)] == [1, 2, 3, 4, 5, 6]
    assert longer.history[-1]["lr"] < longer.history[3]["lr"]


class Poison(nn.Module):
    """The mean square error, NaN for every batch that holds the row with the largest target."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        bad = torch.isclose(target, target.new_tensor(self.largest)).any()
        return (prediction - target).square().mean() * torch.where(bad, torch.nan, 1.0)


def poisoned(trainer: Make, targets: Tensor, split: Split, **settings: Any) -> tuple[Trainer, str]:
    """A trainer that stumbles over one training row, and the row's id."""
    train = targets[split["train"]].squeeze(1)
    largest = ((train.max() - train.mean()) / train.std(correction=0)).item()
    made = trainer(loss=Poison(largest), batch_size=8, **settings)
    return made, made.store.ids[int(split["train"][train.argmax()])]


def test_a_batch_without_a_finite_loss_is_named(
    trainer: Make, targets: Tensor, split: Split
) -> None:
    made, culprit = poisoned(trainer, targets, split)
    with pytest.raises(DivergenceError, match=r"batch \d is nan") as caught:
        trained(made)
    assert culprit in caught.value.culprits
    with pytest.raises(DivergenceError):
        training_state(made)  # what is on the disk already is better


def test_it_can_be_skipped_a_few_times(trainer: Make, targets: Tensor, split: Split) -> None:
    made, culprit = poisoned(trainer, targets, split, max_skipped=3, max_epochs=3, ema=0.9)
    rows = trained(made)
    assert [batch["epoch"] for batch in made.guard.skipped] == [1, 2, 3]
    assert all(culprit in batch["ids"] for batch in made.guard.skipped)
    assert torch.tensor([list(row.values()) for row in rows]).isfinite().all()
    assert made.n_steps == 3 * (5 - 1)
    less, _ = poisoned(trainer, targets, split, max_skipped=2, max_epochs=3)
    with pytest.raises(DivergenceError, match="3 batches had no finite loss") as caught:
        trained(less)
    assert culprit in caught.value.culprits


def test_skipping_costs_nothing_where_nothing_is_skipped(trainer: Make) -> None:
    assert timeless(trained(trainer(max_skipped=5))) == timeless(trained(trainer()))
