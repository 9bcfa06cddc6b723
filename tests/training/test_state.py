"""A resumed training equals an uninterrupted one, to the bit."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import timeless, trained

from csgcnn.data.augment import DistanceNoise
from csgcnn.training.losses import MultiTaskLoss, WeightedRegressionLoss
from csgcnn.training.schedulers import cosine, one_cycle, plateau
from csgcnn.training.state import load_training_state, training_state
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]


class StopHereError(Exception):
    """Ends a training where it is raised."""


def stopped(trainer: Trainer, call: int) -> Trainer:
    """Train until the given call of `on_step`."""
    calls = iter(range(1, 1000))

    def on_step() -> None:
        if next(calls) == call:
            raise StopHereError

    with pytest.raises(StopHereError):
        trainer.fit(on_step)
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
def test_a_training_resumed_after_any_step_is_identical(
    settings: dict[str, Any], trainer: Make, tmp_path: Path
) -> None:
    def make(seed: int) -> Trainer:
        return trainer(seed, **deepcopy(settings), max_epochs=2)

    whole = make(1)
    n_calls = 0

    def count() -> None:
        nonlocal n_calls
        n_calls += 1

    whole.fit(count)
    assert n_calls >= 2 * (2 + 1), "batches and epochs"
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


def test_a_resumed_training_may_have_more_epochs(trainer: Make) -> None:
    made = trainer(make_scheduler=one_cycle, max_epochs=2)
    trained(made)
    longer = trainer(make_scheduler=one_cycle, max_epochs=6)
    load_training_state(longer, training_state(made))
    assert not longer.is_over
    assert [row["epoch"] for row in trained(longer)] == [1, 2, 3, 4, 5, 6]
    assert longer.history[-1]["lr"] < longer.history[3]["lr"]
