import pytest

from csgcnn.data.comparisons import parse_comparison


@pytest.mark.parametrize(
    ("text", "column", "number", "holds_at"),
    [
        ("gap == 0", "gap", 0, [0]),
        ("gap==0.0", "gap", 0, [0]),
        (" gap  !=  0 ", "gap", 0, [-1, 1]),
        ("gap < .5", "gap", 0.5, [-1, 0]),
        ("gap<=1.", "gap", 1, [-1, 0, 1]),
        ("gap > -5e-1", "gap", -0.5, [0, 1]),
        ("a gap (eV) >= +0", "a gap (eV)", 0, [0, 1]),
    ],
)
def test_a_comparison_has_a_column_a_sign_and_a_number(
    text: str, column: str, number: float, holds_at: list[float]
) -> None:
    comparison = parse_comparison(text)
    assert (comparison.column, comparison.value) == (column, number)
    assert [value for value in (-1, 0, 1) if comparison.holds(value)] == holds_at
    assert not parse_comparison("gap < 1").holds(float("nan"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gap",
        "gap ==",
        "== 0",
        "gap = 0",
        "gap == x",
        "gap == 1 2",
        "gap === 0",
        "gap <> 0",
        "gap => 1",
        "gap == nan",
        "0 < gap < 1",
        "gap == 0 and n == 1",
        "gap == 0\nimport os",
        "__import__('os').mkdir('trap')",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected <column> <sign> <number> with one of < <= > "):
        parse_comparison(text)
