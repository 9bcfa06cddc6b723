"""Crystals in, graphs out: which atoms are neighbours of which, at what distance, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.compression import merge_equivalent
from csgcnn.crystals.descriptors import descriptors
from csgcnn.crystals.structures import Crystal
from csgcnn.errors import StructureError

SHELL_TOLERANCE = 0.01  # Å: distances closer than this belong to one shell of neighbours
CLASH = 0.01  # Å: two atoms closer than this are one atom written twice

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """How a crystal becomes a graph; part of the cache key and of every checkpoint.

    `cutoff` in Å; `shells="complete"` keeps every neighbour up to the shell of the `max_neighbors`-th, so the graph
    does not depend on the choice of cell; `shells="truncate"` keeps the `max_neighbors` nearest exactly, as CGCNN
    does, cutting through shells; `compress` merges symmetry-equivalent atoms and edges (lossless); `global_features`
    are those of `lattice`, `symmetry` and `composition` that `descriptors` gives of the whole crystal; `vectors` keeps
    the direction of every edge, which only noise on coordinates needs, and excludes `compress`.
    """

    cutoff: float = 8.0
    max_neighbors: int = 12
    shells: str = "complete"
    compress: bool = True
    global_features: tuple[str, ...] = ()
    vectors: bool = False

    def __post_init__(self) -> None:
        names = (self.global_features,) if isinstance(self.global_features, str) else self.global_features
        object.__setattr__(self, "global_features", tuple(sorted({*(names or ())} - {"none"})))


@dataclass(frozen=True, slots=True)
class CrystalGraphs:
    """One or many crystal graphs, laid end to end.

    Shapes: n_graphs crystals, n_sites atoms as read, n_atoms nodes (fewer than sites when compressed), n_edges edges.
    Edges are sorted by their centre. Node numbers in `edge_index` and `site_node` count from 0 in each crystal.
    """

    n_atoms: Array  # [n_graphs] int32
    n_edges: Array  # [n_graphs] int32
    n_sites: Array  # [n_graphs] int32
    lattice: Array  # [n_graphs, 3, 3] float32, Å
    fingerprint: Array  # [n_graphs] uint64, equal for structures that are duplicates
    atomic_number: Array  # [n_atoms] uint8
    atom_multiplicity: Array  # [n_atoms] float32, sites that the node stands for
    site_node: Array  # [n_sites] int32, node that stands for the site
    edge_index: Array  # [2, n_edges] int32, (neighbor, centre)
    distance: Array  # [n_edges] float32, Å
    edge_multiplicity: Array  # [n_edges] float32, equal neighbours that the edge stands for
    edge_vector: Array  # [n_edges, 3] float32, from centre to neighbor, Å; [n_edges, 0] unless asked for
    global_features: Array  # [n_graphs, n_global] float32, descriptors of the whole crystal

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def n_isolated(self) -> Array:
        """Sites without any neighbour within the cutoff, per crystal: [n_graphs]."""
        centre = self.edge_index[1] + np.repeat(np.cumsum(self.n_atoms) - self.n_atoms, self.n_edges)
        alone = self.atom_multiplicity * (np.bincount(centre, minlength=len(self.atomic_number)) == 0)
        graph = np.repeat(np.arange(len(self)), self.n_atoms)
        return np.bincount(graph, alone, minlength=len(self)).astype(np.int64)

    @classmethod
    def concatenate(cls, parts: Sequence["CrystalGraphs"]) -> "CrystalGraphs":
        """Lay several end to end."""
        return cls(
            *(
                np.concatenate([getattr(part, f.name) for part in parts], axis=1 if f.name == "edge_index" else 0)
                for f in fields(cls)
            )
        )


def connect(crystals: Sequence[Crystal], settings: GraphSettings) -> CrystalGraphs:
    """Turn crystals into graphs.

    Raises:
        StructureError: two atoms of a crystal lie on the same spot.
    """
    return assemble(crystals, [neighbors(crystal, settings) for crystal in crystals], settings)


def assemble(crystals: Sequence[Crystal], found: Sequence[tuple[Array, ...]], settings: GraphSettings) -> CrystalGraphs:
    """Turn crystals and what `neighbors` found for each into graphs: nearest shells kept, equivalent atoms merged."""
    n_sites = np.array([len(c.atomic_number) for c in crystals], dtype=np.int64)
    first_site = np.cumsum(n_sites) - n_sites
    graph = np.repeat(np.arange(len(crystals)), [len(centre) for centre, *_ in found])
    centre, neighbor, distance, vector = (np.concatenate(column) for column in zip(*found, strict=True))
    centre, neighbor = centre + first_site[graph], neighbor + first_site[graph]
    nearest = _nearest(centre, neighbor, distance, int(n_sites.sum()), settings)
    centre, neighbor, distance, vector = centre[nearest], neighbor[nearest], distance[nearest], vector[nearest]

    atomic_number = np.concatenate([c.atomic_number for c in crystals])
    graph_of_site = np.repeat(np.arange(len(crystals)), n_sites)
    if settings.compress:
        site_node, edges = merge_equivalent(graph_of_site, atomic_number, centre, neighbor, distance)
        (neighbor, centre), distance, edge_multiplicity = edges
        vector = np.empty((len(distance), 0))
        _, representative, multiplicity = np.unique(site_node, return_index=True, return_counts=True)
    else:
        site_node = representative = np.arange(len(atomic_number))
        multiplicity = np.ones(len(atomic_number), dtype=np.int64)
        edge_multiplicity = np.ones(len(distance))

    graph_of_atom = graph_of_site[representative]
    n_atoms = np.bincount(graph_of_atom, minlength=len(crystals))
    first_atom = np.cumsum(n_atoms) - n_atoms
    graph_of_edge = graph_of_atom[centre]
    return CrystalGraphs(
        n_atoms=n_atoms.astype(np.int32),
        n_edges=np.bincount(graph_of_edge, minlength=len(crystals)).astype(np.int32),
        n_sites=n_sites.astype(np.int32),
        lattice=np.stack([c.lattice for c in crystals]).astype(np.float32),
        fingerprint=np.array([_fingerprint(c) for c in crystals], dtype=np.uint64),
        atomic_number=atomic_number[representative],
        atom_multiplicity=multiplicity.astype(np.float32),
        site_node=(site_node - first_atom[graph_of_site]).astype(np.int32),
        edge_index=(np.stack([neighbor, centre]) - first_atom[graph_of_edge]).astype(np.int32),
        distance=distance.astype(np.float32),
        edge_multiplicity=edge_multiplicity.astype(np.float32),
        edge_vector=vector.astype(np.float32),
        global_features=np.stack([descriptors(c, settings.global_features) for c in crystals]),
    )


def neighbors(crystal: Crystal, settings: GraphSettings) -> tuple[Array, Array, Array, Array]:
    """Find at least every neighbour that the settings ask for.

    Returns centre, neighbor [n] int64, distance [n] float64 and vector [n, 3] (else [n, 0]) float64, in Å.

    The search starts at the radius that should hold twice `max_neighbors` at the crystal's density and grows, up to the
    cutoff, until every atom has its shell: the same result as searching the whole cutoff, for a fraction of the work.
    """
    n_atoms = len(crystal.atomic_number)
    volume_per_atom = abs(np.linalg.det(crystal.lattice)) / n_atoms
    radius = (volume_per_atom * 2 * settings.max_neighbors * 3 / (4 * np.pi)) ** (1 / 3)
    while True:
        radius = min(radius, settings.cutoff)
        centre, neighbor, distance, vector = _within(crystal, radius, settings.vectors)
        if radius == settings.cutoff:
            break
        safe = np.bincount(centre[distance < radius - 2 * SHELL_TOLERANCE], minlength=n_atoms)
        if safe.min() >= settings.max_neighbors:
            break
        radius *= 1.3
    if len(distance) and distance.min() < CLASH:
        clash = distance.argmin()
        pair = centre[clash] + 1, neighbor[clash] + 1
        raise StructureError(f"sites {min(pair)} and {max(pair)} lie on the same spot ({distance[clash]:.1e} Å apart)")
    return centre, neighbor, distance, vector


def _within(crystal: Crystal, radius: float, with_vectors: bool) -> tuple[Array, Array, Array, Array]:
    """All periodic neighbours within a radius, the atom itself (not its images) left out."""
    cart_coords = np.ascontiguousarray(crystal.frac_coords @ crystal.lattice)
    lattice = np.ascontiguousarray(crystal.lattice)
    centre, neighbor, image, distance = _search()(
        cart_coords, cart_coords, r=radius, pbc=np.ones(3, dtype=np.int64), lattice=lattice, tol=1e-8
    )
    other = (distance > 1e-8) | (centre != neighbor)
    centre, neighbor, distance = centre[other], neighbor[other], distance[other]
    if not with_vectors:
        return centre, neighbor, distance, np.empty((len(distance), 0))
    return centre, neighbor, distance, cart_coords[neighbor] + image[other] @ lattice - cart_coords[centre]


@cache
def _search() -> Any:
    from pymatgen.optimization.neighbors import find_points_in_spheres

    return find_points_in_spheres


def _fingerprint(crystal: Crystal) -> int:
    """Hash of the structure to 0.001, whatever the order of its sites."""
    frac_coords = np.round(crystal.frac_coords % 1, 3) % 1
    order = np.lexsort((*frac_coords.T, crystal.atomic_number))
    parts = (np.round(crystal.lattice, 3) + 0.0, crystal.atomic_number[order], frac_coords[order] + 0.0)
    return int.from_bytes(blake2b(b"".join(part.tobytes() for part in parts), digest_size=8).digest())


def _nearest(centre: Array, neighbor: Array, distance: Array, n_sites: int, settings: GraphSettings) -> Array:
    """Positions of each atom's nearest neighbours, sorted by centre, then distance."""
    order = np.lexsort((neighbor, distance, centre))
    centre, distance = centre[order], distance[order]
    count = np.bincount(centre, minlength=n_sites)
    first = np.cumsum(count) - count
    if settings.shells == "truncate":
        keep = np.arange(len(centre)) - first[centre] < settings.max_neighbors
    else:
        limit = np.full(n_sites, np.inf)
        full = count >= settings.max_neighbors
        limit[full] = distance[first[full] + settings.max_neighbors - 1] + SHELL_TOLERANCE
        keep = distance <= limit[centre]
    return order[keep]
