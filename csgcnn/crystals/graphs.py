"""Graphs of crystals: pairs of neighboring atoms with their distances and multiplicities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.compression import cluster_distances, merge_equivalent
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.descriptors import descriptors
from csgcnn.crystals.fingerprints import N_HASHES, fingerprints
from csgcnn.crystals.neighbors import SHELL_TOLERANCE, search_neighbors
from csgcnn.crystals.segments import dense_rank, order_of
from csgcnn.crystals.site_features.compute import site_features
from csgcnn.crystals.small_cells import Pairs, search_small_cells
from csgcnn.errors import StructureError

# Sites for which spglib finds the symmetry within seconds.
MAX_SYMMETRY_SITES = 2500

Array = NDArray[Any]

Layout = tuple[str, tuple[str | int, ...]]
# Type and shape of each array; sizes come before the arrays that they count.
LAYOUT: dict[str, Layout] = {
    "n_atoms": ("int32", ("n_graphs",)),
    "n_edges": ("int32", ("n_graphs",)),
    "n_sites": ("int32", ("n_graphs",)),
    "lattice": ("float32", ("n_graphs", 3, 3)),
    "fingerprint": ("uint64", ("n_graphs", N_HASHES)),
    "atomic_number": ("uint8", ("n_atoms",)),
    "atom_multiplicity": ("float32", ("n_atoms",)),
    "site_node": ("int32", ("n_sites",)),
    "edge_index": ("int32", (2, "n_edges")),
    "distance": ("float32", ("n_edges",)),
    "edge_multiplicity": ("float32", ("n_edges",)),
    "global_features": ("float32", ("n_graphs", "n_global")),
    "site_features": ("float16", ("n_atoms", "n_site_features")),
}
COUNTS = ("n_atoms", "n_edges", "n_sites")


@dataclass(frozen=True, slots=True)
class CrystalGraphs:
    """One or many crystal graphs, concatenated.

    A compressed graph has fewer nodes (n_atoms) than atoms in the cell (n_sites). Edges are sorted
    by center. Indices in `edge_index` and `site_node` start at 0 in each crystal.
    """

    n_atoms: Array  # [n_graphs] int32
    n_edges: Array  # [n_graphs] int32
    n_sites: Array  # [n_graphs] int32
    lattice: Array  # [n_graphs, 3, 3] float32, Å
    fingerprint: Array  # [n_graphs, N_HASHES] uint64, equal crystals agree in one column
    atomic_number: Array  # [n_atoms] uint8
    atom_multiplicity: Array  # [n_atoms] float32, number of sites of the node
    site_features: Array  # [n_atoms, n_site_features] float16, mean over the sites of the node
    site_node: Array  # [n_sites] int32, node of the site
    edge_index: Array  # [2, n_edges] int32, (neighbor, center)
    distance: Array  # [n_edges] float32, Å
    edge_multiplicity: Array  # [n_edges] float32, number of equal neighbors of one site
    global_features: Array  # [n_graphs, n_global] float32, descriptors of the whole crystal

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def n_isolated(self) -> Array:
        """Number of sites without a neighbor within the cutoff, per crystal: [n_graphs]."""
        first_atom = np.cumsum(self.n_atoms) - self.n_atoms
        center = self.edge_index[1] + np.repeat(first_atom, self.n_edges)
        is_isolated = np.bincount(center, minlength=len(self.atomic_number)) == 0
        graph = np.repeat(np.arange(len(self)), self.n_atoms)
        sites = np.bincount(graph, self.atom_multiplicity * is_isolated, minlength=len(self))
        return sites.astype(np.int64)

    def blocks(self, size: int = 2**14) -> Iterator["CrystalGraphs"]:
        """Yield parts of up to `size` crystals each, in order."""
        first = dict.fromkeys(COUNTS, 0)
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            n_new = {name: int(getattr(self, name)[rows].sum(dtype=np.int64)) for name in COUNTS}
            end = {name: first[name] + n_new[name] for name in COUNTS}
            part = {}
            for name, (_, shape) in LAYOUT.items():
                axis = joined_axis(name)
                count = str(shape[axis])
                where = slice(first[count], end[count]) if count in first else rows
                part[name] = getattr(self, name)[(slice(None),) * axis + (where,)]
            yield CrystalGraphs(**part)
            first = end

    def take(self, rows: Array) -> "CrystalGraphs":
        """Return the graphs of some crystals [n_rows], in this order; one may occur repeatedly."""
        where = {"n_graphs": rows}
        for count in COUNTS:
            n = getattr(self, count).astype(np.int64)
            first, length = (np.cumsum(n) - n)[rows], n[rows]
            shift = first - (np.cumsum(length) - length)
            where[count] = np.arange(length.sum()) + np.repeat(shift, length)
        taken = {}
        for name, (_, shape) in LAYOUT.items():
            axis = joined_axis(name)
            taken[name] = np.take(getattr(self, name), where[str(shape[axis])], axis)
        return CrystalGraphs(**taken)

    @classmethod
    def concatenate(cls, parts: Sequence["CrystalGraphs"]) -> "CrystalGraphs":
        """Concatenate graphs."""
        joined = {}
        for name in LAYOUT:
            arrays = [getattr(part, name) for part in parts]
            joined[name] = np.concatenate(arrays, axis=joined_axis(name))
        return cls(**joined)


def joined_axis(name: str) -> int:
    """Return the axis of an array along which crystals follow each other."""
    return 1 if name == "edge_index" else 0


class NeighborList(NamedTuple):
    """Pairs of neighbors in a crystal, and descriptors of the whole crystal."""

    center: Array  # [n_pairs] int64
    neighbor: Array  # [n_pairs] int64
    distance: Array  # [n_pairs] float64, Å
    global_features: Array  # [n_global] float32


def connect(crystals: Sequence[Crystal], settings: GraphSettings) -> CrystalGraphs:
    """Return the graphs of crystals.

    Args:
        crystals: The crystals.
        settings: Cutoff, shells, compression and descriptors.

    Raises:
        StructureError: Two atoms of a crystal have the same position, or it has too many neighbors.
    """
    known = search_together(crystals, settings)
    found = [
        find_neighbors(crystal, settings, pairs)
        for crystal, pairs in zip(crystals, known, strict=False)
    ]
    return to_graphs(crystals, found, settings, site_features(crystals, settings))


def search_together(crystals: Sequence[Crystal], settings: GraphSettings) -> Iterator[Pairs | None]:
    """Yield the pairs of small crystals, which takes half the time of a search of each alone.

    Args:
        crystals: The crystals.
        settings: Cutoff and shells.

    Yields:
        The pairs of each crystal, or None if `find_neighbors` must search it.
    """
    try:
        yield from search_small_cells(
            crystals, settings.cutoff, settings.max_neighbors, settings.shells == "truncate"
        )
    except Exception:
        # A malformed crystal: `find_neighbors` raises the error for this one only.
        yield from repeat(None, len(crystals))


def find_neighbors(
    crystal: Crystal, settings: GraphSettings, pairs: Pairs | None = None
) -> NeighborList:
    """Find the neighbors and compute the descriptors of one crystal.

    Args:
        crystal: The crystal.
        settings: Cutoff, shells and descriptors.
        pairs: Its pairs, if `search_together` found them.

    Raises:
        StructureError: Two atoms have the same position, or there are too many neighbors, or too
            many sites for a descriptor.
    """
    n_sites = len(crystal.atomic_number)
    needs_symmetry = not {"lattice", "symmetry"}.isdisjoint(settings.global_features)
    if n_sites > MAX_SYMMETRY_SITES and needs_symmetry:
        raise StructureError(
            f"it has {n_sites} sites; graph.global_features=lattice and symmetry are found for up "
            f"to {MAX_SYMMETRY_SITES}, as the time grows with the third power of the sites"
        )
    if pairs is None:
        # The order of equally distant neighbors, and so which are truncated, depends on the radius.
        whole_cutoff = settings.shells == "truncate"
        pairs = search_neighbors(crystal, settings.cutoff, settings.max_neighbors, whole_cutoff)
    return NeighborList(*pairs, descriptors(crystal, settings.global_features))


def to_graphs(
    crystals: Sequence[Crystal],
    found: Sequence[NeighborList],
    settings: GraphSettings,
    features: Sequence[Array],
) -> CrystalGraphs:
    """Return the graphs of crystals: nearest shells kept, equivalent atoms merged.

    Args:
        crystals: The crystals.
        found: Their neighbors, from `find_neighbors` with the same settings.
        settings: Shells and compression.
        features: Their site features [n_sites, n_site_features], from `site_features`.
    """
    n_sites = np.array([len(c.atomic_number) for c in crystals], dtype=np.int64)
    first_site = np.cumsum(n_sites) - n_sites
    graph = np.repeat(np.arange(len(crystals)), [len(one.center) for one in found])
    center, neighbor, distance = (
        np.concatenate(column) for column in list(zip(*found, strict=True))[:3]
    )
    center, neighbor = center + first_site[graph], neighbor + first_site[graph]
    fingerprint = fingerprints(crystals, (center, neighbor, distance), settings)
    nearest = _nearest(center, neighbor, distance, int(n_sites.sum()), settings)
    center, neighbor, distance = center[nearest], neighbor[nearest], distance[nearest]

    atomic_number = np.concatenate([c.atomic_number for c in crystals])
    graph_of_site = np.repeat(np.arange(len(crystals)), n_sites)
    if settings.compress:
        cluster = cluster_distances(distance, graph_of_site[center])
        site_node, edges = merge_equivalent(
            graph_of_site, atomic_number, center, neighbor, distance, cluster
        )
        (neighbor, center), distance, edge_multiplicity = edges
        _, first_site_of_node, multiplicity = np.unique(
            site_node, return_index=True, return_counts=True
        )
    else:
        site_node = first_site_of_node = np.arange(len(atomic_number))
        multiplicity = np.ones(len(atomic_number), dtype=np.int64)
        edge_multiplicity = np.ones(len(distance))

    graph_of_atom = graph_of_site[first_site_of_node]
    n_atoms = np.bincount(graph_of_atom, minlength=len(crystals))
    first_atom = np.cumsum(n_atoms) - n_atoms
    graph_of_edge = graph_of_atom[center]
    return CrystalGraphs(
        n_atoms=n_atoms.astype(np.int32),
        n_edges=np.bincount(graph_of_edge, minlength=len(crystals)).astype(np.int32),
        n_sites=n_sites.astype(np.int32),
        lattice=np.concatenate([c.lattice for c in crystals], dtype=np.float32).reshape(-1, 3, 3),
        fingerprint=fingerprint,
        atomic_number=atomic_number[first_site_of_node],
        atom_multiplicity=multiplicity.astype(np.float32),
        site_features=_mean_of_nodes(np.concatenate(features), site_node, multiplicity),
        site_node=(site_node - first_atom[graph_of_site]).astype(np.int32),
        edge_index=(np.stack([neighbor, center]) - first_atom[graph_of_edge]).astype(np.int32),
        distance=distance.astype(np.float32),
        edge_multiplicity=edge_multiplicity.astype(np.float32),
        global_features=np.stack([one.global_features for one in found]),
    )


def _mean_of_nodes(features: Array, site_node: Array, multiplicity: Array) -> Array:
    """Return the mean of features over the sites of each node: [n_nodes, n_features] float16."""
    if len(multiplicity) == len(site_node):
        return features
    total = np.zeros((len(multiplicity), features.shape[1]), np.float32)
    np.add.at(total, site_node, features)
    return (total / multiplicity[:, None]).astype(np.float16)


def _nearest(
    center: Array, neighbor: Array, distance: Array, n_sites: int, settings: GraphSettings
) -> Array:
    """Return the positions of each atom's nearest neighbors, sorted by center and distance."""
    truncate = settings.shells == "truncate"
    # Truncated, equally distant neighbors stay in the order in which they were found.
    tie = np.arange(len(center)) if truncate else neighbor
    order = order_of(center, dense_rank(distance), tie)
    center, distance = center[order], distance[order]
    count = np.bincount(center, minlength=n_sites)
    first = np.cumsum(count) - count
    if truncate:
        keep = np.arange(len(center)) - first[center] < settings.max_neighbors
    else:
        limit = np.full(n_sites, np.inf)
        full = count >= settings.max_neighbors
        limit[full] = distance[first[full] + settings.max_neighbors - 1] + SHELL_TOLERANCE
        keep = distance <= limit[center]
    return order[keep]
