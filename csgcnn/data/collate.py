"""Packed graphs in, a batch out: index arithmetic on any device, without a Python loop over crystals."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from csgcnn.data.batch import GraphBatch, ranges

Packed = Mapping[str, Tensor]


def assemble(packed: Packed, index: Tensor, n_atoms: int, n_edges: int) -> GraphBatch:
    """Lay the crystals `index` [n_graphs] end to end, of `n_atoms` and `n_edges` in all, which the host has to know."""
    return _laid_out(packed, index, *_sizes(packed, index), n_atoms, n_edges)


def collate_padded(packed: Packed, index: Tensor, n_atoms: int, n_edges: int) -> GraphBatch:
    """Lay crystals end to end and fill up to `n_atoms` and `n_edges` with what counts nothing.

    Every tensor then has the same shape for all batches of as many crystals. The atoms that fill up have multiplicity 0
    and belong to the last crystal; theirs are the edges that fill up, each from an atom to itself. No norm, pooling,
    loss or gradient of the others depends on them. At least one atom has to be filled up, and no more of either than
    there are in `packed`.
    """
    of_graph_atoms, of_graph_edges = _sizes(packed, index)
    first_atom, first_edge = of_graph_atoms.sum(), of_graph_edges.sum()
    more_atoms, more_edges = n_atoms - first_atom, n_edges - first_edge
    batch = _laid_out(
        packed,
        torch.cat([index, torch.zeros_like(index[:1])]),
        torch.cat([of_graph_atoms, more_atoms.view(1)]),
        torch.cat([of_graph_edges, more_edges.view(1)]),
        *(n_atoms, n_edges),
    )
    place = (
        torch.arange(n_edges, device=index.device) - first_edge
    )  # among the edges that fill up; negative before
    own = first_atom + place * more_atoms // more_edges.clamp(min=1)
    return replace(
        batch,
        atom_multiplicity=torch.where(batch.graph_index < len(index), batch.atom_multiplicity, 0.0),
        graph_index=batch.graph_index.clamp(max=len(index) - 1),
        edge_index=torch.where(place < 0, batch.edge_index, own),
        global_features=batch.global_features[:-1],
        n_graphs=len(index),
    )


def _sizes(packed: Packed, index: Tensor) -> tuple[Tensor, Tensor]:
    return packed["n_atoms"].index_select(0, index), packed["n_edges"].index_select(0, index)


def _laid_out(
    packed: Packed,
    index: Tensor,
    of_graph_atoms: Tensor,
    of_graph_edges: Tensor,
    n_atoms: int,
    n_edges: int,
) -> GraphBatch:
    atoms, graph_index = ranges(
        packed["first_atom"].index_select(0, index), of_graph_atoms, n_atoms
    )
    edges, graph_of_edge = ranges(
        packed["first_edge"].index_select(0, index), of_graph_edges, n_edges
    )
    first_atom = (of_graph_atoms.cumsum(0) - of_graph_atoms).index_select(0, graph_of_edge)
    return GraphBatch(
        atomic_number=packed["atomic_number"].index_select(0, atoms).long(),
        atom_multiplicity=packed["atom_multiplicity"].index_select(0, atoms),
        graph_index=graph_index,
        edge_index=packed["edge_index"].index_select(1, edges) + first_atom,
        distance=packed["distance"].index_select(0, edges),
        edge_multiplicity=packed["edge_multiplicity"].index_select(0, edges),
        global_features=packed["global_features"].index_select(0, index),
        n_graphs=len(index),
    )
