"""Losses that are not finite: named, or skipped."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import timeless, trained

from csgcnn.data.splits import Split
from csgcnn.training.divergence import DivergenceError
from csgcnn.training.state import training_state
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]


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
def test_divergence_is_reported_with_advice_and_ids(changes: dict[str, Any], trainer: Make) -> None:
    with pytest.raises(DivergenceError, match=r"diverged in epoch \d+.*optimizer\.lr") as caught:
        trained(trainer(**changes))
    assert 0 < len(caught.value.culprits) <= 32


class Poison(nn.Module):
    """The mean squared error; NaN for a batch with the row of the largest target."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        bad = torch.isclose(target, target.new_tensor(self.largest)).any()
        return (prediction - target).square().mean() * torch.where(bad, torch.nan, 1.0)


def poisoned(trainer: Make, targets: Tensor, split: Split, **settings: Any) -> tuple[Trainer, str]:
    """A trainer with one training row without a finite loss, and the id of that row."""
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
        training_state(made)  # never saved


def test_up_to_max_skipped_batches_are_skipped(
    trainer: Make, targets: Tensor, split: Split
) -> None:
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


def test_max_skipped_alone_changes_nothing(trainer: Make) -> None:
    assert timeless(trained(trainer(max_skipped=5))) == timeless(trained(trainer()))
