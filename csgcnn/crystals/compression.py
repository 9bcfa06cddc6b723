"""Lossless symmetry compression: one node for all atoms that message passing cannot tell apart.

Color refinement (1-Weisfeiler-Leman) on (Z, multiset of (neighbor color, distance)) finds the atoms that every
message-passing network on distances gives equal features. One node per color with its multiplicity, one edge per
(color, neighbor color, distance) with its multiplicity then carry the whole computation.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

EQUAL_DISTANCE = 2e-4  # Å: neighboring distances closer than this are one distance, noise of coordinates in files
WIDEST_CLUSTER = (
    1e-3  # Å: a chain of such distances is cut at this width, so that merging stays lossless
)

Array = NDArray[Any]


def merge_equivalent(
    graph_of_site: Array, atomic_number: Array, center: Array, neighbor: Array, distance: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Merge equivalent sites and edges of many crystals at once.

    Shapes: `graph_of_site`, `atomic_number` [n_sites]; `center`, `neighbor`, `distance` [n_edges], by center.
    Returns the node of each site [n_sites], and the merged edges by center: (neighbor, center) [2, n_merged], mean
    distance [n_merged], and multiplicity [n_merged], the number of neighbors of *one* site that the edge stands for.
    """
    cluster = _cluster(distance, graph_of_site[center])
    color = _refine(graph_of_site, atomic_number, center, neighbor, cluster)
    _, first, inverse, n_equal = np.unique(
        color, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(
        len(first), dtype=np.int64
    )  # nodes in the order of their first site, so crystals stay in order
    rank[np.argsort(first)] = np.arange(len(first))
    site_node = rank[inverse]
    multiplicity = np.empty(len(first), dtype=np.int64)
    multiplicity[rank] = n_equal

    n_nodes, n_clusters = len(first), int(cluster.max(initial=0)) + 1
    pairs, pair = np.unique(site_node[center] * n_nodes + site_node[neighbor], return_inverse=True)
    key = (
        pair * n_clusters + cluster
    )  # below n_edges^2: pairs are numbered first, as n_nodes^2 times this may overflow
    merged, group, count = np.unique(key, return_inverse=True, return_counts=True)
    edge_index = np.stack(np.divmod(pairs[merged // n_clusters], n_nodes)[::-1])
    mean_distance = np.bincount(group, distance, minlength=len(merged)) / count
    return site_node, (edge_index, mean_distance, count / multiplicity[edge_index[1]])


def _cluster(distance: Array, graph: Array) -> Array:
    """Number the distinct distances of each crystal, equal up to rounding: [n_edges] int64."""
    order = np.lexsort((distance, graph))
    sorted_distance, sorted_graph = distance[order], graph[order]
    step = np.ones(len(order), dtype=bool)
    step[1:] = (np.diff(sorted_distance) > EQUAL_DISTANCE) | (np.diff(sorted_graph) != 0)
    start = np.flatnonzero(step)[np.cumsum(step) - 1]
    slice_of_chain = ((sorted_distance - sorted_distance[start]) // WIDEST_CLUSTER).astype(np.int64)
    step[1:] |= np.diff(slice_of_chain) != 0
    cluster = np.empty(len(order), dtype=np.int64)
    cluster[order] = np.cumsum(step) - 1
    return cluster


def _refine(
    graph_of_site: Array, atomic_number: Array, center: Array, neighbor: Array, cluster: Array
) -> Array:
    """Color refinement until no color splits: [n_sites] uint64.

    A multiset is hashed as a sum of well-mixed 64-bit numbers, so that all crystals are refined at once without
    sorting; two different multisets collide with a probability of about 2^-64.
    """
    end = np.cumsum(np.bincount(center, minlength=len(atomic_number)))
    start = np.concatenate([[0], end[:-1]])
    distance_hash = _mix(
        ~cluster.astype(np.uint64)
    )  # inverted, so that no distance hashes like a color
    color = _mix(graph_of_site.astype(np.uint64) << np.uint64(8) | atomic_number.astype(np.uint64))
    n_colors = 0
    while (n_distinct := len(np.unique(color))) > n_colors:
        n_colors = n_distinct
        running = np.zeros(len(center) + 1, dtype=np.uint64)
        np.cumsum(
            _mix(color[neighbor] ^ distance_hash), out=running[1:]
        )  # wraps around, on purpose
        color = _mix(_mix(color) + running[end] - running[start])
    return color


def _mix(x: Array) -> Array:
    """The finalizer of splitmix64 (Steele, Lea & Flood 2014): every input bit reaches every output bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
