"""Losses, gradients and weights that are not finite: skip the batch, or stop the training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from csgcnn.errors import UserError

ADVICE = "lower optimizer.lr; if single crystals are the cause, set trainer.max_skipped=10"


class DivergenceError(UserError):
    """A number is not finite.

    Attributes:
        epoch: Epoch in which it occurred.
        culprits: Ids of the crystals in the batches where it began.
    """

    def __init__(self, reason: str, epoch: int, culprits: list[str]) -> None:
        super().__init__(f"training diverged in epoch {epoch}: {reason}; {ADVICE}")
        self.epoch = epoch
        self.culprits = culprits


class DivergenceGuard:
    """Check that losses, gradients and weights are finite.

    By default a batch is not checked alone: reading its loss would wait for the device. If batches
    may be skipped, each is checked, and one without a finite loss or gradient changes nothing.

    Attributes:
        skipped: Skipped batches: epoch and ids of the crystals.
    """

    def __init__(self, model: nn.Module, ids: Sequence[str], max_skipped: int = 0) -> None:
        self.model = model
        self.ids = ids
        self.max_skipped = max_skipped
        self.skipped: list[dict[str, Any]] = []
        self._buffers: list[Tensor] = []

    def start_step(self) -> None:
        """Remember the statistics of norms, which a skipped batch must not change."""
        if self.max_skipped:
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]

    @torch.no_grad()
    def skips(self, loss: Tensor, epoch: int, rows: Tensor) -> bool:
        """Return whether a batch must be skipped, and restore the statistics of norms if so.

        Args:
            loss: Loss of the batch, NaN if its gradient is not finite.
            epoch: Current epoch, from 1.
            rows: Rows of the batch.

        Raises:
            DivergenceError: More than `max_skipped` batches were skipped.
        """
        if not self.max_skipped or loss.isfinite():
            return False
        for buffer, before in zip(self.model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        self.skipped.append({"epoch": epoch, "ids": self._ids(rows)})
        if len(self.skipped) > self.max_skipped:
            culprits = [id_ for batch in self.skipped for id_ in batch["ids"]]
            reason = (
                f"{len(self.skipped)} batches had no finite loss or gradient, "
                f"more than trainer.max_skipped={self.max_skipped} allows"
            )
            raise DivergenceError(reason, epoch, culprits)
        return True

    def mean_loss(self, losses: Tensor, batches: Sequence[Tensor]) -> float:
        """Return the mean loss of the rows of an epoch, without skipped batches.

        Args:
            losses: Loss of each batch [at least n_batches].
            batches: Rows of each batch.
        """
        losses = losses[: len(batches)]
        n_rows = torch.tensor([*map(len, batches)], device=losses.device).float()
        n_rows = torch.where(losses.isfinite(), n_rows, 0.0)
        return ((losses.nan_to_num(0.0) * n_rows).sum() / n_rows.sum()).item()

    def check(self, losses: Tensor, batches: Sequence[Tensor], epoch: int) -> None:
        """Check the losses of an epoch and all weights.

        Args:
            losses: Loss of each batch so far [n_done].
            batches: Rows of each batch so far.
            epoch: Current epoch, from 1.

        Raises:
            DivergenceError: A loss, unless it may be skipped, or a weight is not finite.
        """
        if self.max_skipped:
            losses = losses[:0]
        checked = [losses, *self.model.state_dict().values()]
        # a single read from the device
        if torch.stack([tensor.isfinite().all() for tensor in checked]).all():
            return
        if len(bad := (~losses.isfinite()).nonzero()):
            first = int(bad[0])
            # the gradient of the batch before may have spoiled this loss
            culprits = torch.cat(list(batches[max(0, first - 1) : first + 1]))
            self.stop(f"the loss of batch {first + 1} is {losses[first]:.3g}", epoch, culprits)
        last = torch.cat(list(batches[-1:])) if batches else torch.empty(0, dtype=torch.int64)
        self.stop("the weights are not finite", epoch, last)

    def stop(self, reason: str, epoch: int, culprits: Tensor) -> None:
        """Raise DivergenceError.

        Args:
            reason: First part of the message.
            epoch: Current epoch, from 1.
            culprits: Rows of the crystals that may be the cause.
        """
        raise DivergenceError(reason, epoch, self._ids(culprits))

    def _ids(self, rows: Tensor) -> list[str]:
        return [self.ids[row] for row in rows.tolist()]
