"""Test the split method kfold."""

from collections.abc import Callable

import pytest
import torch

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.data.splits import split_rows
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError

ROWS = torch.tensor([row for row in range(103) if row not in (0, 50, 102)])


@pytest.fixture(scope="module")
def store(store_with: Callable[..., GraphStore]) -> GraphStore:
    return store_with({"kind": ["rare" if row % 10 == 3 else "common" for row in range(103)]})


def folds_of(store: GraphStore, rows: torch.Tensor, **settings: object) -> list[list[int]]:
    n_folds, n_repeats = settings.get("folds", 5), settings.get("repeats", 1)
    folds = (SplitSettings("kfold", fold=f, **settings) for f in range(n_folds * n_repeats))
    return [split_rows(store, rows, fold)["test"].tolist() for fold in folds]


@pytest.mark.parametrize("n_folds", [2, 3, 7, 100])
def test_every_row_is_tested_once(store: GraphStore, n_folds: int) -> None:
    found = folds_of(store, ROWS, folds=n_folds, val=0.0)
    assert sorted(row for fold in found for row in fold) == ROWS.tolist()
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_each_repeat_divides_the_rows_anew(store: GraphStore) -> None:
    found = folds_of(store, ROWS, repeats=3)
    assert len({tuple(fold) for fold in found}) == 15
    for repeat in range(3):
        rows = [row for fold in found[5 * repeat :][:5] for row in fold]
        assert sorted(rows) == ROWS.tolist()
    assert found[:5] == folds_of(store, ROWS)
    assert found[:5] != folds_of(store, ROWS, seed=1)


def test_stratified_folds_have_the_same_share_of_every_class(store: GraphStore) -> None:
    kind = store.columns["kind"]
    for fold in folds_of(store, ROWS, stratify="kind"):
        assert sum(kind[row] == "rare" for row in fold) == 2
        assert len(fold) == 20


def test_equal_crystals_are_tested_in_the_same_fold(store: GraphStore) -> None:
    doubled = GraphStore(
        CrystalGraphs.concatenate([store.graphs, store.graphs]),
        [f"d{row}" for row in range(206)],
        {"kind": store.columns["kind"] * 2},
        store.settings,
    )
    for stratify in (None, "kind"):
        found = folds_of(doubled, torch.arange(206), duplicates="together", stratify=stratify)
        assert sorted(row for fold in found for row in fold) == list(range(206))
        assert all(
            {row % 103 for row in fold} == {row for row in fold if row < 103} for fold in found
        )


def test_more_folds_than_crystals_are_refused(store: GraphStore) -> None:
    with pytest.raises(ConfigError, match=r"folds=101: expected at most 100"):
        folds_of(store, ROWS, folds=101)
