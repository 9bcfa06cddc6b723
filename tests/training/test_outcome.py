"""How a training ended: curves as they come, and whether the phrase is true."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.training.outcome import outcome
from csgcnn.training.trainer import Trainer

Rows = list[dict[str, float]]


def rows(train: Iterable[float], val: Iterable[float]) -> Rows:
    return [{"train_loss": float(a), "val_loss": float(b)} for a, b in zip(train, val, strict=True)]


def falling(n: int, memory: float, floor: float, noise: float = 0.03, seed: int = 0) -> np.ndarray:
    """An exponential decay from 0.8 to `floor`, with relative noise."""
    return (0.8 * np.exp(-np.arange(n) / memory) + floor) * np.exp(
        noise * np.random.default_rng(seed).standard_normal(n)
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [30, 60, 200])
def test_curves_and_their_phrases(n: int, seed: int) -> None:
    time, settled = np.arange(n), falling(n, n / 20, 0.1, seed=seed)
    train = falling(n, n / 10, 0.02, seed=seed + 100)
    turn = n // 3
    overfitted = settled * np.exp(np.maximum(0, time - turn) / n)
    risen = np.where(time < turn, train, 3.4)
    jump = train.copy()
    jump[turn] = 30.0
    ends = {
        "converged": rows(train, settled),
        "still improving": rows(train, falling(n, n, 0.0, seed=seed)),
        "overfitting": rows(train, overfitted),
        "diverged": rows(risen, np.where(time < turn, settled, 2.0)),
        "unstable": rows(jump, np.where(time < turn, settled, 0.7)),
        "unsettled": rows(train, falling(n, n / 20, 0.1, noise=0.4, seed=seed)),
    }
    found = {word: outcome(history) for word, history in ends.items()}
    assert all(phrase.startswith(word) for word, phrase in found.items()), found
    since = int(found["overfitting"].removeprefix("overfitting since epoch ").partition(":")[0])
    assert abs(since - turn) <= 0.15 * n
    lowest = int(train[:turn].argmin())
    assert found["diverged"].endswith(f"rose from {train[lowest]:.3g} (epoch {lowest + 1}) to 3.4")
    before = int(train[:turn].argmin())
    jumped = f"the training loss jumped from {train[before]:.3g} (epoch {before + 1}) to 30 (epoch {turn + 1})"
    assert found["unstable"] == f"unstable: {jumped}"
    for word in ("converged", "still improving", "overfitting", "unsettled"):
        assert (
            outcome(ends[word], best_score=0.97, baseline_score=1.0)
            == "no better than predicting the mean"
        )
        assert outcome(ends[word], best_score=0.5, baseline_score=1.0) == found[word]


@pytest.mark.parametrize("seed", range(10))
def test_the_logarithmic_loss_of_learned_task_weights(seed: int) -> None:
    """It falls below 0; what is added to it changes nothing."""
    train, val = (
        np.log(falling(60, 6, 0.02, seed=seed)),
        np.log(falling(60, 3, 0.1, seed=seed + 50)),
    )
    assert outcome(rows(train - 1, val)).startswith("converged")
    assert outcome(rows(train - 1, np.log(falling(60, 60, 0.0, seed=seed)))).startswith(
        "still improving"
    )
    rising = val + np.maximum(0, np.arange(60) - 25) / 60
    assert outcome(rows(train, rising)).startswith("overfitting since epoch")


def test_an_early_jump_that_was_overcome_is_no_matter() -> None:
    train, val = falling(60, 6, 0.02), falling(60, 3, 0.1)
    train[8], val[8] = 50.0, 9.0
    assert outcome(rows(train, val)).startswith("converged")


def test_a_rough_training_loss_near_zero_is_no_divergence() -> None:
    train = np.concatenate([falling(40, 6, 0.003), [0.003, 0.02] * 30])
    rising = falling(100, 3, 0.1) * np.exp(np.maximum(0, np.arange(100) - 30) / 100)
    assert outcome(rows(train, rising)).startswith("overfitting since epoch")
    assert outcome(rows(np.full(100, 0.02), rising)).startswith("worse since epoch")


@pytest.mark.parametrize(
    ("train", "val", "phrase"),
    [
        ([0.7], [0.8], "too few epochs to tell"),
        ([0.7, 0.5], [0.8, 0.6], "too few epochs to tell"),
        ([0.7, 0.5, 0.4], [0.8, 0.6, 0.5], "too few epochs to tell"),
        (
            [0.76, 0.59, 0.54, 0.39, 0.33],
            [0.74, 0.57, 0.49, 0.42, 0.416],
            "still improving: more epochs may help",
        ),
        ([0.0] * 10, [0.0] * 10, "converged: the validation loss has settled"),
        ([0.5] * 10, [0.5] * 10, "converged: the validation loss has settled"),
        ([1e-9] * 10, [1e12] * 10, "converged: the validation loss has settled"),
    ],
)
def test_short_and_flat_curves(train: list[float], val: list[float], phrase: str) -> None:
    assert outcome(rows(train, val)) == phrase


def blowing_up(optimizer: Optimizer, n_steps: int) -> LambdaLR:
    """A learning rate that is 300 times too large from the middle on."""
    return LambdaLR(optimizer, lambda step: 300.0 if step > n_steps // 2 else 1.0)


@pytest.mark.parametrize(
    ("changes", "phrases"),
    [
        ({"max_epochs": 100}, ["overfitting since epoch 1"]),  # of 40 crystals
        (
            {"max_epochs": 12, "make_optimizer": partial(AdamW, lr=1e-9)},
            ["no better than predicting the mean"],
        ),
        (
            {"max_epochs": 40, "make_scheduler": blowing_up},
            ["diverged: the training loss rose", "unstable: the tr"],
        ),
        ({"max_epochs": 2}, ["too few epochs to tell", "no better"]),
    ],
    ids=["small data", "no learning rate", "too much of it", "short"],
)
def test_real_trainings(
    changes: dict[str, Any], phrases: list[str], trainer: Callable[..., Trainer]
) -> None:
    made = trainer(**changes)
    made.fit(lambda: None)
    train, val = made.values_of("train"), made.values_of("val")
    baseline = (
        baseline_metrics(train, val, made.targets)["band_gap"]["mae"]
        / train.std(correction=0).item()
    )
    phrase = outcome(made.history, made.best_score, baseline)
    assert phrase.startswith(tuple(phrases)), phrase
