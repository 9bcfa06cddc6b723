"""Lossless symmetry compression: one node for all atoms that message passing cannot distinguish.

Color refinement (1-Weisfeiler-Leman) on (Z, multiset of (neighbor color, distance)) finds the atoms
to which every message-passing network on distances gives equal features. The compressed graph has
one node per color and one edge per (color, neighbor color, distance), each with its multiplicity.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.segments import dense_rank, order_of

# Å: neighboring distances that differ by less are equal; covers the rounding of coordinates.
DISTANCE_TOLERANCE = 2e-4
# Å: longer chains of such distances are split, so that merged distances stay close.
MAX_CLUSTER_WIDTH = 1e-3

Array = NDArray[Any]


def merge_equivalent(
    graph_of_site: Array,
    atomic_number: Array,
    center: Array,
    neighbor: Array,
    distance: Array,
    cluster: Array,
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Merge equivalent sites and edges of many crystals at once.

    Args:
        graph_of_site: Crystal of each site, [n_sites].
        atomic_number: [n_sites].
        center: Center of each edge, [n_edges], sorted.
        neighbor: Neighbor of each edge, [n_edges].
        distance: [n_edges], in Å.
        cluster: Number of the distance of each edge, [n_edges], from `cluster_distances`.

    Returns:
        site_node: Node that stands for each site, [n_sites]; nodes are in the order of their first
            site.
        edges: The merged edges, sorted by center: edge_index (neighbor, center) [2, n_merged],
            mean distance [n_merged], and multiplicity [n_merged], the number of neighbors of one
            site that the edge stands for.
    """
    color = _refine_colors(graph_of_site, atomic_number, center, neighbor, cluster)
    _, first, inverse, n_equal = np.unique(
        color, return_index=True, return_inverse=True, return_counts=True
    )
    # Nodes in the order of their first site keep the crystals in order.
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    site_node = rank[inverse]
    multiplicity = np.empty(len(first), dtype=np.int64)
    multiplicity[rank] = n_equal

    n_nodes, n_clusters = len(first), int(cluster.max(initial=0)) + 1
    if n_nodes**2 * n_clusters >= 2**63:
        cluster = dense_rank(cluster)
        n_clusters = int(cluster.max()) + 1
    key = (site_node[center] * n_nodes + site_node[neighbor]) * n_clusters + cluster
    merged, group, count = np.unique(key, return_inverse=True, return_counts=True)
    edge_index = np.stack(np.divmod(merged // n_clusters, n_nodes)[::-1])
    mean_distance = np.bincount(group, distance, minlength=len(merged)) / count
    return site_node, (edge_index, mean_distance, count / multiplicity[edge_index[1]])


def cluster_distances(distance: Array, graph: Array) -> Array:
    """Number the distances of each crystal that are equal up to rounding.

    Args:
        distance: [n_edges], in Å.
        graph: Crystal of each edge, [n_edges].

    Returns:
        Number of the distance of each edge, [n_edges] int64; crystals share no number.
    """
    order = order_of(graph, dense_rank(distance))
    sorted_distance, sorted_graph = distance[order], graph[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (np.diff(sorted_distance) > DISTANCE_TOLERANCE) | (np.diff(sorted_graph) != 0)
    start = np.flatnonzero(is_new)[np.cumsum(is_new) - 1]
    width = sorted_distance - sorted_distance[start]
    if (is_wide := width >= MAX_CLUSTER_WIDTH).any():
        part = np.zeros(len(order), dtype=np.int64)
        part[is_wide] = width[is_wide] // MAX_CLUSTER_WIDTH
        is_new[1:] |= np.diff(part) != 0
    cluster = np.empty(len(order), dtype=np.int64)
    cluster[order] = np.cumsum(is_new) - 1
    return cluster


def _refine_colors(
    graph_of_site: Array, atomic_number: Array, center: Array, neighbor: Array, cluster: Array
) -> Array:
    """Refine colors until none splits: [n_sites] uint64.

    The hash of a multiset is the sum of mixed 64-bit numbers, so that all crystals are refined at
    once without sorting. Two different multisets collide with a probability of about 2^-64.
    """
    end = np.cumsum(np.bincount(center, minlength=len(atomic_number)))
    start = np.concatenate([[0], end[:-1]])
    # Inverted, so that no distance has the hash of a color.
    distance_hash = mix(~cluster.astype(np.uint64))
    color = mix(graph_of_site.astype(np.uint64) << np.uint64(8) | atomic_number.astype(np.uint64))
    n_colors = 0
    # Faster than `np.unique` for the number of distinct colors.
    while (n_distinct := 1 + int(np.count_nonzero(np.diff(np.sort(color))))) > n_colors:
        n_colors = n_distinct
        running = np.zeros(len(center) + 1, dtype=np.uint64)
        # The sum wraps around on purpose.
        np.cumsum(mix(color[neighbor] ^ distance_hash), out=running[1:])
        color = mix(mix(color) + running[end] - running[start])
    return color


def mix(x: Array) -> Array:
    """Return a hash of each 64-bit number: the finalizer of splitmix64.

    Source: Steele, Lea & Flood, OOPSLA 2014.
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
