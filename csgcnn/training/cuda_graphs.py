"""Training on a GPU without waiting for the host: forward and backward passes as CUDA graphs."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError

STEPS = 16  # sizes of a batch that are told apart, between none and the mean
WARM_UP = 3  # passes before the first recording: libraries set themselves up


class Recording(NamedTuple):
    """A pass that can be repeated, and where it leaves its results."""

    graph: torch.cuda.CUDAGraph
    loss: Tensor
    gradients: list[Tensor | None]


class RecordedStep:
    """Passes over batches of `batch_size` crystals, each recorded once for every size of batch and then replayed.

    A pass is hundreds of kernels of some microseconds each, which the host takes longer to launch than the GPU to run.
    A CUDA graph launches them all at once, but repeats the same work on the same memory: the rows of the batch are
    written into `rows`, and the batch is padded to one of few sizes (`GraphStore.padded`).

    `gradients(rows, batch)` computes the loss and leaves the gradients in the `parameters`.
    """

    def __init__(
        self,
        store: GraphStore,
        batch_size: int,
        gradients: Callable[[Tensor, GraphBatch], Tensor],
        parameters: Sequence[Tensor],
    ) -> None:
        self.store = store
        self.gradients = gradients
        self.parameters = parameters
        self.rows = torch.zeros(batch_size, dtype=torch.int64, device=store.device)
        self.total = store.size()
        self.mean = [batch_size * total / max(1, len(store)) for total in self.total]
        self.recordings: dict[int, Recording] = {}
        self.n_before = WARM_UP

    def takes(self, rows: Tensor) -> bool:
        """Whether the pass over these rows is one to replay; the first ones, and batches of another length, are not."""
        if self.n_before:
            self.n_before -= 1
            return False
        enough = all(
            n <= total for n, total in zip(self._sizes(self._step(rows)), self.total, strict=True)
        )
        return len(rows) == len(self.rows) and enough

    def __call__(self, rows: Tensor) -> Tensor:
        """Loss of the batch `rows` [batch_size]; valid until the next call, as the gradients are.

        Raises:
            UserError: the pass cannot be recorded.
        """
        step = self._step(rows)
        self.rows.copy_(rows.pin_memory(), non_blocking=True)
        if step not in self.recordings:
            try:
                self.recordings[step] = self._record(*self._sizes(step))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                first = str(error).splitlines()[0]
                raise UserError(
                    f"{first}; trainer.cuda_graphs=false trains without CUDA graphs"
                ) from error
        recording = self.recordings[step]
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        recording.graph.replay()
        return recording.loss

    def _step(self, rows: Tensor) -> int:
        return math.ceil(
            max(STEPS * n / mean for n, mean in zip(self.store.size(rows), self.mean, strict=True))
        )

    def _sizes(self, step: int) -> list[int]:
        """Atoms and edges of a padded batch, one more than there may be."""
        return [math.ceil(mean * step / STEPS) + 1 for mean in self.mean]

    def _record(self, n_atoms: int, n_edges: int) -> Recording:
        for parameter in self.parameters:
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.recordings.values())).graph.pool() if self.recordings else None
        with torch.cuda.graph(graph, pool=pool):
            loss = self.gradients(self.rows, self.store.padded(self.rows, n_atoms, n_edges))
        return Recording(graph, loss, [parameter.grad for parameter in self.parameters])
