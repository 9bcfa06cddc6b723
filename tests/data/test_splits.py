import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.data.matbench import matbench_folds
from csgcnn.data.splits import PARTS, Split, split_ids, split_rows
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError

N = 103
ROWS = torch.tensor([row for row in range(N) if row not in (0, 50, 102)])  # 100 usable rows
METHODS = ["random", "group", "column", "fold", "matbench", "kfold", "file"]


@pytest.fixture(scope="module")
def store(store_with: Callable[..., GraphStore]) -> GraphStore:
    spellings = ["train", "training", "valid", "validation", "val", "test", "testing"]
    return store_with(
        {
            "family": [f"family {row % 23}" for row in range(N)],
            "part": [spellings[row % 7] for row in range(N)],
            "fold": [float(row % 5) for row in range(N)],
            "only train": ["train"] * N,
            "gappy": [None if row == 4 else "train" for row in range(N)],
            "typo": ["tets" if row == 4 else "train" for row in range(N)],
        }
    )


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., SplitSettings]:
    """Settings that work for each method, with the changes asked for."""
    file = tmp_path / "splits.json"
    file.write_text(
        json.dumps({"train": ["c7", "c1", "c3"], "val": ["c2"], "test": ["c101", "c100"]})
    )
    columns = {"group": "family", "column": "part", "fold": "fold"}

    def make(method: str, **changes: object) -> SplitSettings:
        chosen = SplitSettings(method, column=columns.get(method), file=str(file), seed=1, fold=3)
        return replace(chosen, **changes)

    return make


def sizes(split: Split) -> list[int]:
    return [len(split[part]) for part in PARTS]


@pytest.mark.parametrize("method", METHODS)
def test_parts_are_disjoint_usable_and_reproducible(
    store: GraphStore, settings: Callable[..., SplitSettings], method: str
) -> None:
    split = split_rows(store, ROWS, settings(method))
    assert tuple(split) == PARTS
    assert all(positions.dtype == torch.int64 for positions in split.values())
    taken = torch.cat(list(split.values())).tolist()
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(ROWS.tolist())
    assert len(taken) == (6 if method == "file" else len(ROWS))
    again = split_rows(store, ROWS, settings(method))
    assert all(torch.equal(split[part], again[part]) for part in PARTS)
    other = split_rows(store, ROWS, settings(method, seed=2))
    changed = any(sorted(split[part].tolist()) != sorted(other[part].tolist()) for part in PARTS)
    assert changed == (method in ("random", "group", "fold", "matbench", "kfold"))


def test_random_parts_have_the_sizes_asked_for(
    store: GraphStore, settings: Callable[..., SplitSettings]
) -> None:
    assert sizes(split_rows(store, ROWS, settings("random"))) == [80, 10, 10]
    assert sizes(
        split_rows(store, ROWS[:97], settings("random", train=1 / 3, val=1 / 3, test=1 / 3))
    ) == [33, 32, 32]
    assert sizes(split_rows(store, ROWS, settings("random", train=0.2, val=0.05, test=0.3))) == [
        20,
        5,
        30,
    ]


@pytest.mark.parametrize("n_rows", [14, 15, 37, 99])
def test_rounding_loses_no_row_and_moves_no_other(store: GraphStore, n_rows: int) -> None:
    split = split_rows(store, ROWS[:n_rows], SplitSettings())
    assert sorted(torch.cat(list(split.values())).tolist()) == ROWS[:n_rows].tolist()
    shuffled = ROWS[:n_rows][torch.randperm(n_rows, generator=torch.Generator().manual_seed(0))]
    n_train, n_val, n_test = (round(share * n_rows) for share in (0.8, 0.1, 0.1))
    n_train = min(n_train, n_rows - n_val - n_test)
    before = shuffled[: n_train + n_val + n_test].split([n_train, n_val, n_test])
    assert torch.equal(split["train"][:n_train], before[0])
    assert torch.equal(split["val"], before[1])
    assert torch.equal(split["test"], before[2])


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("random", {"train": 1.0, "val": 0.0, "test": 0.0}, [100, 0, 0]),
        ("random", {"train": 0.9, "test": 0.0}, [90, 10, 0]),
        ("random", {"train": 0.9, "val": 0.0, "stratify": "part"}, [90, 0, 10]),
        ("group", {"train": 1.0, "val": 0.0, "test": 0.0}, [100, 0, 0]),
        ("fold", {"val": 0.0}, [80, 0, 20]),
        ("kfold", {"val": 0.0}, [80, 0, 20]),
    ],
)
def test_a_fraction_of_zero_leaves_a_part_empty(
    store: GraphStore,
    settings: Callable[..., SplitSettings],
    method: str,
    changes: dict[str, object],
    expected: list[int],
) -> None:
    split = split_rows(store, ROWS, settings(method, **changes))
    assert np.abs(np.array(sizes(split)) - expected).max() <= 1
    assert sum(sizes(split)) == len(ROWS)


def test_a_split_file_may_leave_val_and_test_empty(
    store: GraphStore, settings: Callable[..., SplitSettings], tmp_path: Path
) -> None:
    file = tmp_path / "all.json"
    file.write_text('{"train": ["c1", "c2"], "val": [], "test": []}')
    assert sizes(split_rows(store, ROWS, settings("file", file=str(file)))) == [2, 0, 0]


def test_groups_stay_together(store: GraphStore, settings: Callable[..., SplitSettings]) -> None:
    split = split_rows(store, ROWS, settings("group", train=0.6, val=0.2, test=0.2))
    families = {
        part: {store.columns["family"][row] for row in split[part].tolist()} for part in PARTS
    }
    assert sum(map(len, families.values())) == len(set.union(*families.values())) == 23
    assert np.abs(np.array(sizes(split)) - [60, 20, 20]).max() <= 5  # within one group
    reversed_rows = split_rows(store, ROWS.flip(0), settings("group", train=0.6, val=0.2, test=0.2))
    assert all(torch.equal(split[part], reversed_rows[part]) for part in PARTS)


def test_a_split_column_may_use_the_usual_spellings(
    store: GraphStore, settings: Callable[..., SplitSettings]
) -> None:
    split = split_rows(store, ROWS, settings("column"))
    expected = {"train": (0, 1), "val": (2, 3, 4), "test": (5, 6)}
    for part, remainders in expected.items():
        assert split[part].tolist() == [row for row in ROWS.tolist() if row % 7 in remainders]


def test_a_fold_tests_its_rows_only(
    store: GraphStore, settings: Callable[..., SplitSettings]
) -> None:
    split = split_rows(store, ROWS, settings("fold", val=0.25))
    assert split["test"].tolist() == [row for row in ROWS.tolist() if row % 5 == 3]
    n_others = len(ROWS) - len(split["test"])
    assert sizes(split)[:2] == [n_others - round(n_others * 0.25), round(n_others * 0.25)]


@pytest.mark.parametrize("method", METHODS)
def test_written_ids_give_the_same_split(
    store: GraphStore, settings: Callable[..., SplitSettings], tmp_path: Path, method: str
) -> None:
    split = split_rows(store, ROWS, settings(method))
    file = tmp_path / "written.json"
    file.write_text(json.dumps(split_ids(store, split)))
    again = split_rows(store, ROWS, SplitSettings("file", file=str(file)))
    assert all(torch.equal(split[part], again[part]) for part in PARTS)


def test_ids_of_a_file_are_text_or_numbers(
    store_with: Callable[..., GraphStore], settings: Callable[..., SplitSettings], tmp_path: Path
) -> None:
    store = store_with({"gap": [1.0, 2.0, 3.0]})
    store.ids[:] = ["10", "11", "12"]
    (tmp_path / "numbers.json").write_text(json.dumps({"train": [12], "val": ["10"], "test": [11]}))
    split = split_rows(
        store, torch.arange(3), settings("file", file=str(tmp_path / "numbers.json"))
    )
    assert {part: split[part].tolist() for part in PARTS} == {"train": [2], "val": [0], "test": [1]}


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (
            "group",
            {"column": "familly"},
            r"column=familly: no such column; the columns are family, part, fold",
        ),
        ("column", {"column": "gappy"}, "column 'gappy' has no value for c4"),
        ("group", {"column": "gappy"}, "column 'gappy' has no value for c4"),
        ("column", {"column": "typo"}, "column 'typo' holds 'tets', expected train, val or test"),
        ("fold", {"fold": 7}, r"column 'fold' has no fold 7; it has 0\.0, 1\.0, 2\.0, 3\.0, 4\.0$"),
        ("fold", {"column": "family"}, r"no fold 3; it has family 0, family 1, .*, …$"),
        (
            "random",
            {"test": 0.001},
            r"random split of 100 rows leaves test empty \(train 80, val 10, test 0\)",
        ),
        ("random", {"train": 1e-3, "val": 0.0}, "leaves train empty"),
        ("random", {"val": 1e-3, "test": 1e-3}, "leaves val and test empty .*method=kfold"),
        ("fold", {"val": 1e-3}, "fold split of 100 rows leaves val empty"),
        ("group", {"val": 1e-3}, "group split of 100 rows leaves val empty"),
        ("column", {"column": "only train"}, "leaves val and test empty"),
        ("file", {"file": "gone.json"}, "dataset.split.file=gone.json: No such file"),
    ],
)
def test_impossible_splits_are_refused(
    store: GraphStore,
    settings: Callable[..., SplitSettings],
    method: str,
    changes: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        split_rows(store, ROWS, settings(method, **changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected .*train.*val.*test"),
        ("[1, 2]", "expected .*train.*val.*test"),
        ('{"train": ["c1"], "test": ["c2"]}', "expected .*train.*val.*test"),
        ('{"train": ["c1"], "val": null, "test": ["c2"]}', "expected .*train.*val.*test"),
        ('{"train": ["c1", "c2"], "val": ["c3"], "test": ["c2"]}', "c2 is in both train and test"),
        (
            '{"train": ["c1", "c9999"], "val": ["x"], "test": ["c2"]}',
            "2 of its ids are not among .* first is 'c9999'",
        ),
        (
            '{"train": ["c1"], "val": ["c3"], "test": ["c50"]}',
            "1 of its ids are not among the usable rows, the first is 'c50'",
        ),
        ('{"train": [], "val": ["c1"], "test": ["c2"]}', "leaves train empty"),
        ('{"train": ["c1", "c1"], "val": ["c3"], "test": ["c2"]}', "c1"),
    ],
)
def test_malformed_split_files_are_refused(
    store: GraphStore,
    settings: Callable[..., SplitSettings],
    tmp_path: Path,
    content: str,
    message: str,
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        split_rows(store, ROWS, settings("file", file=str(file)))
    assert "mine.json" in str(error.value) or "leaves" in str(error.value)


def test_the_matbench_method_tests_one_fold(store: GraphStore) -> None:
    folds = matbench_folds(N)
    for fold in range(5):
        split = split_rows(store, ROWS, SplitSettings("matbench", fold=fold))
        assert split["test"].tolist() == [row for row in ROWS.tolist() if folds[row] == fold]
        assert len(split["val"]) == round(0.1 * (len(ROWS) - len(split["test"])))
    split = split_rows(store, ROWS, SplitSettings("matbench", fold=1, stratify="part"))
    assert max(Counter(store.columns["part"][row] for row in split["test"].tolist()).values()) <= 4
    with pytest.raises(UserError, match=r"dataset\.split\.stratify=prat"):
        split_rows(store, ROWS, SplitSettings("matbench", stratify="prat"))
