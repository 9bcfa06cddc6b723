"""Splits whose test crystals are unlike all training crystals."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from csgcnn.config.settings.dataset import LEAVE_METHODS, SplitSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.formulas import count_atoms
from csgcnn.crystals.graphs import CrystalGraphs, connect
from csgcnn.crystals.prototypes import prototype
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.clusters import clusters
from csgcnn.data.dataset import Dataset
from csgcnn.data.extrapolation import held_out
from csgcnn.data.splits import Split, split_dataset, split_ids, split_rows
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError, UserError

N = 50
SETTINGS = GraphSettings(max_neighbors=4)
StoreMaker = Callable[..., GraphStore]


@pytest.fixture(scope="module")
def crystals(dielectric_records: list[Record]) -> list[Crystal]:
    """Small cells, some of them of equal composition or prototype."""
    found = (to_crystal(record.source) for record in dielectric_records)
    return [crystal for crystal in found if len(crystal.atomic_number) <= 6][:N]


def store_of(crystals: list[Crystal], order: list[int]) -> GraphStore:
    crystals = [crystals[i] for i in order]
    columns: dict[str, list[Scalar]] = {
        "prototype": [prototype(crystal) for crystal in crystals],
        "gap": [float(i % 37) for i in order],
    }
    return GraphStore(connect(crystals, SETTINGS), [f"c{i}" for i in order], columns, SETTINGS)


@pytest.fixture(scope="module")
def store(crystals: list[Crystal]) -> GraphStore:
    return store_of(crystals, list(range(N)))


@pytest.fixture(scope="module")
def described_anew(crystals: list[Crystal]) -> GraphStore:
    """The same crystals in another order and in other cells."""
    rng = np.random.default_rng(0)
    changes = [SAME_CRYSTAL[name] for name in ("2x1x1 supercell", "Niggli cell", "rotation")]
    changed = [changes[i % 3](crystal, rng) or crystal for i, crystal in enumerate(crystals)]
    return store_of(changed, rng.permutation(N).tolist())


def folds(store: GraphStore, method: str, **changes: object) -> list[Split]:
    settings = SplitSettings(method, **changes)
    numbers = range(settings.folds * settings.repeats)
    rows = torch.arange(len(store))
    return [split_rows(store, rows, replace(settings, fold=fold)) for fold in numbers]


def label_of(method: str, crystals: list[Crystal], store: GraphStore) -> list[object]:
    """Labels of crystals, computed from their sites."""
    if method == "leave_composition":
        counts = [count_atoms(crystal.atomic_number) for crystal in crystals]
        divisors = [np.gcd.reduce(list(count.values())) for count in counts]
        return [
            frozenset((z, n // divisor) for z, n in count.items())
            for count, divisor in zip(counts, divisors, strict=True)
        ]
    if method == "leave_prototype":
        return list(store.columns["prototype"])
    return [frozenset(crystal.atomic_number.tolist()) for crystal in crystals]


@pytest.mark.parametrize(
    "method", ["leave_chemical_system", "leave_composition", "leave_prototype"]
)
def test_no_label_is_in_two_folds_or_in_both_train_and_test(
    store: GraphStore, crystals: list[Crystal], method: str
) -> None:
    labels = label_of(method, crystals, store)
    assert len(set(labels)) < N, "some crystals have a label in common"
    for split in folds(store, method):
        tested = {labels[row] for row in split["test"].tolist()}
        for part in ("train", "val", "in_distribution"):
            assert tested.isdisjoint(labels[row] for row in split[part].tolist()), part
        assert sum(map(len, split.values())) == N


def test_every_test_crystal_has_an_element_that_no_training_crystal_has(
    store: GraphStore, crystals: list[Crystal]
) -> None:
    elements = [set(crystal.atomic_number.tolist()) for crystal in crystals]
    n_crystals = Counter(z for found in elements for z in found)
    for split in folds(store, "leave_element", folds=4):
        known = {
            part: set().union(*(elements[row] for row in rows.tolist()))
            for part, rows in split.items()
        }
        others = known["train"] | known["val"] | known["in_distribution"]
        for row in split["test"].tolist():
            rarest = min(elements[row], key=lambda z: (n_crystals[z], z))
            assert rarest not in others, SYMBOLS[rarest]
        # No crystal is left out without need.
        left_out = set(range(N)) - set(torch.cat(list(split.values())).tolist())
        assert all(not elements[row] <= others for row in left_out)


def test_an_element_of_most_crystals_is_never_held_out(crystals: list[Crystal]) -> None:
    oxides = [crystal for crystal in crystals if 8 in crystal.atomic_number]
    pure = oxides[0]._replace(atomic_number=np.full_like(oxides[0].atomic_number, 8))
    store = store_of([*oxides, pure], list(range(len(oxides) + 1)))
    for split in folds(store, "leave_element", folds=3, in_distribution=0.0, val=0.0):
        assert len(oxides) in split["train"].tolist()


def test_no_cluster_is_in_both_train_and_test(store: GraphStore) -> None:
    settings = SplitSettings("leave_cluster", clusters=7)
    labels = clusters(store, torch.arange(N), settings)
    assert set(labels) == set(range(7))
    # Crystals of one cluster are more alike than others.
    electronegative = [bool({8, 9, 17} & found) for found in store.elements]
    shares = [
        np.mean([e for e, c in zip(electronegative, labels, strict=True) if c == cluster])
        for cluster in range(7)
    ]
    assert max(shares) - min(shares) > 0.5
    for split in folds(store, "leave_cluster", clusters=7):
        tested, known = (
            {labels[row] for row in split[part].tolist()} for part in ("test", "train")
        )
        assert tested.isdisjoint(known)


def test_clusters_of_site_features_are_those_of_their_means(store_with: StoreMaker) -> None:
    store = store_with({"gap": [0.0] * 40})
    settings = replace(store.settings, site_features=("sevennet",))
    features = np.repeat(np.arange(4), 10)[:, None] * np.ones(3) + np.linspace(0, 0.1, 40)[:, None]
    graphs = replace(store.graphs, site_features=features.astype(np.float16))
    clustered = GraphStore(graphs, store.ids, store.columns, settings)
    split = SplitSettings("leave_cluster", clusters=4, cluster_by="site_features")
    found = clusters(clustered, torch.arange(40), split)
    assert [len(set(found[i : i + 10])) for i in range(0, 40, 10)] == [1] * 4
    assert len(set(found)) == 4
    with pytest.raises(ConfigError, match=r"cluster_by=site_features needs .*graph.site_features"):
        clusters(store, torch.arange(40), split)


@pytest.mark.parametrize("method", LEAVE_METHODS)
def test_the_folds_test_every_row_once_and_each_repeat_divides_anew(
    store: GraphStore, method: str
) -> None:
    found = folds(store, method, repeats=2)
    tested = [split["test"].tolist() for split in found]
    for repeat in (tested[:5], tested[5:]):
        assert sorted(row for fold in repeat for row in fold) == list(range(N))
    assert sorted(map(sorted, tested[:5])) != sorted(map(sorted, tested[5:]))
    assert [split["test"].tolist() for split in folds(store, method)] == tested[:5]
    for split in found:
        n_others = sum(map(len, split.values())) - len(split["test"])
        assert len(split["val"]) == len(split["in_distribution"]) == round(0.1 * n_others)


@pytest.mark.parametrize("method", [*LEAVE_METHODS, "target_tail", "time"])
def test_the_split_depends_neither_on_the_order_of_the_rows_nor_on_the_cells(
    store: GraphStore, described_anew: GraphStore, method: str
) -> None:
    found, again = (folds(data, method, column="gap") for data in (store, described_anew))
    for one, other in zip(found, again, strict=True):
        parts, other_parts = split_ids(store, one), split_ids(described_anew, other)
        assert {part: set(ids) for part, ids in parts.items()} == {
            part: set(ids) for part, ids in other_parts.items()
        }


@pytest.mark.parametrize("tail", ["high", "low"])
def test_the_tail_of_the_target_is_tested(store_with: StoreMaker, tail: str) -> None:
    values = np.random.default_rng(0).permutation(120).astype(float)
    store = store_with({"gap": values.tolist()})
    for fold, split in enumerate(folds(store, "target_tail", column="gap", tail=tail)):
        tested = sorted(values[split["test"]].tolist(), reverse=tail == "high")
        ranked = sorted(values.tolist(), reverse=tail == "high")
        assert tested == ranked[20 * fold : 20 * fold + 20]
        known = torch.cat([split[part] for part in ("train", "val", "in_distribution")])
        assert sorted(values[known]) == sorted(ranked[20 * fold + 20 :])


def test_the_first_target_has_the_tail(store_with: StoreMaker) -> None:
    store = store_with({"gap": [float(i % 50) for i in range(60)]})
    values = torch.tensor([store.columns["gap"]]).T
    dataset = Dataset(store, [Target("gap", "eV")], values, torch.arange(60), [])
    split = split_dataset(dataset, SplitSettings("target_tail"))
    assert values[split["test"]].min() > values[split["train"]].max()
    with pytest.raises(ConfigError, match=r"target_tail needs dataset\.targets"):
        split_dataset(replace(dataset, targets=[]), SplitSettings("target_tail"))


@pytest.mark.parametrize("as_text", [False, True])
def test_training_rows_are_older_than_test_rows(store_with: StoreMaker, as_text: bool) -> None:
    years = np.random.default_rng(1).integers(1990, 2020, 120).tolist()
    column = [f"{year}-06-30T12:00:00+02:00" for year in years] if as_text else years
    store = store_with({"year": column})
    year = torch.tensor(years)
    tested = []
    for split in folds(store, "time", column="year"):
        known = torch.cat([split[part] for part in ("train", "val", "in_distribution")])
        assert year[split["test"]].min() > year[known].max(), "no year is in both"
        tested.append(year[split["test"]])
    assert all(later.min() > earlier.max() for later, earlier in pairwise(tested))
    assert tested[0].max() == max(years), "fold 0 tests the latest rows"


def test_equal_crystals_stay_together(store: GraphStore) -> None:
    graphs = CrystalGraphs.concatenate([store.graphs, store.graphs])
    doubled = GraphStore(graphs, [f"d{i}" for i in range(2 * N)], {}, store.settings)
    for split in folds(doubled, "leave_composition", duplicates="together"):
        kinds = [{row % N for row in rows.tolist()} for rows in split.values()]
        assert sum(map(len, kinds)) == N


def test_no_part_in_distribution_on_demand(store: GraphStore) -> None:
    for split in folds(store, "leave_composition", in_distribution=0.0):
        assert set(split) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("leave_cluster", {"folds": 11}, r"folds=11: expected at most 10, .*\(cluster\)"),
        ("leave_cluster", {"clusters": 111}, "clusters=111: expected at most"),
        ("time", {"column": "when"}, "column=when: no such column"),
        ("time", {"column": "prototype"}, "of c0 is .*expected a number or a date such"),
        ("time", {"column": "gappy"}, "column 'gappy' has no value for c3"),
        ("target_tail", {"column": "prototype"}, "target_tail: .* of c0 .*expected a number"),
        ("target_tail", {"column": "same"}, r"leaves test empty .*choose fewer .*split\.folds"),
        ("leave_composition", {"in_distribution": 1e-3}, "leaves in_distribution empty .*tion=0"),
    ],
)
def test_impossible_splits_are_refused(
    store: GraphStore, method: str, changes: dict[str, object], message: str
) -> None:
    store = GraphStore(store.graphs, store.ids, dict(store.columns), store.settings)
    store.columns["gappy"] = [None if i == 3 else i for i in range(N)]
    store.columns["same"] = [1.0] * N
    with pytest.raises(UserError, match=message):
        split_rows(store, torch.arange(N), SplitSettings(method, **changes))


def test_built_graphs_without_prototypes_are_refused(store_with: StoreMaker) -> None:
    store = store_with({"gap": [0.0] * 9})
    with pytest.raises(UserError, match=r"csgcnn build dataset\.prototypes=true"):
        held_out(store, torch.arange(9), SplitSettings("leave_prototype"))
