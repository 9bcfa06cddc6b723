"""Crystals in, graphs out: which atoms are neighbors of which, at what distance, and how often."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.compression import merge_equivalent
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.descriptors import descriptors
from csgcnn.crystals.neighbors import SHELL_TOLERANCE, neighbors
from csgcnn.errors import StructureError

MOST_SYMMETRIC_SITES = 2500  # some seconds for spglib

Array = NDArray[Any]


# Which number of a crystal says how much of an array is its part; of the other arrays it is one row.
_COUNTED_BY = {
    "atomic_number": "n_atoms",
    "atom_multiplicity": "n_atoms",
    "site_node": "n_sites",
    "edge_index": "n_edges",
    "distance": "n_edges",
    "edge_multiplicity": "n_edges",
}


@dataclass(frozen=True, slots=True)
class CrystalGraphs:
    """One or many crystal graphs, laid end to end.

    Shapes: n_graphs crystals, n_sites atoms as read, n_atoms nodes (fewer than sites when compressed), n_edges edges.
    Edges are sorted by their center. Node numbers in `edge_index` and `site_node` count from 0 in each crystal.
    """

    n_atoms: Array  # [n_graphs] int32
    n_edges: Array  # [n_graphs] int32
    n_sites: Array  # [n_graphs] int32
    lattice: Array  # [n_graphs, 3, 3] float32, Å
    fingerprint: Array  # [n_graphs] uint64, equal for structures that are duplicates
    atomic_number: Array  # [n_atoms] uint8
    atom_multiplicity: Array  # [n_atoms] float32, sites that the node stands for
    site_node: Array  # [n_sites] int32, node that stands for the site
    edge_index: Array  # [2, n_edges] int32, (neighbor, center)
    distance: Array  # [n_edges] float32, Å
    edge_multiplicity: Array  # [n_edges] float32, equal neighbors that the edge stands for
    global_features: Array  # [n_graphs, n_global] float32, descriptors of the whole crystal

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def n_isolated(self) -> Array:
        """Sites without any neighbor within the cutoff, per crystal: [n_graphs]."""
        center = self.edge_index[1] + np.repeat(
            np.cumsum(self.n_atoms) - self.n_atoms, self.n_edges
        )
        alone = self.atom_multiplicity * (
            np.bincount(center, minlength=len(self.atomic_number)) == 0
        )
        graph = np.repeat(np.arange(len(self)), self.n_atoms)
        return np.bincount(graph, alone, minlength=len(self)).astype(np.int64)

    def blocks(self, size: int = 2**14) -> Iterator["CrystalGraphs"]:
        """Slices of up to `size` crystals each, in order."""
        first = dict.fromkeys(("n_atoms", "n_edges", "n_sites"), 0)
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            last = {
                name: first[name] + int(getattr(self, name)[part].sum(dtype=np.int64))
                for name in first
            }
            within = {name: slice(first[name], last[name]) for name in first}
            own = {f.name: within.get(_COUNTED_BY.get(f.name, ""), part) for f in fields(self)}
            yield CrystalGraphs(
                **{
                    name: self.edge_index[:, where]
                    if name == "edge_index"
                    else getattr(self, name)[where]
                    for name, where in own.items()
                }
            )
            first = last

    @classmethod
    def concatenate(cls, parts: Sequence["CrystalGraphs"]) -> "CrystalGraphs":
        """Lay several end to end."""
        return cls(
            *(
                np.concatenate(
                    [getattr(part, f.name) for part in parts],
                    axis=1 if f.name == "edge_index" else 0,
                )
                for f in fields(cls)
            )
        )


def connect(crystals: Sequence[Crystal], settings: GraphSettings) -> CrystalGraphs:
    """Turn crystals into graphs.

    Raises:
        StructureError: two atoms of a crystal lie on the same spot, or it has too many neighbors.
    """
    return to_graphs(crystals, [measure(crystal, settings) for crystal in crystals], settings)


class NeighborList(NamedTuple):
    """What is found of one crystal alone: pairs of neighbors, and descriptors of the whole."""

    center: Array  # [n_pairs] int64
    neighbor: Array  # [n_pairs] int64
    distance: Array  # [n_pairs] float64, Å
    features: Array  # [n_global] float32


def measure(crystal: Crystal, settings: GraphSettings) -> NeighborList:
    """Find the neighbors and the descriptors of a crystal.

    Raises:
        StructureError: two atoms lie on the same spot, or there are too many neighbors, or sites for a descriptor.
    """
    n_sites = len(crystal.atomic_number)
    if n_sites > MOST_SYMMETRIC_SITES and not {"lattice", "symmetry"}.isdisjoint(
        settings.global_features
    ):
        raise StructureError(
            f"it has {n_sites} sites; graph.global_features=lattice and symmetry are found for up to "
            f"{MOST_SYMMETRIC_SITES}, as the time to find the symmetry grows with the third power of the sites"
        )
    everyone = (
        settings.shells == "truncate"
    )  # among equally near neighbors the order depends on the radius searched
    pairs = neighbors(crystal, settings.cutoff, settings.max_neighbors, everyone)
    return NeighborList(*pairs, descriptors(crystal, settings.global_features))


def to_graphs(
    crystals: Sequence[Crystal], found: Sequence[NeighborList], settings: GraphSettings
) -> CrystalGraphs:
    """Turn crystals and what was measured of each into graphs: nearest shells kept, equivalent atoms merged."""
    n_sites = np.array([len(c.atomic_number) for c in crystals], dtype=np.int64)
    first_site = np.cumsum(n_sites) - n_sites
    graph = np.repeat(np.arange(len(crystals)), [len(one.center) for one in found])
    center, neighbor, distance = (
        np.concatenate(column) for column in list(zip(*found, strict=True))[:3]
    )
    center, neighbor = center + first_site[graph], neighbor + first_site[graph]
    nearest = _nearest(center, neighbor, distance, int(n_sites.sum()), settings)
    center, neighbor, distance = center[nearest], neighbor[nearest], distance[nearest]

    atomic_number = np.concatenate([c.atomic_number for c in crystals])
    graph_of_site = np.repeat(np.arange(len(crystals)), n_sites)
    if settings.compress:
        site_node, edges = merge_equivalent(
            graph_of_site, atomic_number, center, neighbor, distance
        )
        (neighbor, center), distance, edge_multiplicity = edges
        _, representative, multiplicity = np.unique(
            site_node, return_index=True, return_counts=True
        )
    else:
        site_node = representative = np.arange(len(atomic_number))
        multiplicity = np.ones(len(atomic_number), dtype=np.int64)
        edge_multiplicity = np.ones(len(distance))

    graph_of_atom = graph_of_site[representative]
    n_atoms = np.bincount(graph_of_atom, minlength=len(crystals))
    first_atom = np.cumsum(n_atoms) - n_atoms
    graph_of_edge = graph_of_atom[center]
    return CrystalGraphs(
        n_atoms=n_atoms.astype(np.int32),
        n_edges=np.bincount(graph_of_edge, minlength=len(crystals)).astype(np.int32),
        n_sites=n_sites.astype(np.int32),
        lattice=np.stack([c.lattice for c in crystals]).astype(np.float32),
        fingerprint=np.array([_fingerprint(c) for c in crystals], dtype=np.uint64),
        atomic_number=atomic_number[representative],
        atom_multiplicity=multiplicity.astype(np.float32),
        site_node=(site_node - first_atom[graph_of_site]).astype(np.int32),
        edge_index=(np.stack([neighbor, center]) - first_atom[graph_of_edge]).astype(np.int32),
        distance=distance.astype(np.float32),
        edge_multiplicity=edge_multiplicity.astype(np.float32),
        global_features=np.stack([one.features for one in found]),
    )


def _fingerprint(crystal: Crystal) -> int:
    """Hash of the structure to 0.001, whatever the order of its sites."""
    frac_coords = np.round(crystal.frac_coords % 1, 3) % 1
    order = np.lexsort((*frac_coords.T, crystal.atomic_number))
    parts = (
        np.round(crystal.lattice, 3) + 0.0,
        crystal.atomic_number[order],
        frac_coords[order] + 0.0,
    )
    return int.from_bytes(
        blake2b(b"".join(part.tobytes() for part in parts), digest_size=8).digest()
    )


def _nearest(
    center: Array, neighbor: Array, distance: Array, n_sites: int, settings: GraphSettings
) -> Array:
    """Positions of each atom's nearest neighbors, sorted by center, then distance."""
    is_cut = (
        settings.shells == "truncate"
    )  # then equally near neighbors stay in the order they were found in
    order = np.lexsort((distance, center) if is_cut else (neighbor, distance, center))
    center, distance = center[order], distance[order]
    count = np.bincount(center, minlength=n_sites)
    first = np.cumsum(count) - count
    if is_cut:
        keep = np.arange(len(center)) - first[center] < settings.max_neighbors
    else:
        limit = np.full(n_sites, np.inf)
        full = count >= settings.max_neighbors
        limit[full] = distance[first[full] + settings.max_neighbors - 1] + SHELL_TOLERANCE
        keep = distance <= limit[center]
    return order[keep]
