from collections.abc import Callable
from typing import Any

import pytest
import torch

from csgcnn.commands.run_summary import recipe_epochs, summary_line
from csgcnn.training.schedulers import constant, one_cycle
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]
FINISHED = {"outcome": "finished", "seconds": 125.0}


def line(trainer: Trainer, facts: dict[str, Any] = FINISHED, recipe: str = "fast") -> str:
    trainer.fit(lambda: None)
    trainer.best_epoch = 2
    return summary_line(trainer, facts, recipe)


def test_fewer_epochs_than_those_of_the_recipe_are_named(trainer: Make) -> None:
    start = "trained 3 epochs in 2 min 5 s; best epoch 2"
    ended = f"{start}; the schedule has ended; the recipe has 200 epochs"
    assert line(trainer(make_scheduler=one_cycle)) == ended
    assert line(trainer(make_scheduler=constant)) == f"{start}; the recipe has 200 epochs"
    assert line(trainer(make_scheduler=constant), recipe="mine") == start


def test_an_early_end_is_named(trainer: Make) -> None:
    made = trainer(max_epochs=9, patience=1, make_optimizer=no_learning)
    text = line(made)
    assert text.endswith("stopped early, 1 epoch brought no improvement (trainer.patience)")
    pruned = line(trainer(), {"outcome": "pruned after epoch 3", "seconds": 1})
    assert pruned.endswith("; pruned after epoch 3")


def no_learning(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.0)


@pytest.mark.parametrize(
    ("recipe", "epochs"), [("fast", 200), ("accurate", 300), ("mine", None), (None, None)]
)
def test_epochs_of_the_recipes(recipe: str | None, epochs: int | None) -> None:
    assert recipe_epochs(recipe) == epochs
