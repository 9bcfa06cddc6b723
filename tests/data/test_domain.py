"""The domain of a training set, and crystals outside it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.domain import MEANINGS, Domain, unseen_elements, widened
from csgcnn.data.store import GraphStore

Pack = Callable[..., GraphStore]

ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
CESIUM_CHLORIDE = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def packed(*structures: Structure, **settings: object) -> GraphStore:
    graph = GraphSettings(**settings)  # type: ignore[arg-type]
    crystals = [to_crystal(structure) for structure in structures]
    return GraphStore(connect(crystals, graph), [f"{i}" for i in range(len(crystals))], {}, graph)


def every(store: GraphStore) -> torch.Tensor:
    return torch.arange(len(store))


def reasons(domain: Domain, *structures: Structure, **settings: object) -> list[list[str]]:
    store = packed(*structures, **settings)
    return domain.reasons(store, every(store))


def lone(symbol: str, size: float = 100.0) -> Structure:
    return Structure(Lattice.cubic(size), [symbol], [[0, 0, 0]])


@pytest.fixture(scope="module")
def salts() -> Domain:
    store = packed(ROCK_SALT, CESIUM_CHLORIDE)
    return Domain.of(store, every(store))


def test_the_domain_is_what_occurs_in_the_training_rows() -> None:
    store = packed(ROCK_SALT, lone("Pu"), CESIUM_CHLORIDE)
    domain = Domain.of(store, torch.tensor([2, 0]))
    assert domain.elements == {11, 17, 55}
    # Cs has 8 Cl and 6 Cs within its shell, Cl likewise
    assert domain.pairs == {(11, 17), (17, 17), (17, 55), (55, 55), (11, 11)}
    assert not domain.isolated_atoms
    assert domain.ranges["volume_per_atom [Å3]"] == pytest.approx((5.64**3 / 8, 4.12**3 / 2))
    chlorine = (2.82, 4.12 * 0.75**0.5)
    assert domain.ranges["nearest_neighbor of Cl [Å]"] == pytest.approx(chlorine)
    assert domain.ranges["nearest_neighbor of Na [Å]"] == pytest.approx((2.82, 2.82))
    assert domain.ranges["farthest_neighbor of Cl [Å]"] == pytest.approx((2.82 * 2**0.5, 4.12))
    assert domain.ranges["coordination of Cl"] == (14, 18)
    assert domain.ranges["coordination of Cs"] == (14, 14)
    assert domain.ranges["density [g/cm3]"] == pytest.approx((2.164, 4.0), abs=0.01)
    assert Domain.of(store, every(store)).isolated_atoms


def test_training_rows_are_inside(store_in_memory: GraphStore) -> None:
    rows = every(store_in_memory)
    domain = Domain.of(store_in_memory, rows)
    assert domain.reasons(store_in_memory, rows) == [[]] * 100


@pytest.mark.parametrize("compress", [True, False])
def test_a_domain_does_not_depend_on_compression_or_chunks(compress: bool, salts: Domain) -> None:
    store = packed(ROCK_SALT, CESIUM_CHLORIDE, compress=compress)
    found = [Domain.of(store, rows) for rows in (every(store), torch.tensor([0, 1, 1, 0]))]
    for domain in found:
        assert domain.pairs == salts.pairs
        for name, ends in domain.ranges.items():
            assert ends == pytest.approx(salts.ranges[name], rel=1e-5)


def test_reasons_name_what_the_training_set_lacks(salts: Domain) -> None:
    expanded, halide = ROCK_SALT.copy(), ROCK_SALT.copy()
    expanded.scale_lattice(ROCK_SALT.volume * 3)
    halide.replace_species({"Cl": "Cs"})
    inside, with_element, with_pair, too_wide = reasons(
        salts,
        ROCK_SALT,
        Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]]),
        halide,
        expanded,
    )
    assert inside == []
    assert with_element[0] == "unseen_element:Po"
    assert unseen_elements(with_element) == ["Po"]
    assert not [reason for reason in with_element if reason.startswith("unseen_pair")]
    assert with_pair[0] == "unseen_pair:Na-Cs"
    assert too_wide[0] == "volume_per_atom:67.28 Å3 (22.43 to 34.97)"
    assert too_wide[1] == "global_features:density [g/cm3]"
    assert too_wide[2] == "nearest_neighbor:Na 4.067 Å (2.82 to 2.82)"
    codes = {reason.partition(":")[0] for reason in (*with_element, *with_pair, *too_wide)}
    assert codes <= set(MEANINGS)


def test_isolated_atoms_are_outside_unless_they_were_trained(salts: Domain) -> None:
    (found,) = reasons(salts, lone("Na"))
    assert found == [
        "isolated_atoms:1",
        "volume_per_atom:1e+06 Å3 (22.43 to 34.97)",
        "global_features:density [g/cm3]",
    ]
    store = packed(lone("Na", 50), lone("Na", 60))
    domain = Domain.of(store, every(store))
    assert not [name for name in domain.ranges if "neighbor" in name]
    assert domain.reasons(store, every(store)) == [[], []]


def test_an_empty_training_set_has_an_empty_domain(salts: Domain) -> None:
    store = packed(ROCK_SALT)
    empty = Domain.of(store, every(store)[:0])
    assert (empty.elements, empty.pairs, empty.ranges) == (set(), set(), {})
    assert salts.reasons(store, every(store)[:0]) == []


def test_a_range_is_widened_by_a_tenth_of_its_width() -> None:
    assert widened(10.0, 20.0) == pytest.approx((9, 21), abs=1e-3)
    low, high = widened(torch.tensor([90.0]), torch.tensor([90.0]))
    assert 89.99 < low.item() < 90 < high.item() < 90.01


def test_an_ensemble_knows_what_all_its_members_know(salts: Domain) -> None:
    store = packed(ROCK_SALT)
    other = Domain.of(store, every(store))
    shared = Domain.shared([salts, other])
    assert shared.elements == other.elements
    assert shared.pairs == other.pairs
    for name, ends in other.ranges.items():
        assert shared.ranges[name] == pytest.approx(ends)
    found, of_other = (reasons(one, CESIUM_CHLORIDE, lone("Na")) for one in (shared, other))
    assert found == of_other
    assert not Domain.shared([salts, Domain(frozenset({11}))]).is_known


def test_members_without_a_common_range_know_no_crystal() -> None:
    domains = [Domain.of(packed(one), torch.tensor([0])) for one in (ROCK_SALT, CESIUM_CHLORIDE)]
    for found in reasons(Domain.shared(domains), ROCK_SALT, CESIUM_CHLORIDE):
        assert [reason for reason in found if reason.startswith("volume_per_atom")]


def test_plain_data_describe_a_domain(salts: Domain) -> None:
    assert Domain.from_plain(salts.elements, salts.plain()) == salts
    old = Domain.from_plain([11], None)
    assert not old.is_known
    assert reasons(old, ROCK_SALT, lone("Na")) == [["unseen_element:Cl"], []]


def test_elements_of_crystals_without_edges(mixed_store: GraphStore) -> None:
    first = mixed_store.elements[1]
    assert Domain.of(mixed_store, torch.tensor([27, 1])).elements == first | {54}


def test_graphs_in_files_have_the_domain_of_those_in_memory(
    store_in_memory: GraphStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store_in_memory.save(folder)
    rows = torch.tensor([3, 50, 99])
    mapped = GraphStore.load(folder).to("cpu", resident=False)
    assert Domain.of(mapped, rows) == Domain.of(store_in_memory, rows)


def test_a_crystal_of_one_site_has_neighbors_of_its_own_kind() -> None:
    iron = Crystal(np.eye(3) * 2.5, np.array([26], dtype=np.uint8), np.zeros((1, 3)))
    graphs = connect([iron], GraphSettings())
    domain = Domain.of(GraphStore(graphs, ["a"], {}, GraphSettings()), torch.tensor([0]))
    assert domain.pairs == {(26, 26)}
