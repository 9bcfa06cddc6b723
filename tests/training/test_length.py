"""A training may end within an epoch, with the learning rate of a longer one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from training_helpers import timeless, trained

from csgcnn.data.splits import Split
from csgcnn.training.length import Length
from csgcnn.training.schedulers import one_cycle
from csgcnn.training.state import load_training_state, training_state
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]


def refit(trainer: Make, split: Split, n_steps: int, n_scheduled: int) -> Trainer:
    """Return a training on 50 rows in batches of 16, 4 in each epoch."""
    rows = torch.cat([split["train"], split["val"]])
    parts = {**split, "train": rows, "val": rows[:0]}
    made = trainer(make_scheduler=one_cycle, split=parts, ema=0.9, patience=1)
    made.set_length(Length(made.length.n_batches, n_scheduled, n_steps))
    return made


def rates(trainer: Trainer) -> list[float]:
    """Train to the end and return the learning rate of each step."""
    found = list[float]()
    step = trainer.train_step

    def train_step(*args: Tensor) -> Tensor:
        found.append(trainer.optimizer.param_groups[0]["lr"])
        return step(*args)  # type: ignore[arg-type]

    trainer.train_step = train_step  # type: ignore[assignment]
    trained(trainer)
    return found


def test_the_rates_are_those_of_the_first_steps_of_the_other_training(
    trainer: Make, split: Split
) -> None:
    first = rates(trainer(make_scheduler=one_cycle, max_epochs=4))
    assert len(first) == 12
    again = refit(trainer, split, n_steps=6, n_scheduled=12)
    assert rates(again) == first[:6]
    assert (again.n_steps, again.epoch, again.length.n_epochs) == (6, 2, 2)
    assert again.ended_by == "trainer.max_epochs"


def test_the_last_weights_are_kept_and_every_row_is_seen_in_a_whole_epoch(
    trainer: Make, split: Split
) -> None:
    made, seen = refit(trainer, split, n_steps=6, n_scheduled=12), list[Tensor]()

    def on_step() -> None:
        if made.n_done:
            seen.append(made.batch_rows[made.n_done - 1])

    made.fit(on_step)
    assert torch.cat(seen[:4]).sort().values.tolist() == list(range(50))
    assert [len(rows) for rows in seen] == [16, 16, 16, 2, 16, 16]
    assert made.best_epoch == 2
    weights = made.evaluated.state_dict()
    assert all(torch.equal(made.best[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("n_steps", [5, 6])
def test_an_interruption_in_the_last_epoch_changes_nothing(
    trainer: Make, split: Split, n_steps: int
) -> None:
    whole = refit(trainer, split, n_steps=6, n_scheduled=12)
    trained(whole)
    stopped = refit(trainer, split, n_steps=6, n_scheduled=12)

    def on_step() -> None:
        if stopped.n_steps == n_steps:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        stopped.fit(on_step)
    state = training_state(stopped)
    continued = refit(trainer, split, n_steps=6, n_scheduled=12)
    load_training_state(continued, state)
    assert timeless(trained(continued)) == timeless(whole.history)
    assert all(torch.equal(continued.best[name], weight) for name, weight in whole.best.items())


def test_the_augmentation_ends_where_that_of_the_other_training_was() -> None:
    length = Length(n_batches=4, n_scheduled=12, n_steps=6)
    assert [length.progress(epoch) for epoch in range(length.n_epochs)] == [0.0, 1 / 3]
    assert Length.of_epochs(0, 4).n_epochs == 0
