import io
import logging
import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from csgcnn.training.progress import TrainingProgress, readable_time
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]
N_BATCHES = 3  # of 40 rows


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a step of the training moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(
    trainer: Trainer, caplog: pytest.LogCaptureFixture, seconds: float, label: str = ""
) -> list[tuple[float, str]]:
    """Train with epochs of `seconds`, and return times and lines of the log."""
    clock, found = Clock(), list[tuple[float, str]]()
    progress = TrainingProgress(trainer, label, io.StringIO(), clock)

    def on_step() -> None:
        clock.now += seconds / (N_BATCHES + 1)
        caplog.clear()
        progress.on_step()
        found.extend((clock.now, record.getMessage()) for record in caplog.records)

    with caplog.at_level(logging.INFO):
        trainer.fit(on_step)
    return found


def test_a_line_says_how_far_the_training_is(
    trainer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    found = lines_of(trainer(progress=True, max_epochs=4), caplog, 6.0, "fold 1 of 5")
    number = r"-?[\d.e-]+"
    pattern = (
        rf"fold 1 of 5, epoch 1 of 4, train loss {number}, val loss {number}, "
        rf"val MAE {number} eV \(best {number} eV\), best epoch 1, learning rate 0.01, "
        r"6 s per epoch, 18 s left"
    )
    assert re.fullmatch(pattern, found[0][1]), found[0][1]


def test_the_time_between_lines_grows_to_a_minute(
    trainer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The rate rises all the time, so that no epoch is logged for being the best."""
    made = trainer(progress=True, max_epochs=60)
    made.best_score = -1.0  # no epoch is a new best
    times = [time for time, _ in lines_of(made, caplog, 4.0)]
    assert [b - a for a, b in pairwise([0.0, *times])] == [5, 10, 20, 40, 60, 60]


def test_a_new_best_is_told_at_once_but_not_every_second(
    trainer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(progress=True, max_epochs=40)
    found = lines_of(made, caplog, 1.0)
    gaps = [b - a for (a, _), (b, _) in pairwise(found)]
    assert min(gaps) >= 5
    best = [row["epoch"] for row in made.history if row["epoch"] > 10]
    assert best
    told = [int(re.search(r"best epoch (\d+)", line)[1]) for _, line in found]  # type: ignore[index]
    assert told == sorted(told)
    assert len(found) > 4, "more than at 5, 15 and 35 s"


def test_long_epochs_are_reported_by_batch(trainer: Make, caplog: pytest.LogCaptureFixture) -> None:
    found = lines_of(trainer(progress=True, max_epochs=2), caplog, 4000.0)
    assert found[0][1] == "epoch 1 of 2, batch 1 of 3, learning rate 0.01, 3e+03 s per epoch, " + (
        "1 h 23 min left"
    )


def test_silence_is_possible(trainer: Make, caplog: pytest.LogCaptureFixture) -> None:
    assert not lines_of(trainer(progress=False), caplog, 100.0)


def test_a_terminal_has_a_bar_with_the_error(
    trainer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    terminal, made = Terminal(), trainer(progress=True)
    with caplog.at_level(logging.INFO), TrainingProgress(made, "fold 1 of 5", terminal) as progress:
        made.fit(progress.on_step)
    assert "fold 1 of 5" in terminal.getvalue()
    assert "val MAE" in terminal.getvalue()
    assert " eV" in terminal.getvalue()
    assert not caplog.records


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.2, "0 s"),
        (59.7, "1 min 0 s"),
        (230, "3 min 50 s"),
        (3599.8, "1 h 0 min"),
        (90000, "25 h 0 min"),
    ],
)
def test_times_are_readable(seconds: float, expected: str) -> None:
    assert readable_time(seconds) == expected
