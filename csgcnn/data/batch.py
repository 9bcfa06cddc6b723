"""A batch of crystal graphs as plain tensors: the input of every network."""

import math
from dataclasses import InitVar, dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class SegmentSum(NamedTuple):
    """Sum chosen rows of a table, segment by segment, with weights: a sparse matrix."""

    # [n_entries] int64: row of the table
    row: Tensor
    # [n_segments] int64: first entry of each segment
    first: Tensor
    # [n_entries]: weight of each entry, 1 without
    weight: Tensor | None = None

    def sum(self, table: Tensor) -> Tensor:
        """Sum the rows of each segment: table [n_rows, size] -> [n_segments, size]."""
        weight = None if self.weight is None else self.weight.to(table.dtype)
        return F.embedding_bag(self.row, table, self.first, mode="sum", per_sample_weights=weight)


@dataclass(frozen=True)
class GraphBatch:
    """Crystal graphs end to end; a node or an edge may stand for several equal ones.

    Edges are sorted by their center, `edge_index[1]`.

    Attributes:
        atomic_number: [n_atoms] int64.
        atom_multiplicity: [n_atoms] float, number of equal sites that the node stands for.
        site_features: [n_atoms, n_site_features] float16, from pretrained potentials.
        graph_index: [n_atoms] int64, crystal of each node.
        edge_index: [2, n_edges] int64, (neighbor, center).
        distance: [n_edges] float, in Å.
        edge_multiplicity: [n_edges] float, number of equal neighbors that the edge stands for.
        global_features: [n_graphs, n_global] float.
        n_graphs: Number of crystals.
        inputs: [n_graphs, n_inputs] float, columns that the network reads beside the structure;
            None without.
        length_powers: [n_global] float, power with which each global feature scales if all lengths
            are scaled; None if that is not known.
    """

    atomic_number: Tensor
    atom_multiplicity: Tensor
    site_features: Tensor
    graph_index: Tensor
    edge_index: Tensor
    distance: Tensor
    edge_multiplicity: Tensor
    global_features: Tensor
    n_graphs: int
    inputs: Tensor | None = None
    # Describes columns rather than crystals, so that it is no field that batches are compared by.
    length_powers: InitVar[Tensor | None] = None

    def __post_init__(self, length_powers: Tensor | None) -> None:
        object.__setattr__(self, "length_powers", length_powers)

    @cached_property
    def edge_count(self) -> Tensor:
        """Number of edges of the uncompressed graph that each edge stands for: [n_edges]."""
        return self.edge_multiplicity * self.atom_multiplicity.index_select(0, self.edge_index[1])

    @cached_property
    def n_sites(self) -> Tensor:
        """Number of sites (uncompressed nodes) per crystal: [n_graphs] float."""
        return self.atom_multiplicity.new_zeros(self.n_graphs).index_add(
            0, self.graph_index, self.atom_multiplicity
        )

    @cached_property
    def degree(self) -> Tensor:
        """Number of neighbors of one site that each node stands for: [n_atoms] float."""
        return self.sum_neighbors(self.edge_multiplicity.new_ones(len(self.distance), 1)).squeeze(1)

    @cached_property
    def edges_of_center(self) -> SegmentSum:
        """The edges of each node, weighted with their multiplicities."""
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
        """Sum messages over the neighbors of each node: [n_edges, size] -> [n_atoms, size].

        Each message is weighted with the multiplicity of its edge.
        """
        return sum_rows(message, self.edges_of_center, self.center_of_edge)

    def scaled_features(self, factor: Tensor) -> Tensor:
        """Return the global features of crystals whose lengths are multiplied by a factor.

        Args:
            factor: [n_graphs].

        Returns:
            [n_graphs, n_global].
        """
        powers = vars(self)["length_powers"]
        if powers is None:
            return self.global_features
        return self.global_features * factor.unsqueeze(1) ** powers

    def to(self, device: torch.device) -> "GraphBatch":
        """Return the batch on another device; the copy to a GPU is asynchronous."""
        names = [*(field.name for field in fields(self)), "length_powers"]
        moved: dict[str, Any] = {
            name: _moved(getattr(self, name), device)
            for name in names
            if isinstance(getattr(self, name), Tensor)
        }
        return replace(self, **moved)

    def __len__(self) -> int:
        return self.n_graphs


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def sum_rows(table: Tensor, segments: SegmentSum, transposed: SegmentSum) -> Tensor:
    """Compute `segments.sum(table)` with a gradient.

    Gathering rows (segments of one or two entries) and summing over neighbors (segments of edges)
    are the same operation, and each is the gradient of the other. It is many times faster than
    `index_add` on a CPU, and deterministic on a GPU.

    Args:
        table: [n_rows, size].
        segments: The sum.
        transposed: Its transpose, which computes the gradient.

    Returns:
        [n_segments, size].
    """
    return _SumRows.apply(table, segments, transposed)


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, segments: SegmentSum, transposed: SegmentSum) -> Tensor:
        ctx.transposed = transposed
        return segments.sum(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed.sum(grad.contiguous()), None, None


def split_batches(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Split rows into batches of `size`.

    A remainder of one row, or of at most size/16 rows, is merged into the last batch: the
    statistics and the gradient of so few crystals would weigh as much as those of a whole batch.

    Args:
        rows: [n_rows].
        size: Number of rows per batch.

    Returns:
        The batches, in order.
    """
    merged = min(size - 1, max(1, size // 16))
    n_batches = max(1, math.ceil((len(rows) - merged) / size))
    return rows.split([size] * (n_batches - 1) + [len(rows) - size * (n_batches - 1)])
