from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.compression import (
    MAX_CLUSTER_WIDTH,
    cluster_distances,
    merge_equivalent,
)
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import CrystalGraphs, connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL

FULL = GraphSettings(compress=False)
COMPRESSED = GraphSettings()

# Atomic number and fraction of the sites of the crystal.
Kind = tuple[int, float]
# Kind and number of edges of a node, and the sorted distances to its neighbors of each kind.
NodeDescription = tuple[tuple[int, float, int], dict[Kind, NDArray[np.float64]]]


def structure_of(crystal: Crystal) -> Structure:
    return Structure(Lattice(crystal.lattice), crystal.atomic_number.tolist(), crystal.frac_coords)


def supercell(crystal: Crystal, *times: int) -> Crystal:
    return to_crystal(structure_of(crystal) * times)


def neighbor_distances(
    graph: CrystalGraphs, node_of: NDArray[np.int64]
) -> list[dict[int, NDArray[np.float64]]]:
    """For each node, the sorted distances to its neighbors of each class `node_of` [n_atoms]."""
    found: list[dict[int, list[float]]] = [{} for _ in graph.atomic_number]
    for (neighbor, center), distance, times in zip(
        graph.edge_index.T.tolist(),
        graph.distance.tolist(),
        graph.edge_multiplicity.tolist(),
        strict=True,
    ):
        assert times == round(times)
        found[center].setdefault(int(node_of[neighbor]), []).extend([distance] * round(times))
    return [{node: np.sort(distances) for node, distances in one.items()} for one in found]


def assert_lossless(full: CrystalGraphs, compressed: CrystalGraphs) -> None:
    """The partition of the sites into nodes is equitable, and edges equal those of the sites."""
    node = compressed.site_node
    assert compressed.n_sites[0] == full.n_atoms[0] == len(node)
    assert (compressed.atomic_number[node] == full.atomic_number).all()
    assert (compressed.atom_multiplicity == np.bincount(node)).all()
    assert (np.diff(compressed.edge_index[1]) >= 0).all()
    stands_for = (
        compressed.edge_multiplicity * compressed.atom_multiplicity[compressed.edge_index[1]]
    )
    assert stands_for.sum() == full.n_edges[0]
    of_nodes = neighbor_distances(compressed, np.arange(compressed.n_atoms[0]))
    for site, of_site in enumerate(neighbor_distances(full, node)):
        of_node = of_nodes[node[site]]
        assert of_site.keys() == of_node.keys()
        for kind in of_site:
            assert len(of_site[kind]) == len(of_node[kind])
            assert np.abs(of_site[kind] - of_node[kind]).max() <= MAX_CLUSTER_WIDTH + 1e-6


def test_compression_of_real_crystals_is_lossless(real_crystals: dict[str, Crystal]) -> None:
    n_full, n_compressed = 0, 0
    for crystal in real_crystals.values():
        full, compressed = connect([crystal], FULL), connect([crystal], COMPRESSED)
        assert_lossless(full, compressed)
        n_full, n_compressed = n_full + len(full.distance), n_compressed + len(compressed.distance)
    assert n_full > 2 * n_compressed


@pytest.mark.parametrize(
    ("name", "nodes", "n_edges"),
    [
        ("fcc", [(29, 1)], 1),
        ("bcc", [(26, 1)], 2),
        ("diamond", [(14, 2)], 2),
        ("rock_salt", [(11, 1), (17, 1)], 4),
        ("rock_salt_conventional", [(11, 4), (17, 4)], 4),
        ("caesium_chloride", [(55, 1), (17, 1)], 4),
        ("perovskite", [(38, 1), (22, 1), (8, 3)], 6),
    ],
)
def test_textbook_crystals_have_one_node_per_kind_of_site(
    ideal_crystals: dict[str, Crystal], name: str, nodes: list[tuple[int, int]], n_edges: int
) -> None:
    graph = connect([ideal_crystals[name]], COMPRESSED)
    found = zip(graph.atomic_number.tolist(), graph.atom_multiplicity.tolist(), strict=True)
    assert Counter(found) == Counter(nodes)
    assert graph.n_edges.tolist() == [n_edges]


@pytest.mark.parametrize(("last", "n_nodes"), [("O", 4), ("N", 8), ("H", 8)])
def test_colors_travel_along_a_chain(last: str, n_nodes: int) -> None:
    """In a row of eight atoms 1 Å apart, the middle ones differ only three bonds away."""
    lattice = np.diag([9.0, 9.0, 20.0]).tolist()
    species = ["O", *"HHHHHH", last]
    chain = [[0, 0, 0.05 * position] for position in range(8)]
    crystal = to_crystal({"lattice": lattice, "species": species, "frac_coords": chain})
    full, compressed = (
        connect([crystal], GraphSettings(cutoff=1.5, compress=flag)) for flag in (False, True)
    )
    assert compressed.n_atoms.tolist() == [n_nodes]
    assert_lossless(full, compressed)


def test_crystals_without_symmetry_are_unchanged() -> None:
    rng = np.random.default_rng(0)
    lattice = np.diag([9.0, 9.5, 10.0]) + rng.normal(scale=0.5, size=(3, 3))
    crystal = Crystal(
        lattice, np.repeat(np.array([8, 14], dtype=np.uint8), 20), rng.uniform(size=(40, 3))
    )
    full, compressed = connect([crystal], FULL), connect([crystal], COMPRESSED)
    assert compressed.n_atoms.tolist() == [40]
    assert compressed.n_edges.tolist() == full.n_edges.tolist()
    assert set(compressed.edge_multiplicity.tolist()) == {1.0}
    np.testing.assert_allclose(compressed.distance.sum(), full.distance.sum(), rtol=1e-6)


def test_equal_crystals_of_one_call_are_not_merged_with_each_other(
    ideal_crystals: dict[str, Crystal],
) -> None:
    graphs = connect([ideal_crystals["rock_salt"]] * 3, COMPRESSED)
    assert graphs.n_atoms.tolist() == [2, 2, 2]
    assert graphs.atom_multiplicity.tolist() == [1] * 6
    assert graphs.edge_index.max() == 1


def test_a_long_chain_of_close_distances_is_split() -> None:
    """Of 200 distances 1.5e-4 Å apart, each merged one stays within the width of a cluster."""
    distance = 2 + 1.5e-4 * np.arange(200)
    center, neighbor = np.zeros(200, dtype=np.int64), np.zeros(200, dtype=np.int64)
    zero, carbon = np.zeros(1, dtype=np.int64), np.array([6])
    _, (_, merged, multiplicity) = merge_equivalent(
        zero, carbon, center, neighbor, distance, cluster_distances(distance, center)
    )
    nearest = np.abs(distance[:, None] - merged).min(axis=1)
    assert nearest.max() <= MAX_CLUSTER_WIDTH
    assert 30 <= len(merged) <= 60
    assert multiplicity.sum() == 200
    np.testing.assert_allclose((merged * multiplicity).sum(), distance.sum(), rtol=1e-12)


def all_edges(graphs: CrystalGraphs) -> tuple[NDArray[Any], ...]:
    """Arguments of `merge_equivalent` for graphs that are not compressed."""
    first_site = np.repeat(np.cumsum(graphs.n_sites) - graphs.n_sites, graphs.n_edges)
    neighbor, center = graphs.edge_index.astype(np.int64) + first_site
    graph_of_site = np.repeat(np.arange(len(graphs)), graphs.n_sites)
    return graph_of_site, graphs.atomic_number, center, neighbor, graphs.distance.astype(float)


def test_numbers_of_pairs_and_distances_do_not_overflow(
    real_crystals: dict[str, Crystal],
) -> None:
    """With the numbers of a million crystals, nodes squared times distances are above 2^63."""
    edges = all_edges(connect(list(real_crystals.values()), FULL))
    graph_of_site, _, center, _, distance = edges
    cluster = cluster_distances(distance, graph_of_site[center])
    site_node, expected = merge_equivalent(*edges, cluster)
    many = cluster << 36
    assert int(site_node.max() + 1) ** 2 * int(many.max()) > 2**63
    same_node, found = merge_equivalent(*edges, many)
    np.testing.assert_array_equal(same_node, site_node)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def describe_nodes(graph: CrystalGraphs) -> list[NodeDescription]:
    """Describe each node and its neighbors without node numbers."""
    fraction = np.round(graph.atom_multiplicity / graph.atom_multiplicity.sum(), 6).tolist()
    kind = list(zip(graph.atomic_number.tolist(), fraction, strict=True))
    described = []
    for node in range(len(kind)):
        edges = np.flatnonzero(graph.edge_index[1] == node)
        distances: dict[Kind, list[float]] = {}
        for edge in edges.tolist():
            equal = [float(graph.distance[edge])] * round(float(graph.edge_multiplicity[edge]))
            distances.setdefault(kind[graph.edge_index[0, edge]], []).extend(equal)
        ordered = {key: np.sort(values) for key, values in distances.items()}
        described.append(((*kind[node], len(edges)), ordered))
    return described


def are_equal(node: NodeDescription, other: NodeDescription, tolerance: float) -> bool:
    if node[0] != other[0] or node[1].keys() != other[1].keys():
        return False
    pairs = [(values, other[1][kind]) for kind, values in node[1].items()]
    return all(len(a) == len(b) and np.abs(a - b).max() < tolerance for a, b in pairs)


def assert_same_graph(
    found: CrystalGraphs, expected: CrystalGraphs, tolerance: float = 5e-5
) -> None:
    """The graphs are equal but for the numbering of nodes and the number of cells."""
    left = describe_nodes(expected)
    for node in describe_nodes(found):
        equal = (i for i, other in enumerate(left) if are_equal(node, other, tolerance))
        match = next(equal, None)
        assert match is not None, f"no node of the other graph equals {node}"
        del left[match]
    assert not left, f"{len(left)} nodes are missing"


@pytest.mark.parametrize("transform", SAME_CRYSTAL)
def test_the_graph_does_not_depend_on_the_description_of_the_crystal(
    ideal_crystals: dict[str, Crystal], real_crystals: dict[str, Crystal], transform: str
) -> None:
    rng = np.random.default_rng(0)
    chosen = [crystal for crystal in real_crystals.values() if len(crystal.atomic_number) <= 12][
        ::4
    ]
    for crystal in [*ideal_crystals.values(), *chosen]:
        other = SAME_CRYSTAL[transform](crystal, rng)
        assert other is not None
        assert_same_graph(connect([other], COMPRESSED), connect([crystal], COMPRESSED))


def test_primitive_and_conventional_cells_give_one_graph(
    ideal_crystals: dict[str, Crystal],
) -> None:
    primitive, conventional = ideal_crystals["rock_salt"], ideal_crystals["rock_salt_conventional"]
    assert len(conventional.atomic_number) == 8
    assert_same_graph(connect([conventional], COMPRESSED), connect([primitive], COMPRESSED))


@st.composite
def supercells(draw: st.DrawFn) -> tuple[Crystal, Crystal, int]:
    """A random small crystal, and the same in a supercell with its sites in another order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    species = draw(st.lists(st.sampled_from([1, 8, 26]), min_size=1, max_size=4))
    times = draw(st.sampled_from([(1, 1, 2), (1, 3, 1), (2, 2, 1), (2, 1, 3), (2, 2, 2)]))
    lattice = np.diag(rng.uniform(2.5, 6, 3)) + rng.uniform(-1, 1, (3, 3))
    cell = Crystal(
        lattice, np.array(species, dtype=np.uint8), rng.uniform(-1, 2, (len(species), 3))
    )
    large = supercell(cell, *times)
    order = rng.permutation(len(large.atomic_number))
    shuffled = large._replace(
        atomic_number=large.atomic_number[order], frac_coords=large.frac_coords[order]
    )
    return cell, shuffled, int(np.prod(times))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(supercells())
def test_a_supercell_compresses_to_its_cell(cells: tuple[Crystal, Crystal, int]) -> None:
    cell, large, n_cells = cells
    small, compressed = connect([cell], COMPRESSED), connect([large], COMPRESSED)
    assert_lossless(connect([cell], FULL), small)
    assert_lossless(connect([large], FULL), compressed)
    assert compressed.n_edges.tolist() == small.n_edges.tolist()
    for name in ("atomic_number", "distance"):
        np.testing.assert_allclose(
            np.sort(getattr(compressed, name)), np.sort(getattr(small, name)), rtol=0, atol=2e-5
        )
    assert sorted(compressed.atom_multiplicity) == sorted(small.atom_multiplicity * n_cells)
