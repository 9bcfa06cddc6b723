import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from csgcnn.data.dataset import select_targets
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target, check_labels, derive_columns, describe_targets
from csgcnn.errors import ConfigError, UserError

SOURCE = Path("mine/set.json")
NAN = float("nan")
StoreMaker = Callable[..., GraphStore]
CLASS = Target("system", task="classification", classes=("cubic", "hexagonal"))


def test_columns_are_derived_from_others(store_with: StoreMaker) -> None:
    store = store_with({"gap": [0, 0.5, 2, None], "a gap (eV)": [1, 2, NAN, False]})
    derived = {"is_metal": "gap == 0", "is_wide": "gap >= .5", "is_large": "a gap (eV) > 1."}
    derive_columns(store, derived, SOURCE)
    assert store.columns["is_metal"] == [1, 0, 0, None]
    assert store.columns["is_wide"] == [0, 1, 1, None]
    assert store.columns["is_large"] == [0, 1, None, 0]


def test_an_expression_is_not_executed(
    store_with: StoreMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expression = "__import__('os').mkdir('trap')"
    with pytest.raises(ConfigError) as error:
        derive_columns(store_with({"gap": [1.0]}), {"new": expression}, SOURCE)
    assert str(error.value) == (
        f"dataset.derived.new={expression!r}: expected <column> <sign> <number> with one of "
        "< <= > >= == !=, such as 'band_gap == 0'"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("derived", "message"),
    [
        (
            {"new": "gpa > 0"},
            r"new='gpa > 0': mine/set\.json has no column 'gpa'; the columns are gap, text",
        ),
        ({"new": "text > 0"}, r"new='text > 0': text of c1 is 'metal', expected a number"),
        ({"gap": "gap > 0"}, r"mine/set\.json already has a column gap; choose another name"),
    ],
)
def test_a_comparison_that_does_not_fit_the_data_is_refused(
    store_with: StoreMaker, derived: dict[str, str], message: str
) -> None:
    store = store_with({"gap": [1.0, 2.0], "text": [None, "metal"]})
    with pytest.raises(UserError, match=message):
        derive_columns(store, derived, SOURCE)


def test_classes_are_the_values_of_the_column(store_with: StoreMaker) -> None:
    columns: dict[str, list[Scalar]] = {
        "mixed": [1, 1.0, True, "1", 0, None],
        "numbers": [10, 9, 2.5, -1, None, 9],
        "names": ["cubic", None, "hexagonal", "cubic", "cubic", "cubic"],
        "gap": [1.0] * 6,
    }
    tasks = dict.fromkeys(["mixed", "numbers", "names"], "classification")
    targets = describe_targets(
        store_with(columns), list(columns), tasks, {"gap": "eV"}, {"mixed": "gap > 0"}, SOURCE
    )
    assert [target.classes for target in targets] == [
        ("0", "1"),
        ("-1", "2.5", "9", "10"),
        ("cubic", "hexagonal"),
        (),
    ]
    assert targets[0].derived == "gap > 0"
    assert targets[3] == Target("gap", "eV")
    assert [target.n_outputs for target in targets] == [2, 4, 2, 1]
    assert targets[2].outputs == ["names_probability_cubic", "names_probability_hexagonal"]


def test_the_only_column_may_be_text_if_it_is_a_class(store_with: StoreMaker) -> None:
    store = store_with({"target": ["a", "b"]})
    (target,) = describe_targets(store, None, {"target": "classification"}, {}, {}, SOURCE)
    assert target.classes == ("a", "b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0] * 300, r"x has 1 different values \(1, …\), expected 2 to 230 classes"),
        ([None] * 300, r"x has 0 different values, expected"),
        (
            [0.5 * number for number in range(300)],
            r"x has 300 different values .*dataset\.derived\.NAME='x > 0'",
        ),
    ],
)
def test_too_few_or_too_many_classes_are_refused(
    store_with: StoreMaker, values: list[Scalar], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        describe_targets(store_with({"x": values}), ["x"], {"x": "classification"}, {}, {}, SOURCE)


def test_a_task_of_another_column_is_refused(store_with: StoreMaker) -> None:
    with pytest.raises(
        ConfigError, match=r"dataset\.tasks\.y: y is not a target; the targets are x"
    ):
        describe_targets(
            store_with({"x": [1, 2], "y": [0, 1]}), ["x"], {"y": "classification"}, {}, {}, SOURCE
        )


def test_values_of_mixed_targets(store_with: StoreMaker) -> None:
    store = store_with(
        {"system": ["hexagonal", "cubic", None, None, "cubik"], "gap": [1.5, None, 2.0, None, 1.0]}
    )
    dataset = select_targets(store, [CLASS, Target("gap")], [], SOURCE)
    torch.testing.assert_close(
        dataset.values[:4],
        torch.tensor([[1, 1.5], [0, NAN], [NAN, 2.0], [NAN, NAN]]),
        equal_nan=True,
    )
    assert dataset.rows.tolist() == [0, 1, 2]
    assert [entry.reason for entry in dataset.rejected] == [
        "system and gap missing",
        "system is 'cubik', expected one of cubic, hexagonal",
    ]


def test_targets_without_enough_labels_are_refused() -> None:
    targets = [CLASS, Target("gap")]
    check_labels(torch.tensor([[0, NAN], [1, 2.0], [1, 3.0]]), targets)
    with pytest.raises(
        UserError, match=r"of one class, system = hexagonal: .*dataset\.split\.stratify=system"
    ):
        check_labels(torch.tensor([[1, 1.0], [1, 2.0], [NAN, 3.0]]), targets)
    with pytest.raises(UserError, match="no training row has a value of gap"):
        check_labels(torch.tensor([[0, NAN], [1, NAN]]), targets)
    with pytest.raises(UserError, match="no training row has a value of system"):
        check_labels(torch.tensor([[NAN, 1.0]]), targets)


def test_a_missing_value_is_nan_whatever_the_task() -> None:
    assert math.isnan(CLASS.encode(None))
    assert math.isnan(Target("gap").encode(None))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [3.7] * 32,
            r"gap is 3\.7 in all training rows that have it \(32\): there is nothing to learn",
        ),
        ([1.17], r"gap is 1\.17 in all training rows that have it \(1\)"),
        ([0.0, 0.0, NAN], r"gap is 0 in all training rows that have it \(2\)"),
        (
            [-137000.1, -137000.2],
            r"gap lies between -137000\.\d+ and -137000\.\d+ in .* subtract a constant .* 7 digits",
        ),
        ([1e6 + 0.001, 1e6 + 0.002], r"gap is 1000000 in all training rows"),
        ([0.0, 1e-40], r"there is nothing to learn"),
    ],
)
def test_targets_without_a_spread_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_labels(torch.tensor([values]).T, [Target("gap")])


@pytest.mark.parametrize(
    "values", [[1.0, 2.0], [0.0, 1e-30], [1e30, -1e30], [-137000.0, -136900.0], [1e-12, 1e30]]
)
def test_targets_with_a_spread_are_accepted(values: list[float]) -> None:
    check_labels(torch.tensor([values]).T, [Target("gap")])
