import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.data.dataset import select_targets
from csgcnn.data.derived import derive_columns
from csgcnn.data.label_checks import check_labels
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target, describe_targets
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
        "< <= > >= == !=, or arithmetic of columns and numbers with + - * / ** log10 log sqrt abs "
        "exp min max, such as 'band_gap == 0' or 'log10(modulus)'"
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
    settings = DatasetSettings(
        targets=list(columns), tasks=tasks, units={"gap": "eV"}, derived={"mixed": "gap > 0"}
    )
    targets = describe_targets(store_with(columns), settings, SOURCE)
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
    (target,) = describe_targets(store, DatasetSettings(tasks={"target": "classification"}), SOURCE)
    assert target.classes == ("a", "b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0] * 300, r"all 300 rows have x = 1: there is nothing to learn"),
        ([1, None, 1], r"all 2 rows have x = 1, the other 1 have no value: there is nothing"),
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
    settings = DatasetSettings(targets=["x"], tasks={"x": "classification"})
    with pytest.raises(UserError, match=message):
        describe_targets(store_with({"x": values}), settings, SOURCE)


def test_a_task_of_another_column_is_refused(store_with: StoreMaker) -> None:
    with pytest.raises(
        ConfigError, match=r"dataset\.tasks\.y: y is not a target; the targets are x"
    ):
        describe_targets(
            store_with({"x": [1, 2], "y": [0, 1]}),
            DatasetSettings(targets=["x"], tasks={"y": "classification"}),
            SOURCE,
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


def test_booleans_keep_their_names(store_with: StoreMaker) -> None:
    store = store_with({"flag": [True, None, False], "text": ["no", "yes", "no"]})
    tasks = dict.fromkeys(store.columns, "classification")
    flag, text = describe_targets(
        store, DatasetSettings(targets=["flag", "text"], tasks=tasks), SOURCE
    )
    assert (flag.classes, text.classes) == (("false", "true"), ("no", "yes"))
    assert [flag.encode(value) for value in (True, "true", "True", 1, False, "0")] == [
        *[1, 1, 1, 1],
        *[0, 0],
    ]
    with pytest.raises(ValueError, match="expected one of false, true"):
        flag.encode("yes")
    numbers = Target("flag", task="classification", classes=("0", "1"))
    assert [numbers.encode(value) for value in (True, False)] == [1, 0], "an earlier model"


def test_derived_classes_have_names(store_with: StoreMaker) -> None:
    store = store_with({"gap": [0.0, 1.0, None]})
    derived = {"kind": "'metal' if gap == 0 else 'insulator'"}
    derive_columns(store, derived, SOURCE)
    assert store.columns["kind"] == ["metal", "insulator", None]
    settings = DatasetSettings(targets=["kind"], tasks={"kind": "classification"}, derived=derived)
    (target,) = describe_targets(store, settings, SOURCE)
    assert target.outputs == ["kind_probability_insulator", "kind_probability_metal"]


def test_a_text_target_without_a_task_hints_at_classification(store_with: StoreMaker) -> None:
    store = store_with({"kind": ["metal", None, "-"]})
    for names in (None, ["kind"]):
        with pytest.raises(UserError, match=r"kind holds text .*dataset\.tasks\.kind=classif"):
            describe_targets(store, DatasetSettings(targets=names), SOURCE)


def test_rows_where_a_derived_target_cannot_be_computed_are_rejected(
    store_with: StoreMaker,
) -> None:
    store = store_with({"k": [100.0, 0.0, None, 10.0]})
    failed = derive_columns(store, {"log_k": "log10(k)"}, SOURCE)
    dataset = select_targets(store, [Target("log_k")], [], SOURCE, failed)
    assert dataset.rows.tolist() == [0, 3]
    assert dataset.values[dataset.rows].tolist() == [[2.0], [1.0]]
    assert dataset.rejected == [
        ("c1", "log_k = log10(k) cannot be computed: k is 0.0"),
        ("c2", "log_k missing"),
    ]


def test_rows_outside_the_domain_of_a_transform_are_rejected(store_with: StoreMaker) -> None:
    store = store_with({"k": [100.0, 0.0, None, 1e-3]})
    settings = DatasetSettings(targets=["k"], units={"k": "GPa"}, transform={"k": "log10"})
    (target,) = describe_targets(store, settings, SOURCE)
    assert (target.trained_title, target.trained_unit) == ("log10(k)", "log10(GPa)")
    dataset = select_targets(store, [target], [], SOURCE)
    torch.testing.assert_close(dataset.values[dataset.rows], torch.tensor([[2.0], [-3.0]]))
    assert dataset.rejected == [
        ("c1", "k is 0.0, expected a number above 0 for dataset.transform.k=log10"),
        ("c2", "k missing"),
    ]


def test_a_class_has_no_transform(store_with: StoreMaker) -> None:
    store = store_with({"kind": [0, 1]})
    with pytest.raises(ConfigError, match=r"dataset\.transform\.kind: a class"):
        describe_targets(
            store,
            DatasetSettings(
                targets=["kind"], tasks={"kind": "classification"}, transform={"kind": "log"}
            ),
            SOURCE,
        )
    with pytest.raises(ConfigError, match=r"dataset\.labels\.knd: knd is not a target"):
        describe_targets(store, DatasetSettings(targets=["kind"], labels={"knd": "a"}), SOURCE)


def test_weights_of_rows(store_with: StoreMaker) -> None:
    store = store_with({"x": [1.0] * 5, "w": [1, 3.0, None, -1, "heavy"]})
    dataset = select_targets(store, [Target("x")], [], SOURCE, weight_column="w")
    assert dataset.rows.tolist() == [0, 1]
    expected = ", expected a number of at least 0"
    assert dataset.rejected == [
        ("c2", f"weight w is missing{expected}"),
        ("c3", f"weight w is -1{expected}"),
        ("c4", f"weight w is 'heavy'{expected}"),
    ]
    weights = dataset.loss_weights(dataset.rows, torch.device("cpu"))
    assert weights is not None
    assert weights[:2].tolist() == [[0.5], [1.5]]
    with pytest.raises(UserError, match=r"weight_column=v: mine/set\.json has no such column"):
        select_targets(store, [Target("x")], [], SOURCE, weight_column="v")
