"""Structures and compositions that several parts of a split share."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.compositions import compositions
from csgcnn.data.duplicates import group_duplicates
from csgcnn.data.leakage import count_duplicates, shared_compositions
from csgcnn.data.splits import PARTS, split_rows
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError


def test_duplicates_across_parts_are_found(dielectric_records: list[Record]) -> None:
    crystals = [to_crystal(record.source) for record in dielectric_records[:40]]
    rng, other = np.random.default_rng(0), crystals[7]
    for change in ("2x1x1 supercell", "rotation", "translation", "site order", "another cell"):
        other = SAME_CRYSTAL[change](other, rng) or other
    other_element = crystals[7]._replace(atomic_number=crystals[7].atomic_number % 90 + 1)
    crystals += [other, other_element, crystals[8]]
    ids = [f"c{row}" for row in range(43)]
    store = GraphStore(connect(crystals, GraphSettings()), ids, {}, GraphSettings())
    split = {"train": torch.arange(7), "val": torch.tensor([7, 8, 42]), "test": torch.arange(9, 42)}
    # c8 and c42 are equal, too, but in one part.
    assert count_duplicates(store, split) == (1, ("c7", "c40"))


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_duplicates_are_counted_without_listing_them(
    store_with: Callable[..., GraphStore], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    store = store_with({"gap": [0.0] * 60})
    store.graphs.fingerprint[:] = draw.integers(20, size=(60, 1))
    parts = torch.from_numpy(draw.permutation(60)[:55]).split([30, 10, 15])
    split = dict(zip(PARTS, parts, strict=True))
    part_of = {row: part for part, rows in split.items() for row in rows.tolist()}
    same = store.graphs.fingerprint[:, 0]
    pairs = [
        (a, b)
        for a, b in combinations(sorted(part_of), 2)
        if part_of[a] != part_of[b] and same[a] == same[b]
    ]
    n_pairs, example = count_duplicates(store, split)
    assert n_pairs == len(pairs) > 10
    assert example is not None
    assert tuple(sorted(int(id_[1:]) for id_ in example)) in pairs
    store.graphs.fingerprint[:] = 7
    assert count_duplicates(store, split)[0] == 30 * 10 + 30 * 15 + 10 * 15


def test_no_duplicates(store_with: Callable[..., GraphStore]) -> None:
    store = store_with({"gap": [0.0] * 30})
    assert count_duplicates(store, split_rows(store, torch.arange(30), SplitSettings())) == (
        0,
        None,
    )


def test_disguised_duplicates_are_found(dielectric_records: list[Record]) -> None:
    rng, crystals = np.random.default_rng(0), []
    originals = [to_crystal(record.source) for record in dielectric_records[:60]]
    for number, crystal in enumerate(originals):
        change = list(SAME_CRYSTAL.values())[number % len(SAME_CRYSTAL)]
        crystals += [crystal, change(crystal, rng) or crystal]
    ids = [f"c{row}" for row in range(len(crystals))]
    store = GraphStore(connect(crystals, GraphSettings()), ids, {}, GraphSettings())
    at_random = split_rows(store, torch.arange(len(crystals)), SplitSettings())
    part_of = {row: part for part, rows in at_random.items() for row in rows.tolist()}
    n_apart = sum(part_of[row] != part_of[row + 1] for row in range(0, len(crystals), 2))
    assert count_duplicates(store, at_random)[0] == n_apart > 10


def test_embedded_sets_have_few_duplicates(formation_energy_records: list[Record]) -> None:
    crystals = [to_crystal(record.source) for record in formation_energy_records[::10]]
    found = connect(crystals, GraphSettings(compress=False, cutoff=3.0)).fingerprint
    assert len(set(group_duplicates(found).tolist())) > 0.99 * len(crystals)


def test_reduced_formulas(ideal_crystals: dict[str, Crystal]) -> None:
    crystals = [*ideal_crystals.values(), ideal_crystals["perovskite"]]
    for settings in (GraphSettings(), GraphSettings(compress=False)):
        store = GraphStore(
            connect(crystals, settings), [f"c{i}" for i in range(len(crystals))], {}, settings
        )
        formulas = dict(zip(ideal_crystals, compositions(store), strict=False))
        assert formulas["rock_salt"] == formulas["rock_salt_conventional"] == "NaCl"
        assert (formulas["diamond"], formulas["perovskite"], formulas["bcc"]) == (
            "Si",
            "O3TiSr",
            "Fe",
        )
        where = {name: row for row, name in enumerate([*ideal_crystals, "again"])}
        split = {
            "train": torch.tensor([where["rock_salt"], where["perovskite"]]),
            "val": torch.tensor([where["rock_salt_conventional"], where["again"]]),
            "test": torch.tensor([where["fcc"], where["bcc"]]),
        }
        assert shared_compositions(store, split) == {"val": 2, "test": 0}


def test_a_split_by_composition_needs_no_column(elastic_records: list[Record]) -> None:
    crystals = [to_crystal(record.source) for record in elastic_records[:150]]
    twice = [*crystals, *(c._replace(lattice=1.01 * c.lattice) for c in crystals)]
    ids = [f"c{row}" for row in range(len(twice))]
    store, rows = (
        GraphStore(connect(twice, GraphSettings()), ids, {}, GraphSettings()),
        torch.arange(len(twice)),
    )
    at_random = split_rows(store, rows, SplitSettings())
    assert min(shared_compositions(store, at_random).values()) > 20
    by_composition = split_rows(store, rows, SplitSettings("group", column="composition"))
    assert shared_compositions(store, by_composition) == {"val": 0, "test": 0}
    assert [len(by_composition[part]) for part in PARTS] == pytest.approx([240, 30, 30], abs=4)
    store.columns["composition"] = [None, *["mine"] * (len(twice) - 1)]
    with pytest.raises(UserError, match="column 'composition' has no value for c0"):
        split_rows(store, rows, SplitSettings("group", column="composition"))
