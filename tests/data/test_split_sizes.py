"""Test the sizes of parts of stratified and of group splits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.data.splits import PARTS, Split, split_rows
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import UserError


def sizes(split: Split) -> list[int]:
    return [len(split[part]) for part in PARTS]


@pytest.mark.parametrize("seed", [0, 1])
def test_stratified_parts_keep_the_shares_of_every_class(
    store_with: Callable[..., GraphStore], seed: int
) -> None:
    column: list[Scalar] = ["common"] * 160 + ["rare"] * 30 + [None] * 10
    store, rows = store_with({"kind": column}), torch.arange(200)
    settings = SplitSettings(seed=seed, stratify="kind")
    split = split_rows(store, rows, settings)
    assert {part: len(positions) for part, positions in split.items()} == {
        "train": 160,
        "val": 20,
        "test": 20,
    }
    assert sorted(torch.cat(list(split.values())).tolist()) == rows.tolist()
    for kind in ("common", "rare", None):
        members = column.count(kind)
        for part, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
            n = sum(column[row] == kind for row in split[part].tolist())
            assert abs(n - share * members) <= 2, (kind, part, n)
    again, other = (
        split_rows(store, rows, SplitSettings(seed=s, stratify="kind")) for s in (seed, seed + 1)
    )
    assert torch.equal(again["test"], split["test"])
    assert set(other["test"].tolist()) != set(split["test"].tolist())


def test_a_stratified_split_of_a_part_of_the_rows(store_with: Callable[..., GraphStore]) -> None:
    store = store_with({"kind": [0, 1] * 50})
    split = split_rows(
        store, torch.arange(0, 100), SplitSettings(train=0.3, val=0.1, test=0.1, stratify="kind")
    )
    assert {part: len(positions) for part, positions in split.items()} == {
        "train": 30,
        "val": 10,
        "test": 10,
    }
    with pytest.raises(
        UserError, match=r"dataset\.split\.stratify=kid: no such column; the columns are kind"
    ):
        split_rows(store, torch.arange(100), SplitSettings(stratify="kid"))


def of_sizes(store_with: Callable[..., GraphStore], sizes: list[int], seed: int) -> GraphStore:
    """A store whose column `family` has groups of these sizes, in random order."""
    column: list[Scalar] = [
        f"family {family}" for family, size in enumerate(sizes) for _ in range(size)
    ]
    order = np.random.default_rng(seed).permutation(len(column))
    return store_with({"family": [column[i] for i in order]})


@pytest.mark.parametrize(
    ("group_sizes", "fractions", "tolerance"),
    [
        ([1] * 100, (0.8, 0.1, 0.1), 1),
        ([60] + [1] * 40, (0.8, 0.1, 0.1), 1),
        ([60] + [5] * 8, (0.6, 0.2, 0.2), 1),
        ([90] + [1] * 10, (0.8, 0.1, 0.1), 10),
        ([10] * 10, (0.8, 0.1, 0.1), 0),
        ([40, 40, 5, 5, 5, 5], (0.8, 0.1, 0.1), 1),
        ([2**i for i in range(8)], (0.8, 0.1, 0.1), 10),
        ([22, 21, 20, 19, 18], (0.6, 0.2, 0.2), 3),
        ([50, 30, 20], (0.8, 0.1, 0.1), 30),
        ([30] + [1] * 70, (0.3, 0.1, 0.1), 1),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_groups_of_any_size_are_kept_together(
    store_with: Callable[..., GraphStore],
    group_sizes: list[int],
    fractions: tuple[float, float, float],
    tolerance: int,
    seed: int,
) -> None:
    store = of_sizes(store_with, group_sizes, seed)
    n_rows = len(store)
    split = split_rows(
        store, torch.arange(n_rows), SplitSettings("group", *fractions, seed=seed, column="family")
    )
    taken = torch.cat(list(split.values())).tolist()
    assert len(taken) == len(set(taken))
    families = [{store.columns["family"][row] for row in split[part].tolist()} for part in PARTS]
    assert sum(map(len, families)) == len(set.union(*families)), "a group lies in one part"
    assert all(
        abs(n - f * n_rows) <= tolerance for n, f in zip(sizes(split), fractions, strict=True)
    ), sizes(split)


def test_fewer_groups_than_parts(store_with: Callable[..., GraphStore]) -> None:
    store = of_sizes(store_with, [60, 40], 0)
    with pytest.raises(
        UserError,
        match=r"the group split of 100 rows leaves test empty \(train 60, val 40, test 0\)",
    ):
        split_rows(store, torch.arange(100), SplitSettings("group", column="family"))


@pytest.mark.parametrize("method", ["random", "kfold"])
def test_a_smaller_number_of_training_rows_keeps_a_subset(
    store_with: Callable[..., GraphStore], method: str
) -> None:
    store, rows = store_with({"kind": [0] * 100}), torch.arange(100)
    whole = split_rows(store, rows, SplitSettings(method, seed=1))
    kept = whole
    for size in (60, 20, 1):
        split = split_rows(store, rows, SplitSettings(method, seed=1, train_size=size))
        assert len(split["train"]) == len(set(split["train"].tolist())) == size
        assert set(split["train"].tolist()) < set(kept["train"].tolist())
        assert all(torch.equal(split[part], whole[part]) for part in ("val", "test"))
        kept = split
    n_train = len(whole["train"])
    message = rf"train_size={n_train + 1}: the {method} split has only {n_train} training rows"
    with pytest.raises(UserError, match=message):
        split_rows(store, rows, SplitSettings(method, seed=1, train_size=n_train + 1))
