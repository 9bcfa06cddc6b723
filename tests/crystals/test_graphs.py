from itertools import product

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import SHELL_TOLERANCE, CrystalGraphs, connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError

FULL = GraphSettings(compress=False)
COMPRESSED = GraphSettings()

Edges = list[tuple[int, int, float]]  # (center, neighbor, distance)


def crystal_of(lattice: object, species: list[str], frac_coords: object) -> Crystal:
    return to_crystal(
        {"lattice": lattice, "species": species, "frac_coords": np.array(frac_coords).tolist()}
    )


def structure_of(crystal: Crystal) -> Structure:
    return Structure(Lattice(crystal.lattice), crystal.atomic_number.tolist(), crystal.frac_coords)


def coordination(graph: CrystalGraphs) -> list[int]:
    """Neighbors of each node, multiplicities counted."""
    total = np.bincount(
        graph.edge_index[1], graph.edge_multiplicity, minlength=len(graph.atomic_number)
    )
    return total.astype(int).tolist()


def edges_of(graph: CrystalGraphs) -> Edges:
    neighbor, center = graph.edge_index.tolist()
    return list(zip(center, neighbor, graph.distance.tolist(), strict=True))


def all_pairs(crystal: Crystal, cutoff: float) -> Edges:
    """Every neighbor within the cutoff, found by trying every image of every atom."""
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    spread = np.ptp(crystal.frac_coords, axis=0)
    reach = np.ceil(cutoff / heights + spread).astype(int)
    images = np.array(list(product(*(range(-n, n + 1) for n in reach))))
    shift = crystal.frac_coords[None, :, None] - crystal.frac_coords[:, None, None] + images
    distance = np.linalg.norm(shift @ crystal.lattice, axis=-1)
    distance[np.eye(len(distance), dtype=bool)[..., None] & ~images.any(axis=1)] = np.inf
    center, neighbor, image = np.nonzero(distance <= cutoff)
    return list(
        zip(
            center.tolist(),
            neighbor.tolist(),
            distance[center, neighbor, image].tolist(),
            strict=True,
        )
    )


def pymatgen_pairs(crystal: Crystal, cutoff: float) -> Edges:
    center, neighbor, _, distance = structure_of(crystal).get_neighbor_list(cutoff)
    return list(zip(center.tolist(), neighbor.tolist(), distance.tolist(), strict=True))


def complete_shells(pairs: Edges, max_neighbors: int) -> Edges:
    """Each atom's neighbors up to the shell of the `max_neighbors`-th."""
    kept = []
    for atom in {center for center, *_ in pairs}:
        own = sorted((pair for pair in pairs if pair[0] == atom), key=lambda pair: pair[2])
        limit = own[min(max_neighbors, len(own)) - 1][2] + SHELL_TOLERANCE
        kept += [pair for pair in own if len(own) < max_neighbors or pair[2] <= limit]
    return kept


def assert_same_edges(found: Edges, expected: Edges, tolerance: float = 2e-6) -> None:
    found, expected = sorted(found), sorted(expected)
    assert [edge[:2] for edge in found] == [edge[:2] for edge in expected]
    np.testing.assert_allclose(
        [edge[2] for edge in found],
        [edge[2] for edge in expected],
        rtol=0,
        atol=tolerance,
        equal_nan=False,
    )


@pytest.mark.parametrize(
    ("name", "max_neighbors", "expected"),
    [
        ("simple_cubic", 6, [6]),
        ("simple_cubic", 12, [18]),
        ("fcc", 12, [12]),
        ("fcc", 13, [18]),
        ("bcc", 8, [8]),
        ("bcc", 12, [14]),
        ("diamond", 4, [4, 4]),
        ("diamond", 12, [16, 16]),
        ("rock_salt", 6, [6, 6]),
        ("rock_salt", 12, [18, 18]),
        ("caesium_chloride", 8, [8, 8]),
        ("caesium_chloride", 12, [14, 14]),
        ("perovskite", 12, [12, 14, 14, 14, 14]),
        ("perovskite", 1, [12, 6, 2, 2, 2]),
    ],
)
def test_complete_shells_of_textbook_crystals(
    ideal_crystals: dict[str, Crystal], name: str, max_neighbors: int, expected: list[int]
) -> None:
    crystal = ideal_crystals[name]
    full = connect([crystal], GraphSettings(max_neighbors=max_neighbors, compress=False))
    assert coordination(full) == expected
    compressed = connect([crystal], GraphSettings(max_neighbors=max_neighbors))
    assert np.array(coordination(compressed))[compressed.site_node].tolist() == expected


def test_shells_of_rock_salt_have_the_known_distances(ideal_crystals: dict[str, Crystal]) -> None:
    graph = connect([ideal_crystals["rock_salt"]], COMPRESSED)
    assert graph.n_atoms.tolist() == [2]
    assert graph.edge_index.T.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert graph.edge_multiplicity.tolist() == [12, 6, 6, 12]
    np.testing.assert_allclose(
        graph.distance, np.array([2**-0.5, 0.5, 0.5, 2**-0.5]) * 5.64, atol=1e-5
    )


def test_complete_shells_equal_a_search_of_the_whole_cutoff(
    real_crystals: dict[str, Crystal],
) -> None:
    assert len(real_crystals) > 110
    for crystal in real_crystals.values():
        assert_same_edges(
            edges_of(connect([crystal], FULL)), complete_shells(pymatgen_pairs(crystal, 8.0), 12)
        )


def test_truncated_shells_are_the_original_cgcnn_graph(real_crystals: dict[str, Crystal]) -> None:
    settings = GraphSettings(shells="truncate", compress=False)
    for crystal in list(real_crystals.values())[::3]:
        graph = connect([crystal], settings)
        originals = structure_of(crystal).get_all_neighbors(8, include_index=True)
        expected = [
            sorted(original, key=lambda neighbor: neighbor.nn_distance)[:12]
            for original in originals
        ]
        for site, nearest in enumerate(expected):
            of_site = graph.edge_index[1] == site
            distances = np.array([neighbor.nn_distance for neighbor in nearest])
            np.testing.assert_allclose(graph.distance[of_site], distances, rtol=0, atol=2e-6)
            # Of neighbors as distant as the last one, rounding decides which are kept.
            inner = distances < distances[-1] - 1e-4
            found, expected_neighbors = (
                graph.edge_index[0][of_site],
                np.array([neighbor.index for neighbor in nearest]),
            )
            assert sorted(found[inner]) == sorted(expected_neighbors[inner])


@pytest.mark.parametrize("max_neighbors", [1, 5, 12, 40])
@pytest.mark.parametrize(
    ("lattice", "frac_coords"),
    [
        (np.diag([2.4, 2.4, 60.0]), [[0, 0, 0], [0.5, 0.5, 0.01]]),
        (np.diag([70.0, 1.7, 65.0]), [[0.3, 0, 0.9], [0.32, 0.5, 0.9]]),
        (np.diag([25.0, 24.0, 2.1]), [[0, 0, 0], [0.1, 0, 0.5]]),
        ([[3.0, 0, 0], [8.7, 1.9, 0], [-7.1, 5.2, 3.3]], [[0.1, 0.2, 0.3], [0.6, 0.1, 0.9]]),
        ([[4.0, 0, 0], [3.8, 0.8, 0], [0.1, 0.3, 9.0]], [[0.1, 0.2, 0.3], [0.6, 0.5, 0.6]]),
        ([[0, 0, 3.1], [0, 4.2, 0.3], [5.5, 0.2, 0]], [[-3.2, 7.9, 0.4], [12.7, -0.5, -41.1]]),
    ],
    ids=["long", "chain", "rod", "skewed", "flat", "left-handed and far outside"],
)
def test_unusual_cells_equal_trying_every_image(
    lattice: object, frac_coords: object, max_neighbors: int
) -> None:
    crystal = crystal_of(np.array(lattice).tolist(), ["Al", "O"], frac_coords)
    graph = connect(
        [crystal], GraphSettings(max_neighbors=max_neighbors, cutoff=6.5, compress=False)
    )
    assert_same_edges(edges_of(graph), complete_shells(all_pairs(crystal, 6.5), max_neighbors))


def test_a_shell_across_the_first_search_radius_is_kept_whole() -> None:
    """The search for one neighbor starts at 3 Å, between the halves of its shell."""
    a, b = 2.998, 3.004
    c = 3.0**3 * 4 * np.pi / (3 * 2 * a * b)
    crystal = crystal_of(np.diag([a, b, c]).tolist(), ["Po"], [[0, 0, 0]])
    assert coordination(connect([crystal], GraphSettings(max_neighbors=1))) == [4]


def test_large_cells(ideal_structures: dict[str, Structure]) -> None:
    cell = ideal_structures["rock_salt_conventional"] * (5, 5, 2)
    compressed = connect([to_crystal(cell)], COMPRESSED)
    assert compressed.n_sites.tolist() == [400]
    assert compressed.atom_multiplicity.tolist() == [200, 200]
    assert sorted(compressed.edge_multiplicity.tolist()) == [6, 6, 12, 12]
    crystal = to_crystal(cell)
    noise = np.random.default_rng(0).normal(scale=0.01, size=crystal.frac_coords.shape)
    crystal = crystal._replace(frac_coords=crystal.frac_coords + noise)
    graph = connect([crystal], FULL)
    assert graph.n_atoms.tolist() == [400]
    assert_same_edges(edges_of(graph), complete_shells(pymatgen_pairs(crystal, 8.0), 12))


def test_an_atom_neighbors_its_own_images(ideal_crystals: dict[str, Crystal]) -> None:
    full = connect([ideal_crystals["fcc"]], FULL)
    assert full.edge_index.tolist() == [[0] * 12, [0] * 12]
    compressed = connect([ideal_crystals["fcc"]], COMPRESSED)
    assert compressed.edge_index.tolist() == [[0], [0]]
    assert compressed.edge_multiplicity.tolist() == [12]
    np.testing.assert_allclose([*full.distance, *compressed.distance], 3.61 / np.sqrt(2), atol=1e-6)


def test_parallel_edges_are_kept() -> None:
    crystal = crystal_of(
        np.diag([3.0, 4.0, 5.0]).tolist(), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.25, 0]]
    )
    graph = connect([crystal], GraphSettings(cutoff=3.5, compress=False))
    from_sodium = sorted(
        distance for center, neighbor, distance in edges_of(graph) if (center, neighbor) == (0, 1)
    )
    np.testing.assert_allclose(
        from_sodium, [np.hypot(1.5, 1)] * 2 + [np.hypot(1.5, 3)] * 2, atol=1e-6
    )


@pytest.mark.parametrize("shells", ["complete", "truncate"])
def test_atoms_with_few_neighbors_get_no_other_edges(shells: str) -> None:
    crystal = crystal_of((np.eye(3) * 5.0).tolist(), ["Po"], [[0.2, 0.2, 0.2]])
    graph = connect([crystal], GraphSettings(cutoff=6.0, shells=shells, compress=False))
    assert coordination(graph) == [6]
    assert graph.n_isolated.tolist() == [0]


@pytest.mark.parametrize("compress", [True, False])
def test_isolated_atoms_keep_their_nodes(
    ideal_crystals: dict[str, Crystal], compress: bool
) -> None:
    settings = GraphSettings(compress=compress)
    pair_and_two_alone = [[0, 0, 0], [0.02, 0, 0], [0.5, 0, 0], [0, 0.5, 0.5]]
    far = crystal_of((np.eye(3) * 40.0).tolist(), ["H", "H", "Ar", "Ar"], pair_and_two_alone)
    alone = crystal_of((np.eye(3) * 9.0).tolist(), ["Xe"], [[0, 0, 0]])
    graphs = connect([alone, far, ideal_crystals["rock_salt"], alone], settings)
    assert graphs.n_isolated.tolist() == [1, 2, 0, 1]
    assert graphs.n_edges.tolist()[::3] == [0, 0]
    assert graphs.n_atoms.tolist() == ([1, 2, 2, 1] if compress else [1, 4, 2, 1])
    assert graphs.n_edges[1] == (1 if compress else 2)


def test_two_atoms_at_one_position_are_refused(ideal_crystals: dict[str, Crystal]) -> None:
    frac_coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], [1.5, -0.5, 0.5004]]
    crystal = crystal_of((np.eye(3) * 4.0).tolist(), ["Cs", "Cl", "O", "Cl"], frac_coords)
    with pytest.raises(StructureError, match=r"sites 2 \(Cl\) and 4 \(Cl\) lie on the same spot"):
        connect([ideal_crystals["fcc"], crystal], COMPRESSED)


def test_symmetry_of_a_large_cell_is_refused() -> None:
    """The time of spglib grows with the third power of the sites."""
    grid = np.array(list(product(range(14), repeat=3)))
    crystal = crystal_of((np.eye(3) * 42.0).tolist(), ["Po"] * len(grid), grid / 14)
    for name in ("lattice", "symmetry"):
        with pytest.raises(StructureError, match=r"it has 2744 sites; .* for up to 2500"):
            connect([crystal], GraphSettings(global_features=[name]))
    assert len(connect([crystal], GraphSettings(global_features=["density"]))) == 1


def test_crystals_together_equal_crystals_one_by_one(real_crystals: dict[str, Crystal]) -> None:
    crystals = list(real_crystals.values())[::4]
    for settings in (FULL, COMPRESSED, GraphSettings(shells="truncate")):
        together, apart = (
            connect(crystals, settings),
            [connect([crystal], settings) for crystal in crystals],
        )
        for name in CrystalGraphs.__slots__:
            joined = getattr(CrystalGraphs.concatenate(apart), name)
            assert getattr(together, name).dtype == joined.dtype
            np.testing.assert_array_equal(getattr(together, name), joined, err_msg=name)
