"""Folds of Matbench follow the official ids, and are compared with the official lists."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.data.matbench import (
    OFFICIAL_TASKS,
    is_official_fold,
    matbench_folds,
    official_folds,
    official_id,
)
from csgcnn.data.splits import split_rows
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError

N = 1265  # rows of matbench_phonons
PHONONS = [f"mb-phonons-{number:04}" for number in range(1, N + 1)]
FOLDS = dict(zip(PHONONS, matbench_folds(N).tolist(), strict=True))

# Made by scikit-learn 1.9.1: KFold and StratifiedKFold(5, shuffle=True, random_state=18012019).
KFOLD_23 = [4, 1, 2, 1, 1, 1, 4, 2, 3, 4, 0, 3, 4, 2, 3, 0, 0, 1, 3, 2, 0, 0, 2]
LABELS = "211000000212112211120220121022200201001110000211012112221"
STRATIFIED = "322240113202404104004004143113230412023443042311331320211"


def test_matbench_folds_are_those_of_scikit_learn() -> None:
    assert matbench_folds(23).tolist() == KFOLD_23
    assert matbench_folds(57, [int(label) for label in LABELS]).tolist() == [
        int(fold) for fold in STRATIFIED
    ]
    names = [{"0": "no", "1": "yes", "2": None}[label] for label in LABELS]
    assert matbench_folds(57, names).tolist() == [int(fold) for fold in STRATIFIED]


@pytest.mark.parametrize("name", ["castelli_perovskites", "matbench_mp_gap"])
def test_matbench_folds_are_the_official_ones(name: str) -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / f"{name}.json.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    text = gzip.decompress(path.read_bytes()).decode()
    official = [int(fold) for fold in re.findall(r'"matbench_fold":\s*(\d)', text)]
    assert len(official) == {"castelli_perovskites": 18_928, "matbench_mp_gap": 106_113}[name]
    assert matbench_folds(len(official)).tolist() == official


@pytest.mark.parametrize(
    "task", [task for task in OFFICIAL_TASKS if task != "matbench_mp_is_metal"]
)
def test_the_folds_of_each_regression_task_are_the_official_ones(task: str) -> None:
    """The digests were made from the ids that matbench 0.6 publishes."""
    folds = matbench_folds(OFFICIAL_TASKS[task].n_rows)
    for fold in range(5):
        ids = [official_id(task, str(place), 0) for place in (folds == fold).nonzero()[0]]
        assert is_official_fold(task, fold, ids[::-1])
        assert not is_official_fold(task, fold, ids[1:])
        assert not is_official_fold(task, (fold + 1) % 5, ids)


def test_the_folds_of_the_classification_task_are_the_official_ones() -> None:
    """Its rows are those of matbench_mp_gap, in the same order; a metal has the gap 0."""
    path = Path(__file__).parents[3] / "shared" / "data" / "matbench_mp_gap.json.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    text = gzip.decompress(path.read_bytes()).decode()
    is_metal = [float(gap) == 0 for gap in re.findall(r'"band_gap":\s*([-+.\de]+)', text)]
    folds, task = matbench_folds(len(is_metal), is_metal), "matbench_mp_is_metal"
    for fold in range(5):
        ids = [official_id(task, str(place), 0) for place in (folds == fold).nonzero()[0]]
        assert is_official_fold(task, fold, ids)


def test_folds_of_unknown_tasks_are_not_compared() -> None:
    assert is_official_fold("matbench_toy", 7, ["any"])
    assert not is_official_fold("matbench_phonons", 5, PHONONS)


@pytest.mark.parametrize("ids", [PHONONS[::-1], PHONONS[:2] + PHONONS[3:], PHONONS[:500]])
def test_rows_with_official_ids_have_their_official_folds_in_any_file(ids: list[str]) -> None:
    assert official_folds(ids).tolist() == [FOLDS[id_] for id_ in ids]


def test_numbers_of_rows_are_places_in_the_file_of_matbench() -> None:
    numbers = [str(number) for number in range(N)]
    expected = list(FOLDS.values())
    assert official_folds(numbers[::-1]).tolist() == expected[::-1]
    del numbers[2], expected[2]
    assert official_folds(numbers, n_unread=1).tolist() == expected
    with pytest.raises(UserError, match=r"id 1264 is not one of 1,264 rows.*incomplete"):
        official_folds(numbers)


def test_other_ids_follow_the_order_of_a_file_that_can_be_read_completely() -> None:
    ids = [f"mp-{7 * number}" for number in range(N)]
    assert official_folds(ids).tolist() == [*FOLDS.values()]
    with pytest.raises(UserError, match=r"1 of 1,266 records cannot be read.*not known"):
        official_folds(ids, n_unread=1)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["mb-phonons-0001", "mb-jdft2d-002"], "mb-phonons-0001 and mb-jdft2d-002 are not ids"),
        (["mb-phonons-0001", "mp-2"], "mb-phonons-0001 and mp-2 are not ids"),
        (["mb-phonons-1266"], "id mb-phonons-1266 is not one of 1,265 rows"),
        (["mb-phonons-0000"], "id mb-phonons-0000 is not one of"),
        (["mb-phonons-1", "mb-phonons-0001"], "a number occurs twice"),
    ],
)
def test_ids_that_give_no_place_are_named(ids: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        official_folds(ids)


def test_stratified_folds_need_every_row() -> None:
    ids = [f"mb-toy-{number:02}" for number in range(1, 58)]
    labels = list(LABELS)
    found = official_folds(ids[::-1], 0, labels[::-1])
    assert found.tolist()[::-1] == [int(fold) for fold in STRATIFIED]
    with pytest.raises(UserError, match=r"stratify.*1 of 57 rows are missing"):
        official_folds(ids[1:], 1, labels[1:])


def test_the_split_of_shuffled_rows_is_official(
    store_with: Callable[..., GraphStore],
) -> None:
    shuffled = store_with({"y": [0.0] * N})
    shuffled.ids = [PHONONS[row] for row in torch.randperm(N).tolist()]
    split = split_rows(shuffled, torch.arange(N), SplitSettings("matbench", fold=2))
    assert {shuffled.ids[row] for row in split["test"].tolist()} == {
        id_ for id_, fold in FOLDS.items() if fold == 2
    }
