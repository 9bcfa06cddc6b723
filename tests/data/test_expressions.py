"""Test expressions of columns."""

import math
from typing import Any

import pytest

from csgcnn.crystals.records import Scalar
from csgcnn.data.expressions import TextFoundError, UnknownColumnError, parse_expression

COLUMNS: dict[str, list[Scalar]] = {
    "gap": [0, 0.5, 2, None],
    "n": [1, 2, 3, 4.0],
    "a gap (eV)": [1, 2, math.nan, False],
    "outputs.pbe.gap": [1, 2, 3, 4],
    "kind": ["metal", "oxide", None, "a-b"],
    "a-b": [1, 2, 3, 4],
    "Å": [1, 2, 3, 4],
    "class": [2, 2, 2, 2],
}


def values(text: str) -> list[Any]:
    return parse_expression(text, COLUMNS).values(COLUMNS)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gap == 0", [1, 0, 0, None]),
        ("gap >= .5", [0, 1, 1, None]),
        ("0 < gap", [0, 1, 1, None]),
        ("gap + n > 2", [0, 1, 1, None]),
        ("gap / n", [0, 0.25, 2 / 3, None]),
        ("-n ** 2", [-1, -4, -9, -16]),
        ("2 * (n - 1)", [0, 2, 4, 6]),
        ("log10(n)", [math.log10(n) for n in range(1, 5)]),
        ("log(exp(n))", [1, 2, 3, 4]),
        ("sqrt(abs(-n * n))", [1, 2, 3, 4]),
        ("min(n, 2) + max(n, 2, 3)", [4, 5, 5, 6]),
        ("a gap (eV) > 1.", [0, 1, None, 0]),
        ("`a gap (eV)` / 2", [0.5, 1, None, 0]),
        ("outputs.pbe.gap / n", [1, 1, 1, 1]),
        ("a-b + 1", [2, 3, 4, 5]),
        ("Å ** class", [1, 4, 9, 16]),
        ("kind == 'metal'", [1, 0, None, 0]),
        ("kind == 'a-b'", [0, 0, None, 1]),
        ("'metal' if gap == 0 else 'insulator'", ["metal", "insulator", "insulator", None]),
        ("log10(gap) if gap > 0 else 0", [0, math.log10(0.5), math.log10(2), None]),
    ],
)
def test_an_expression_is_computed_row_by_row(text: str, expected: list[Any]) -> None:
    found = values(text)
    is_number = [isinstance(value, float | int) for value in expected]
    numbers = [value for value, chosen in zip(expected, is_number, strict=True) if chosen]
    computed = [value for value, chosen in zip(found, is_number, strict=True) if chosen]
    assert computed == pytest.approx(numbers)
    others = [value for value, chosen in zip(expected, is_number, strict=True) if not chosen]
    assert [value for value in found if not isinstance(value, float | int)] == others


@pytest.mark.parametrize(
    "text", ["log10(gap)", "n / gap", "(0 - n) ** 0.5", "exp(n * 1000)", "n ** 9999", "1e999 * n"]
)
def test_rows_that_cannot_be_computed_are_told_apart_from_missing_ones(text: str) -> None:
    found, failed = parse_expression(text, COLUMNS).values(COLUMNS)
    assert failed
    assert 3 not in failed or "gap" not in text
    assert all(found[row] is None for row in failed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "gap ==",
        "gap = 0",
        "gap <> 0",
        "0 < gap < 1",
        "gap == 0 and n == 1",
        "gap == 0\nimport os",
        "log10(n, 2)",
        "min(n)",
        "log10(x=n)",
        "lambda: n",
        "[n for n in gap]",
        "(n := 1)",
        "f'{n}'",
        "True * n",
        "n.real()",
        "__import__('os').mkdir('trap')",
        "(" * 500 + "n" + ")" * 500,
        "-" * 900 + "n",
        "n" * 2000,
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        parse_expression(text, COLUMNS)


def test_unknown_columns_and_text_are_named() -> None:
    with pytest.raises(UnknownColumnError) as unknown:
        parse_expression("gpa > 0", COLUMNS)
    assert unknown.value.column == "gpa"
    with pytest.raises(TextFoundError) as text:
        values("kind + 1")
    assert (text.value.column, text.value.row, text.value.value) == ("kind", 0, "metal")


def test_a_number_is_no_column_unless_it_is_in_backticks() -> None:
    columns: dict[str, list[Scalar]] = {"1": [7], "1e3": [7], "n": [2], "-": [7]}
    assert parse_expression("n - 1 + 1e3", columns).values(columns)[0] == [1001]
    assert parse_expression("n - `1` + `-`", columns).values(columns)[0] == [2]


def test_an_ambiguous_name_needs_backticks() -> None:
    columns: dict[str, list[Scalar]] = {"a-b": [1], "a": [5], "b": [2]}
    with pytest.raises(ValueError, match=r"a-b is a column, and an expression .* `a-b`"):
        parse_expression("a-b > 0", columns)
    with pytest.raises(ValueError, match=r"`a-b`"):
        parse_expression("a-b", columns)
    assert parse_expression("`a-b` > 2", columns).values(columns)[0] == [0]
    assert parse_expression("a - b > 2", columns).values(columns)[0] == [1]
