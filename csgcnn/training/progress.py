"""Progress of a training: a bar on a terminal, and elsewhere a line from time to time."""

import logging
import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from csgcnn.evaluation.metrics import TASKS, task_of
from csgcnn.training.trainer import Trainer

log = logging.getLogger(__name__)

FIRST, LONGEST = 5.0, 60.0  # seconds until the first line, and at most between two lines
SHOWN_TARGETS = 3


class TrainingProgress:
    """Report a training to the user while it runs.

    On a terminal it is a bar. Elsewhere, as in the log of a cluster job or in a notebook, lines are
    logged: the first after `FIRST` seconds, each of the next after twice the time, at most
    `LONGEST` seconds later. A new best epoch is logged at once if the learning rate no longer
    rises, but not within `FIRST` seconds of the line before.

    Args:
        trainer: The training.
        label: Which part of the command it is, such as "fold 1 of 5".
        terminal: Stream of the bar.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        trainer: Trainer,
        label: str = "",
        terminal: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trainer, self.label, self.clock = trainer, label, clock
        self.is_shown = trainer.settings.progress
        self.has_validation = len(trainer.split["val"]) > 0
        terminal = terminal or sys.stderr
        self.bar: tqdm | None = None
        if self.is_shown and terminal.isatty():
            total, done = trainer.length.n_epochs, trainer.epoch
            self.bar = tqdm(total=total, initial=done, unit="epoch", desc=label, file=terminal)
        self.start = self.last = clock()
        self.done_before, self.epoch = self._done(), trainer.epoch
        self.interval = FIRST
        self.has_news = False

    def on_step(self) -> None:
        """Report what is due after a step or an epoch."""
        trainer = self.trainer
        is_new = trainer.epoch > self.epoch
        if is_new:
            self.epoch = trainer.epoch
            is_best = trainer.best_epoch == trainer.epoch and self.has_validation
            self.has_news |= is_best and not self._rate_rises()
        if self.bar is not None:
            if is_new:
                self.bar.set_postfix_str(self._measured(), refresh=False)
                self.bar.update()
        elif self.is_shown and not trainer.is_over:
            passed = self.clock() - self.last
            if passed >= self.interval or (is_new and self.has_news and passed >= FIRST):
                self._log_line(grows=passed >= self.interval)

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def _log_line(self, grows: bool) -> None:
        self.last, self.has_news = self.clock(), False
        if grows:
            self.interval = min(2 * self.interval, LONGEST)
        parts = [self.label, self._position(), self._measured(), self._rates()]
        log.info("%s", ", ".join(filter(None, parts)))

    def _position(self) -> str:
        trainer, total = self.trainer, self.trainer.length.n_epochs
        if trainer.n_done:
            n_batches = len(trainer.batch_rows)
            batch = f", batch {trainer.n_done} of {n_batches}"
            return f"epoch {trainer.epoch + 1} of {total}{batch}"
        return f"epoch {trainer.epoch} of {total}"

    def _measured(self) -> str:
        """Return losses and errors of the last epoch, and the best ones."""
        trainer = self.trainer
        if not trainer.history:
            return ""
        row = trainer.history[-1]
        best = trainer.history[trainer.best_epoch - 1] if trainer.best_epoch else {}
        losses = [(f"{part} loss", row.get(f"{part}_loss", math.nan)) for part in ("train", "val")]
        parts = [f"{name} {value:.4g}" for name, value in losses if not math.isnan(value)]
        shown = trainer.targets[:SHOWN_TARGETS]
        for target in shown:
            metric = TASKS[task_of(target)].ranking
            column = f"val_{metric.name}_{target.name}"
            unit = f" {target.trained_unit}" if target.trained_unit and metric.has_unit else ""
            value, of_best = row.get(column, math.nan), best.get(column, math.nan)
            if not math.isnan(value):
                is_only = len(trainer.targets) == 1 and target.transform == "none"
                name = "" if is_only else f" of {target.trained_title}"
                known = "" if math.isnan(of_best) else f" (best {of_best:.4g}{unit})"
                parts.append(f"val {metric.label}{name} {value:.4g}{unit}{known}")
        if trainer.best_epoch and self.has_validation:
            parts.append(f"best epoch {trainer.best_epoch}")
        return ", ".join(parts)

    def _rates(self) -> str:
        trainer, parts = self.trainer, list[str]()
        if not math.isnan(trainer.lr):
            parts.append(f"learning rate {trainer.lr:.2g}")
        done = self._done()
        if (progress := done - self.done_before) > 0:
            per_epoch = (self.last - self.start) / progress
            left = per_epoch * (trainer.length.n_epochs - done)
            parts += [f"{per_epoch:.2g} s per epoch", f"{readable_time(left)} left"]
        return ", ".join(parts)

    def _done(self) -> float:
        """Return the number of completed epochs, with the fraction of the current one."""
        trainer = self.trainer
        n_batches = len(trainer.batch_rows)
        return trainer.epoch + (trainer.n_done / n_batches if n_batches else 0)

    def _rate_rises(self) -> bool:
        rates = [row["lr"] for row in self.trainer.history[-2:]]
        return len(rates) == 2 and rates[1] > rates[0]


def readable_time(seconds: float) -> str:
    """Return a time in at most two units, such as 3 min 50 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
