"""The one thing a model takes: a batch of crystal graphs as plain tensors."""

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class SegmentSum(NamedTuple):
    """Which rows of a table are summed up, and how often each counts: a sparse matrix."""

    row: Tensor  # [n_entries] int64
    first: Tensor  # [n_bags] int64, where the entries of each bag start
    weight: Tensor | None = None  # [n_entries]

    def sum(self, table: Tensor) -> Tensor:
        """Sum the rows of each bag: table [n_rows, size] -> [n_bags, size]."""
        weight = None if self.weight is None else self.weight.to(table.dtype)
        return F.embedding_bag(self.row, table, self.first, mode="sum", per_sample_weights=weight)


@dataclass(frozen=True)
class GraphBatch:
    """Crystals laid end to end; nodes and edges may stand for several equal atoms and neighbors.

    Edges are sorted by their center, `edge_index[1]`.
    """

    atomic_number: Tensor  # [n_atoms] int64
    atom_multiplicity: Tensor  # [n_atoms] float
    graph_index: Tensor  # [n_atoms] int64, crystal of the atom
    edge_index: Tensor  # [2, n_edges] int64, (neighbor, center)
    distance: Tensor  # [n_edges] float, Å
    edge_multiplicity: Tensor  # [n_edges] float
    global_features: Tensor  # [n_graphs, n_global] float
    n_graphs: int

    @cached_property
    def edge_count(self) -> Tensor:
        """How many edges of the uncompressed graph each edge stands for: [n_edges]."""
        return self.edge_multiplicity * self.atom_multiplicity.index_select(0, self.edge_index[1])

    @cached_property
    def n_sites(self) -> Tensor:
        """Sites (uncompressed atoms) per crystal: [n_graphs] float."""
        return self.atom_multiplicity.new_zeros(self.n_graphs).index_add(
            0, self.graph_index, self.atom_multiplicity
        )

    @cached_property
    def degree(self) -> Tensor:
        """Neighbors of one site that each node stands for: [n_atoms] float."""
        return self.sum_neighbors(self.edge_multiplicity.new_ones(len(self.distance), 1)).squeeze(1)

    @cached_property
    def edges_of_center(self) -> SegmentSum:
        """The edges of each node, counted with their multiplicities."""
        nodes = torch.arange(len(self.atomic_number), device=self.distance.device)
        return SegmentSum(
            self._edges,
            torch.searchsorted(self.edge_index[1].contiguous(), nodes),
            self.edge_multiplicity,
        )

    @cached_property
    def center_of_edge(self) -> SegmentSum:
        """The transpose of `edges_of_center`."""
        return SegmentSum(self.edge_index[1], self._edges, self.edge_multiplicity)

    @cached_property
    def ends_of_edge(self) -> SegmentSum:
        """The two ends of each edge: node i is row 2 i as a center, row 2 i + 1 as a neighbor."""
        ends = torch.stack([2 * self.edge_index[1], 2 * self.edge_index[0] + 1], dim=1)
        return SegmentSum(ends.flatten(), 2 * self._edges)

    @cached_property
    def edges_of_end(self) -> SegmentSum:
        """The transpose of `ends_of_edge`."""
        end, order = self.ends_of_edge.row.sort(stable=True)
        ends = torch.arange(2 * len(self.atomic_number), device=end.device)
        return SegmentSum(order >> 1, torch.searchsorted(end, ends))

    @cached_property
    def _edges(self) -> Tensor:
        return torch.arange(len(self.distance), device=self.distance.device)

    def sum_neighbors(self, message: Tensor) -> Tensor:
        """Sum messages [n_edges, size] over the neighbors of each node, with their multiplicities: [n_atoms, size]."""
        return sum_rows(message, self.edges_of_center, self.center_of_edge)

    def to(self, device: torch.device) -> "GraphBatch":
        """The same on another device; a GPU takes it while it computes."""

        def moved(tensor: Tensor) -> Tensor:
            return (
                tensor.pin_memory().to(device, non_blocking=True)
                if device.type == "cuda"
                else tensor.to(device)
            )

        tensors = {
            field.name: moved(getattr(self, field.name))
            for field in fields(self)
            if field.name != "n_graphs"
        }
        return GraphBatch(**tensors, n_graphs=self.n_graphs)

    def __len__(self) -> int:
        return self.n_graphs


def sum_rows(table: Tensor, bags: SegmentSum, transposed: SegmentSum) -> Tensor:
    """`bags.sum` with a gradient: table [n_rows, size] -> [n_bags, size].

    A gather (bags of one row, or of two) and a sum over the neighbors (bags of edges) alike; each is the other's
    gradient. Many times faster than `index_add` on a CPU, and the same sum each time on a GPU.
    """
    return _SumRows.apply(table, bags, transposed)


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, bags: SegmentSum, transposed: SegmentSum) -> Tensor:
        ctx.transposed = transposed
        return bags.sum(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed.sum(grad.contiguous()), None, None


def cut(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Cut rows [n_rows] into batches of `size`; a rest of one, or up to a sixteenth of `size`, joins the last batch.

    Alone, the statistics and the gradient of so few crystals would weigh as much as those of a whole batch.
    """
    rest = min(size - 1, max(1, size // 16))
    n_batches = max(1, math.ceil((len(rows) - rest) / size))
    return rows.split([size] * (n_batches - 1) + [len(rows) - size * (n_batches - 1)])


def ranges(start: Tensor, length: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Concatenate the ranges [start, start + length): positions [total], and the number of the range of each [total].

    `total`, the sum of the lengths, is passed so that a GPU need not be asked.
    """
    owner = torch.repeat_interleave(length, output_size=total)
    shift = start - (length.cumsum(0) - length)
    return torch.arange(total, device=start.device) + shift.index_select(0, owner), owner
