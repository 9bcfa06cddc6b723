"""Training steps on a GPU as CUDA graphs, which need no work of the host between their kernels."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from csgcnn import distributed
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError, first_line

SIZES_PER_MEAN = 16  # padded sizes from an empty batch to one of mean size
WARM_UP = 3  # steps before the first recording, in which libraries initialize themselves


def can_replay(settings: TrainerSettings, store: GraphStore) -> bool:
    """Return whether steps may be replayed.

    The work must be the same for each batch: no compilation, no look at the result, and no
    deterministic algorithms, which read sizes from the device.

    Args:
        settings: Keys of the section `trainer`.
        store: Graphs to train on, which must lie in the memory of one GPU.
    """
    is_fixed = not (
        settings.compile or settings.max_skipped or torch.are_deterministic_algorithms_enabled()
    )
    on_gpu = store.device.type == "cuda" and store.is_resident
    return settings.cuda_graphs and on_gpu and is_fixed and distributed.world_size() == 1


class Graph(Protocol):
    """Work on the device that is recorded once and replayed on the same memory."""

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        """Record the work without running it, and return the tensor for its result."""

    def replay(self) -> None:
        """Run the recorded work."""


class CudaGraph:
    """A CUDA graph.

    Args:
        pool: Memory pool; graphs that never run at the same time may share one.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._graph = torch.cuda.CUDAGraph()

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        """Record the work without running it."""
        with torch.cuda.graph(self._graph, pool=self._pool):
            return work()

    def replay(self) -> None:
        """Launch all kernels of the work at once."""
        self._graph.replay()


class Recording(NamedTuple):
    """A recorded step and the tensors that hold its results."""

    graph: Graph
    loss: Tensor
    gradients: list[Tensor | None]


class RecordedStep:
    """Compute gradients of batches by replaying recorded steps, one for each padded size.

    A step launches hundreds of kernels of some microseconds each, and the host takes longer to
    launch them than the GPU to run them. A CUDA graph launches them at once, but repeats the same
    work on the same memory: the rows of the batch are written into a fixed tensor, and batches are
    padded to one of few sizes (`GraphStore.padded`).

    Args:
        store: Graphs to train on.
        batch_size: Crystals in a batch.
        compute_gradients: Computes the loss of a batch, given its rows on the device and its
            graphs, and the gradients of the parameters.
        parameters: Parameters to train.
        make_graph: Makes a graph to record a step in; default: CUDA graphs.
    """

    def __init__(
        self,
        store: GraphStore,
        batch_size: int,
        compute_gradients: Callable[[Tensor, GraphBatch], Tensor],
        parameters: Sequence[Tensor],
        make_graph: Callable[[], Graph] | None = None,
    ) -> None:
        self.store = store
        self.compute_gradients = compute_gradients
        self.parameters = parameters
        self.make_graph = make_graph or partial(CudaGraph, torch.cuda.graph_pool_handle())
        self.rows = torch.zeros(batch_size, dtype=torch.int64, device=store.device)
        self.total = store.size()
        self.mean = [batch_size * total / max(1, len(store)) for total in self.total]
        self.recordings: dict[tuple[int, int], Recording] = {}
        self.n_warm_up = WARM_UP

    def accepts(self, rows: Tensor) -> bool:
        """Return whether a batch is replayed.

        The first batches, those of another length, and those too large to be padded with graphs of
        the store are not.

        Args:
            rows: Rows of the batch, on the host.
        """
        if self.n_warm_up:
            self.n_warm_up -= 1
            return False
        sizes = zip(self.padded_size(rows), self.total, strict=True)
        return len(rows) == len(self.rows) and all(n <= total for n, total in sizes)

    def padded_size(self, rows: Tensor) -> tuple[int, int]:
        """Return the atoms and edges to which a batch is padded, at least one of each more.

        Args:
            rows: Rows of the batch, on the host.
        """
        own = zip(self.store.size(rows), self.mean, strict=True)
        step = math.ceil(max(SIZES_PER_MEAN * n / mean for n, mean in own))
        n_atoms, n_edges = (math.ceil(mean * step / SIZES_PER_MEAN) + 1 for mean in self.mean)
        return n_atoms, n_edges

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute the gradients of a batch.

        Args:
            rows: Rows of the batch [batch_size], on the host.

        Returns:
            The loss; it and the gradients are valid until the next call.

        Raises:
            UserError: The step cannot be recorded.
        """
        size = self.padded_size(rows)
        rows = rows.pin_memory() if self.rows.is_cuda else rows
        self.rows.copy_(rows, non_blocking=True)
        if size not in self.recordings:
            self.recordings[size] = self._record(*size)
        recording = self.recordings[size]
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        recording.graph.replay()
        return recording.loss

    def _record(self, n_atoms: int, n_edges: int) -> Recording:
        for parameter in self.parameters:
            parameter.grad = None
        graph = self.make_graph()

        def work() -> Tensor:
            batch = self.store.padded(self.rows, n_atoms, n_edges)
            return self.compute_gradients(self.rows, batch)

        try:
            loss = graph.record(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UserError(
                f"{first_line(error)}; set trainer.cuda_graphs=false to train without CUDA graphs"
            ) from error
        return Recording(graph, loss, [parameter.grad for parameter in self.parameters])
