"""Reduced compositions of the crystals of a store."""

from itertools import pairwise

import numpy as np

from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.data.store import GraphStore


def compositions(store: GraphStore) -> list[str]:
    """Return the reduced formula of each crystal, elements by atomic number: "O3TiSr"."""
    return [formula for block in store.blocks() for formula in _formulas(block)]


def _formulas(graphs: CrystalGraphs) -> list[str]:
    graph_of_atom = np.repeat(np.arange(len(graphs)), graphs.n_atoms)
    # One number for each pair of a graph and an element, sorted by both.
    pairs, pair_of_atom = np.unique(
        graph_of_atom * len(SYMBOLS) + graphs.atomic_number, return_inverse=True
    )
    count = np.bincount(pair_of_atom, graphs.atom_multiplicity).astype(np.int64)
    graph, element = np.divmod(pairs, len(SYMBOLS))
    first = np.searchsorted(graph, np.arange(len(graphs) + 1))
    count //= np.repeat(np.gcd.reduceat(count, first[:-1]), np.diff(first))
    terms = [
        f"{SYMBOLS[z]}{n if n > 1 else ''}"
        for z, n in zip(element.tolist(), count.tolist(), strict=True)
    ]
    return ["".join(terms[start:end]) for start, end in pairwise(first.tolist())]
