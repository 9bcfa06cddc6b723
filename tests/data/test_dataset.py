import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.crystals.graph_builder import Rejected
from csgcnn.data.dataset import Dataset, check_rejected, label_warnings, select_targets
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target, describe_targets
from csgcnn.errors import UserError

SOURCE = Path("mine/set.json")
StoreMaker = Callable[..., GraphStore]


def test_targets_of_good_rows(store_with: StoreMaker) -> None:
    store = store_with(
        {"gap": [1.5, 0, 2.25, True], "name": ["a", "b", "c", "d"], "n": [1, 2, 3, None]}
    )
    dataset = select_targets(store, [Target("n"), Target("gap")], [], SOURCE)
    assert dataset.targets == [Target("n"), Target("gap")]
    assert dataset.values.dtype == torch.float32
    np.testing.assert_array_equal(
        dataset.values.numpy(), [[1, 1.5], [2, 0], [3, 2.25], [np.nan, 1]]
    )
    assert dataset.rows.tolist() == [0, 1, 2, 3]  # one target of two is enough
    assert dataset.rejected == []


def test_the_only_column_is_the_target(store_with: StoreMaker) -> None:
    assert describe_targets(
        store_with({"gap": [1.0]}), DatasetSettings(units={"gap": "eV"}), SOURCE
    ) == [Target("gap", "eV")]


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        (
            ["gap", "n"],
            ["gpa"],
            r"mine/set\.json: the target column 'gpa' does not exist; the columns are gap, n$",
        ),
        (["gap", "n"], ["gap", "x"], r"the target column 'x' does not exist"),
        (
            ["gap", "n"],
            None,
            r"mine/set\.json: choose the target column with dataset\.targets=.* are gap, n$",
        ),
        ([], None, r"choose the target column .* the columns are none$"),
        ([], ["gap"], r"column 'gap' does not exist; the columns are none$"),
    ],
)
def test_a_target_without_a_column_is_refused(
    store_with: StoreMaker, columns: list[str], names: list[str] | None, message: str
) -> None:
    store = store_with({"gap": [1.0, 2.0], "n": [1.0, 2.0]})
    store.columns = {name: store.columns[name] for name in columns}
    with pytest.raises(UserError, match=message):
        describe_targets(store, DatasetSettings(targets=names), SOURCE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "gap missing"),
        ("metal", "gap is 'metal', expected a number"),
        ("1.5", "gap is '1.5', expected a number"),
        (float("nan"), "gap is nan, expected a finite number"),
        (float("inf"), "gap is inf, expected a finite number"),
        (float("-inf"), "gap is -inf, expected a finite number"),
        (1e300, "gap is 1e+300, expected a finite number, at most 1e+37"),
        (-2e37, "gap is -2e+37, expected a finite number, at most 1e+37"),
        (10**400, "gap is 1000000000"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_row_without_a_usable_target_is_rejected_by_name(
    store_with: StoreMaker, value: float | str | None, reason: str
) -> None:
    unreadable = Rejected("x", "no lattice")
    dataset = select_targets(
        store_with({"gap": [1.0, value, 3.0]}), [Target("gap")], [unreadable], SOURCE
    )
    assert dataset.rows.tolist() == [0, 2]
    assert dataset.rejected[0] == unreadable
    assert [entry.id for entry in dataset.rejected[1:]] == ["c1"]
    assert dataset.rejected[1].reason.startswith(reason)


def test_one_impossible_target_of_two_rejects_the_row(store_with: StoreMaker) -> None:
    store = store_with({"gap": [1.0, 2.0, None, None], "n": ["bad", 2.0, 3.0, None]})
    dataset = select_targets(store, [Target("gap"), Target("n")], [], SOURCE)
    assert dataset.rows.tolist() == [1, 2]
    assert dataset.rejected == [
        Rejected("c0", "n is 'bad', expected a number"),
        Rejected("c3", "gap and n missing"),
    ]


def dataset_with(store_with: StoreMaker, n_rejected: int, n_usable: int) -> Dataset:
    rejected = [
        Rejected(f"x{number}", f'reason {number}, "quoted"') for number in range(n_rejected)
    ]
    return select_targets(store_with({"gap": [1.0] * n_usable}), [Target("gap")], rejected, SOURCE)


def test_nothing_rejected_writes_nothing(store_with: StoreMaker, tmp_path: Path) -> None:
    check_rejected(dataset_with(store_with, 0, 3), SOURCE, "raise", tmp_path / "rejected.csv", 0.05)
    assert not list(tmp_path.iterdir())


def test_rejected_records_may_be_skipped_up_to_five_per_cent(
    store_with: StoreMaker, tmp_path: Path
) -> None:
    report = tmp_path / "rejected.csv"
    check_rejected(dataset_with(store_with, 5, 95), SOURCE, "skip", report, 0.05)
    with open(report, newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "reason"],
        *([f"x{number}", f'reason {number}, "quoted"'] for number in range(5)),
    ]


@pytest.mark.parametrize(
    ("n_rejected", "n_usable", "on_error", "messages"),
    [
        (1, 99, "raise", ["1 of 100 records cannot be used (x0: reason 0", "on_error=skip"]),
        (
            6,
            94,
            "skip",
            ["6 of 100", "x0: reason 0", "x2: reason 2", "; …)", "at most 5% may be skipped"],
        ),
    ],
)
def test_rejected_records_abort_the_run(
    store_with: StoreMaker,
    tmp_path: Path,
    n_rejected: int,
    n_usable: int,
    on_error: str,
    messages: list[str],
) -> None:
    report = tmp_path / "rejected.csv"
    with pytest.raises(UserError) as error:
        check_rejected(
            dataset_with(store_with, n_rejected, n_usable), SOURCE, on_error, report, 0.05
        )
    message = str(error.value)
    assert all(part in message for part in [*messages, str(SOURCE), str(report)]), message
    assert "x3" not in message
    assert len(report.read_text().splitlines()) == 1 + n_rejected


def test_targets_missing_everywhere_abort_the_run(store_with: StoreMaker, tmp_path: Path) -> None:
    dataset = select_targets(store_with({"gap": [None, None]}), [Target("gap")], [], SOURCE)
    assert dataset.rows.shape == (0,)
    with pytest.raises(
        UserError, match=r"2 of 2 records cannot be used \(c0: gap missing; c1: gap missing\)"
    ):
        check_rejected(dataset, SOURCE, "skip", tmp_path / "rejected.csv", 0.05)


def test_outliers_and_untrained_classes_are_reported(store_with: StoreMaker) -> None:
    gap, kind = Target("gap"), Target("kind", task="classification", classes=("a", "b", "c"))
    values = torch.cat([torch.linspace(0, 39, 40), torch.tensor([1e6, -5e5])])
    kinds = torch.tensor([0.0, 1.0] * 20 + [2.0, float("nan")])
    store, rows = store_with({"gap": values.tolist()}), torch.arange(42)
    dataset = Dataset(store, [gap, kind], torch.stack([values, kinds], 1), rows, [])
    outlier, untrained = label_warnings(dataset, torch.arange(40))
    assert outlier == (
        "gap of c40 is 1e+06 (2 such values), but half of all values lie between 9.25 and 29.75. "
        "Such an outlier dominates mean, standard deviation and loss; check it"
    )
    assert untrained == (
        "kind = c (1 in val and test) occurs in no training row; the model cannot learn it"
    )
    (only,) = label_warnings(dataset, torch.arange(41))
    assert only.startswith("gap of c40")


def test_booleans_that_are_trained_as_numbers_are_reported(store_with: StoreMaker) -> None:
    store = store_with({"flag": [True, None, False]})
    dataset = select_targets(store, [Target("flag")], [], SOURCE)
    (warning,) = label_warnings(dataset, dataset.rows)
    assert "dataset.tasks.flag=classification" in warning
    classes = Target("flag", task="classification", classes=("false", "true"))
    dataset = select_targets(store, [classes], [], SOURCE)
    assert not list(label_warnings(dataset, dataset.rows))


@pytest.mark.parametrize(
    "values", [[0.5, 1.25, 3.0, 7.0] * 10, [0.0] * 40 + [1.0] * 2], ids=["ordinary", "half equal"]
)
def test_ordinary_labels_need_no_warning(store_with: StoreMaker, values: list[float]) -> None:
    dataset = select_targets(store_with({"gap": values}), [Target("gap")], [], SOURCE)
    assert not list(label_warnings(dataset, dataset.rows))
