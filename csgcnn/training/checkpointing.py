"""Keeps what a training has reached: metrics.csv and checkpoints, while it goes on and when it is stopped."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from csgcnn import distributed
from csgcnn.runs.directory import RunDirectory
from csgcnn.training.interruption import Interruption
from csgcnn.training.state import training_state
from csgcnn.training.trainer import Trainer

log = logging.getLogger(__name__)

TOGETHER = (
    8  # batches after which several processes agree whether to save or to stop: asking costs time
)
SAVE, PRUNE = 1, 2  # what they agree on: one of these, or the exit code to stop with


class PrunedError(Exception):
    """The training is not worth going on with."""


class Checkpointer:
    """Writes a row per epoch, and last.ckpt and best.ckpt every `checkpoint_every` seconds; stops where it is asked to.

    `description` is what checkpoints say besides the state of the training; `keep_last` older checkpoints stay, as
    step_<steps>.ckpt. `should_prune`, if given, is asked after each epoch, with the best score so far, whether to stop.
    """

    def __init__(
        self,
        run: RunDirectory,
        trainer: Trainer,
        description: Mapping[str, Any],
        interruption: Interruption,
        checkpoint_every: float = 10.0,
        keep_last: int = 0,
        should_prune: Callable[[int, float], bool] | None = None,
    ) -> None:
        self.run = run
        self.trainer = trainer
        self.description = dict(description)
        self.interruption = interruption
        self.checkpoint_every = checkpoint_every
        self.keep_last = keep_last
        self.should_prune = should_prune
        self._n_rows = 0
        self._saved: tuple[int, int] | None = None  # epoch and batch
        self._saved_best = 0
        self._saved_at = time.monotonic()

    def on_step(self) -> None:
        """Do what is due after a batch or an epoch.

        Raises:
            PrunedError: the training is hopeless.
            SystemExit: it is to stop.
        """
        self._write_rows()
        due = SAVE if time.monotonic() - self._saved_at > self.checkpoint_every else 0
        due = max(due, PRUNE if self._is_to_prune() else 0, self.interruption.code)
        if distributed.world_size() > 1:
            due = distributed.max_over_ranks(due) if self.trainer.n_done % TOGETHER == 0 else 0
        if due:
            self.save()
        if due == PRUNE:
            raise PrunedError
        if due > PRUNE:
            told = "stopped by %s in epoch %d, all is kept; csgcnn train resume=%s continues"
            reason = self.interruption.reason or "the order of another process"
            log.warning(told, reason, self.trainer.epoch + 1, self.run.folder)
            raise SystemExit(due)

    def _is_to_prune(self) -> bool:
        trainer = self.trainer
        if self.should_prune is None or trainer.n_done:
            return False
        return self.should_prune(trainer.epoch, trainer.best_score) and not trainer.is_over

    def save(self) -> None:
        """Write last.ckpt, and best.ckpt if there is a better one, unless they are up to date."""
        trainer, position = self.trainer, (self.trainer.epoch, self.trainer.n_done)
        self._write_rows()
        if self._saved != position:
            content = {
                **self.description,
                "state_dict": trainer.evaluated.state_dict(),
                "training": training_state(trainer),
            }
            for name in ("last", *([f"step_{trainer.n_steps:09d}"] if self.keep_last else [])):
                self.run.save(content, name)
            self._drop_old()
        if self._saved_best != trainer.best_epoch:
            self.save_best(trainer.best)
        self._saved, self._saved_best, self._saved_at = (
            position,
            trainer.best_epoch,
            time.monotonic(),
        )

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        """Write best.ckpt with these weights."""
        metrics = {"best_epoch": self.trainer.best_epoch, "val_score": self.trainer.best_score}
        self.run.save({**self.description, "metrics": metrics, "state_dict": dict(weights)}, "best")

    def _write_rows(self) -> None:
        history = self.trainer.history
        if history and not self._n_rows:  # of a run that is continued, whatever the csv says
            self.run.write_metrics(history)
        elif len(history) > self._n_rows:
            self.run.append_metrics(history[self._n_rows :])
        self._n_rows = len(history)

    def _drop_old(self) -> None:
        for path in sorted(self.run.checkpoints.glob("step_*.ckpt"))[: -self.keep_last or None]:
            path.unlink(missing_ok=True)
