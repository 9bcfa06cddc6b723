"""Rows of metrics.csv and checkpoints, written while a training runs and when it is stopped."""

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

AGREE_EVERY = 8  # steps between two decisions of several ranks, which wait for each other
SAVE, PRUNE = 1, 2  # decisions; a larger number is the exit code to stop with


class PrunedError(Exception):
    """A trial of a search is stopped early."""


class Checkpointer:
    """Write a row per epoch, and last.ckpt and best.ckpt every `trainer.checkpoint_every` seconds.

    With `trainer.keep_last`, older checkpoints are kept as step_<steps>.ckpt.

    Args:
        run: Run directory.
        trainer: The training.
        description: Entries of a checkpoint other than weights and state.
        interruption: Signals and the time limit.
        should_prune: Decides after each epoch, from its number and the best score so far, whether
            to stop.
        first: State of the first training, if this one is its refit: rows are written to refit.csv,
            last.ckpt holds both states, and best.ckpt stays that of the first training.
    """

    def __init__(
        self,
        run: RunDirectory,
        trainer: Trainer,
        description: Mapping[str, Any],
        interruption: Interruption,
        should_prune: Callable[[int, float], bool] | None = None,
        first: Mapping[str, Any] | None = None,
    ) -> None:
        self.run = run
        self.trainer = trainer
        self.description = dict(description)
        self.interruption = interruption
        self.should_prune = should_prune
        self.first = first
        self._n_rows = 0
        self._saved: tuple[int, int] | None = None  # epoch and batch
        self._saved_best = 0
        self._saved_at = time.monotonic()

    def on_step(self) -> None:
        """Write what is due after a step or an epoch, and stop the training if it must.

        Raises:
            PrunedError: The trial is pruned.
            SystemExit: A signal was received, or the time limit is reached.
        """
        self._write_rows()
        decision = self._decide()
        if decision:
            self.save()
        if decision == PRUNE:
            raise PrunedError
        if decision > PRUNE:
            log.warning(
                "stopped by %s in epoch %d%s; resume with: csgcnn train resume=%s",
                self.interruption.reason or "another process",
                self.trainer.epoch + 1,
                " of the refit" if self.first else "",
                self.run.folder,
            )
            raise SystemExit(decision)

    def _decide(self) -> int:
        decision = self.interruption.exit_code
        if self._is_pruned():
            decision = max(decision, PRUNE)
        if time.monotonic() - self._saved_at > self.trainer.settings.checkpoint_every:
            decision = max(decision, SAVE)
        if distributed.world_size() == 1:
            return decision
        return distributed.max_over_ranks(decision) if self.trainer.n_done % AGREE_EVERY == 0 else 0

    def _is_pruned(self) -> bool:
        trainer = self.trainer
        if self.should_prune is None or trainer.n_done:
            return False
        return self.should_prune(trainer.epoch, trainer.best_score) and not trainer.is_over

    def save(self) -> None:
        """Write last.ckpt and, if there is a better epoch, best.ckpt, unless they are current."""
        trainer, position = self.trainer, (self.trainer.epoch, self.trainer.n_done)
        self._write_rows()
        if self._saved != position:
            content = {
                **self.description,
                "state_dict": trainer.evaluated.state_dict(),
                **self._states(),
            }
            self.run.save(content, "last")
            if trainer.settings.keep_last:
                n_steps = trainer.n_steps + (self.first["n_steps"] if self.first else 0)
                self.run.save(content, f"step_{n_steps:09d}")
            older = sorted(self.run.checkpoints.glob("step_*.ckpt"))
            for path in older[: -trainer.settings.keep_last or None]:
                path.unlink(missing_ok=True)
        if not self.first and self._saved_best != trainer.best_epoch:
            self.save_best(trainer.best)
        self._saved, self._saved_best = position, trainer.best_epoch
        self._saved_at = time.monotonic()

    def _states(self) -> dict[str, Any]:
        state = training_state(self.trainer)
        if not self.first:
            return {"training": state}
        length = self.trainer.length
        steps = [length.n_scheduled, length.n_steps]
        return {"training": self.first, "refit": {**state, "steps": steps}}

    def save_best(self, weights: Mapping[str, Tensor], name: str = "best", **changes: Any) -> None:
        """Write best.ckpt, or another checkpoint that predicts.

        Args:
            weights: The weights.
            name: Name of the file without .ckpt.
            **changes: Fields that differ from the description.
        """
        score = self.trainer.best_score if len(self.trainer.split["val"]) else None
        metrics = {"best_epoch": self.trainer.best_epoch, "val_score": score}
        content = {**self.description, **changes, "metrics": metrics, "state_dict": dict(weights)}
        self.run.save(content, name)

    def _write_rows(self) -> None:
        history, name = self.trainer.history, "refit.csv" if self.first else "metrics.csv"
        if history and not self._n_rows:
            # of a resumed run the checkpoint counts; the file may have further rows
            self.run.write_metrics(history, name)
        elif len(history) > self._n_rows:
            self.run.append_metrics(history[self._n_rows :], name)
        self._n_rows = len(history)
