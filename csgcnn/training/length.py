"""How long a training is: all steps of its schedule, or as many as another training took."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Length:
    """Describe the length of a training.

    Attributes:
        n_batches: Steps of an epoch.
        n_scheduled: Steps of the learning-rate schedule.
        n_steps: Steps to take.
    """

    n_batches: int
    n_scheduled: int
    n_steps: int

    @classmethod
    def of_epochs(cls, n_epochs: int, n_batches: int) -> "Length":
        """Return the length of whole epochs, with a schedule that ends with them.

        Args:
            n_epochs: Number of epochs.
            n_batches: Steps of an epoch.
        """
        return cls(n_batches, n_epochs * n_batches, n_epochs * n_batches)

    @property
    def n_epochs(self) -> int:
        """Number of epochs; the last one may be incomplete."""
        return math.ceil(self.n_steps / self.n_batches)

    def progress(self, epoch: int) -> float:
        """Return the completed fraction of the schedule after `epoch` epochs."""
        return epoch * self.n_batches / self.n_scheduled

    def cut(self, order: Tensor, epoch: int, batch_size: int) -> Tensor:
        """Return the rows of the epoch after `epoch` epochs: all, or those of the last steps.

        Args:
            order: Shuffled training rows.
            epoch: Completed epochs.
            batch_size: Rows of a batch.
        """
        n_left = self.n_steps - epoch * self.n_batches
        return order if n_left >= self.n_batches else order[: n_left * batch_size]
