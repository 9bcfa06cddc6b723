"""Groups of equal crystals, and splits that keep them together."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.data.duplicates import group_duplicates, rows_without
from csgcnn.data.splits import PARTS, Split, split_rows
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError

N = 300
TOGETHER = SplitSettings(duplicates="together", column="fold", fold=1, stratify=None)


@pytest.fixture
def store(store_with: Callable[..., GraphStore]) -> GraphStore:
    """Crystals of which about half are equal to others, in groups of up to ten."""
    columns = {"fold": [row % 4 for row in range(N)], "kind": ["ab"[row % 2] for row in range(N)]}
    store = store_with(columns)
    crystal = np.random.default_rng(0).permutation(np.arange(N) % 150 + np.arange(N) // 270 * 3)
    crystal[::30] = 7
    store.graphs.fingerprint[:] = crystal[:, None]
    return store


def divided(store: GraphStore, split: Split) -> int:
    """Return the number of crystals that are in several parts."""
    crystal = store.graphs.fingerprint[:, 0]
    parts = [set(crystal[split[part].numpy()].tolist()) for part in PARTS]
    return sum(map(len, parts)) - len(set.union(*parts))


def test_crystals_that_agree_in_one_hash_are_equal() -> None:
    fingerprint = np.array([[1, 9], [2, 8], [1, 8], [4, 4], [5, 4], [6, 1]], dtype=np.uint64)
    # The hashes 1 in different columns have nothing to do with each other.
    assert group_duplicates(fingerprint).tolist() == [0, 0, 0, 3, 3, 5]
    chain = np.stack([np.arange(50) // 2, (np.arange(50) + 1) // 2], axis=1)
    assert not group_duplicates(chain.astype(np.uint64)).any()


def test_rows_that_equal_others_are_left_out() -> None:
    fingerprint = np.array([[1], [2], [3], [2], [1], [4]], dtype=np.uint64)
    rows = rows_without(torch.tensor([5, 4, 2, 1]), torch.tensor([0]), fingerprint)
    assert rows.tolist() == [5, 2, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stratify": "kind"},
        {"train": 0.5, "val": 0.2, "test": 0.1},
        {"method": "group", "column": "kind", "train": 0.5, "val": 0.25, "test": 0.25},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_equal_crystals_stay_together(
    store: GraphStore, changes: dict[str, object], seed: int
) -> None:
    if "column" in changes:
        store.columns["kind"] = [f"kind {row // 4}" for row in range(N)]
        store.graphs.fingerprint[20:] = np.arange(20, N)[:, None] + 1000
    settings = replace(TOGETHER, seed=seed, **changes)
    split, rows = split_rows(store, torch.arange(N), settings), []
    assert divided(store, split) == 0
    for part in PARTS:
        assert len(split[part]) == pytest.approx(getattr(settings, part) * N, abs=0.03 * N)
        rows += split[part].tolist()
    assert len(rows) == len(set(rows))
    apart = replace(settings, duplicates="ignore")
    assert divided(store, split_rows(store, torch.arange(N), apart)) > 0
    if changes.get("stratify"):
        share = [np.mean([row % 2 for row in split[part].tolist()]) for part in PARTS]
        assert share == pytest.approx([0.5] * 3, abs=0.15)


@pytest.mark.parametrize("method", ["fold", "matbench"])
def test_crystals_of_a_test_fold_are_not_trained_on(store: GraphStore, method: str) -> None:
    settings = replace(TOGETHER, method=method)
    split = split_rows(store, torch.arange(N), settings)
    official = split_rows(store, torch.arange(N), replace(settings, duplicates="ignore"))
    assert torch.equal(split["test"], official["test"])
    assert divided(store, split) == 0
    assert divided(store, official) > 10
    left = rows_without(
        torch.cat([official["train"], official["val"]]), split["test"], store.graphs.fingerprint
    )
    used = torch.cat([split["train"], split["val"]])
    assert sorted(used.tolist()) == sorted(left.tolist())
    assert len(split["val"]) == pytest.approx(0.1 * len(used), abs=3)


@pytest.mark.parametrize("method", ["column", "file"])
def test_given_parts_are_not_changed(store: GraphStore, method: str) -> None:
    with pytest.raises(ConfigError, match=f"together has no effect on method={method}"):
        split_rows(store, torch.arange(N), replace(TOGETHER, method=method))
