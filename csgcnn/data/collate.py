"""Collate packed graphs to a batch by index arithmetic, without a loop over crystals.

Packed graphs are tensors by name: those of `GraphBatch`, end to end for all crystals, and
`n_atoms`, `n_edges`, `first_atom` and `first_edge` [n_crystals], the size and the position of each
crystal. `length_powers` is the same for all crystals; `inputs` may be absent.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from csgcnn.data.batch import GraphBatch

Packed = Mapping[str, Tensor]


def collate(packed: Packed, index: Tensor, n_atoms: int, n_edges: int) -> GraphBatch:
    """Collate crystals to a batch.

    Args:
        packed: The packed graphs.
        index: [n_graphs] int64, the crystals, on the device of `packed`.
        n_atoms: Number of their nodes, which is passed to avoid a synchronization with the GPU.
        n_edges: Number of their edges.

    Returns:
        The batch, on the device of `packed`.
    """
    return _collate(packed, index, *_sizes(packed, index), n_atoms, n_edges)


def collate_padded(packed: Packed, index: Tensor, n_atoms: int, n_edges: int) -> GraphBatch:
    """Collate crystals to a batch of a given size, filled up with padding.

    All batches of equally many crystals then have tensors of the same shapes. Padding nodes have
    multiplicity 0 and belong to the last crystal. Padding edges have multiplicity 0 and connect a
    padding node with itself: sums over thousands of them would grow from layer to layer.
    No norm, pooling, loss or gradient of the crystals depends on the padding.

    Args:
        packed: The packed graphs.
        index: [n_graphs] int64, the crystals, on the device of `packed`.
        n_atoms: Number of nodes of the batch, more than those of the crystals. At most as many
            padding nodes are possible as there are nodes in `packed`.
        n_edges: Number of edges of the batch, at least those of the crystals; likewise.

    Returns:
        The batch, on the device of `packed`.
    """
    graph_atoms, graph_edges = _sizes(packed, index)
    real_atoms, real_edges = graph_atoms.sum(), graph_edges.sum()
    padding_atoms, padding_edges = n_atoms - real_atoms, n_edges - real_edges
    batch = _collate(
        packed,
        torch.cat([index, torch.zeros_like(index[:1])]),
        torch.cat([graph_atoms, padding_atoms.view(1)]),
        torch.cat([graph_edges, padding_edges.view(1)]),
        *(n_atoms, n_edges),
    )
    # Number of each edge among the padding edges; negative for the edges of the crystals.
    number = torch.arange(n_edges, device=index.device) - real_edges
    padding_node = real_atoms + number * padding_atoms // padding_edges.clamp(min=1)
    return replace(
        batch,
        atom_multiplicity=torch.where(batch.graph_index < len(index), batch.atom_multiplicity, 0.0),
        graph_index=batch.graph_index.clamp(max=len(index) - 1),
        edge_index=torch.where(number < 0, batch.edge_index, padding_node),
        edge_multiplicity=torch.where(number < 0, batch.edge_multiplicity, 0.0),
        global_features=batch.global_features[:-1],
        n_graphs=len(index),
        inputs=None if batch.inputs is None else batch.inputs[:-1],
        length_powers=packed.get("length_powers"),
    )


def ranges(start: Tensor, length: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Concatenate the integer ranges [start, start + length).

    Args:
        start: [n_ranges] int64.
        length: [n_ranges] int64.
        total: Sum of the lengths, which is passed to avoid a synchronization with the GPU.

    Returns:
        The integers [total], and the number of the range of each [total].
    """
    owner = torch.repeat_interleave(length, output_size=total)
    shift = start - (length.cumsum(0) - length)
    return torch.arange(total, device=start.device) + shift.index_select(0, owner), owner


def _sizes(packed: Packed, index: Tensor) -> tuple[Tensor, Tensor]:
    return packed["n_atoms"].index_select(0, index), packed["n_edges"].index_select(0, index)


def _collate(
    packed: Packed,
    index: Tensor,
    graph_atoms: Tensor,
    graph_edges: Tensor,
    n_atoms: int,
    n_edges: int,
) -> GraphBatch:
    """Collate crystals whose sizes [n_graphs] are known."""
    atoms, graph_index = ranges(packed["first_atom"].index_select(0, index), graph_atoms, n_atoms)
    edges, graph_of_edge = ranges(packed["first_edge"].index_select(0, index), graph_edges, n_edges)
    first_atom = (graph_atoms.cumsum(0) - graph_atoms).index_select(0, graph_of_edge)
    inputs = packed.get("inputs")
    return GraphBatch(
        atomic_number=packed["atomic_number"].index_select(0, atoms).long(),
        atom_multiplicity=packed["atom_multiplicity"].index_select(0, atoms),
        site_features=packed["site_features"].index_select(0, atoms),
        graph_index=graph_index,
        edge_index=packed["edge_index"].index_select(1, edges) + first_atom,
        distance=packed["distance"].index_select(0, edges),
        edge_multiplicity=packed["edge_multiplicity"].index_select(0, edges),
        global_features=packed["global_features"].index_select(0, index),
        n_graphs=len(index),
        inputs=None if inputs is None else inputs.index_select(0, index),
        length_powers=packed.get("length_powers"),
    )
