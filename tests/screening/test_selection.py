import pytest

from csgcnn.errors import ConfigError
from csgcnn.screening.selection import selection

COLUMNS = ["id", "gap", "gap_std", "K (Reuss)", "out_of_domain"]
IS_NUMBER = [False, True, True, True, False]
ROWS = [
    ["a", "1.5", "0.1", "10", ""],
    ["b", "nan", "0.2", "30", "isolated_atoms"],
    ["c", "-2", "0.3", "20", "unseen_pair:Na-Cl;isolated_atoms"],
    ["d", "1.5", "0.4", "1e3", ""],
]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (None, "abcd"),
        ("gap<1.6", "acd"),
        ("gap != 1.5", "c"),
        ("gap >= -2 and gap_std <= 3e-1", "ac"),
        ("out_of_domain == ''", "ad"),
        ('gap < 1 and out_of_domain!=""', "c"),
        ("id != 'b' and gap_std < 0.25", "a"),
        (" gap == 1.5  and  gap_std > .1 and K (Reuss) > 100 ", "d"),
    ],
)
def test_rows_within_limits(where: str | None, kept: str) -> None:
    assert [row[0] for row in selection(COLUMNS, IS_NUMBER, where).of(ROWS)] == list(kept)


@pytest.mark.parametrize(
    ("top", "by", "order", "kept"),
    [
        (9, "gap", "highest", "adc"),  # equal ones as they came; what is no number has no rank
        (9, "gap", "lowest", "cad"),
        (1, "gap", "highest", "a"),
        (2, "K (Reuss)", "highest", "db"),
        (2, None, "lowest", "ca"),
    ],
)
def test_the_best_rows(top: int, by: str | None, order: str, kept: str) -> None:
    wanted = selection(COLUMNS, IS_NUMBER, None, top, by, order, default="gap")
    assert "".join(row[0] for row in wanted.of(ROWS)) == kept


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"where": "gap"}, r"<column> <sign> <number>.*'gap < 1.5'"),
        ({"where": "gap < 1 and"}, "<column> <sign> <number>"),
        ({"where": "gap < 1 or gap > 2"}, "<column> <sign> <number>"),
        ({"where": "gab < 1"}, "no column 'gab'.*did you mean gap"),
        ({"where": "id < 1"}, "id is text.*where=\"id == ''\""),
        ({"where": "id < 'b'"}, "<column> == '<text>'"),
        ({"where": "gap == 'b'"}, "gap is a number"),
        ({"where": "domain == ''"}, "no column 'domain'.*did you mean out_of_domain"),
        ({"top": 3}, "by=… of gap, gap_std"),
        ({"top": 3, "by": "id"}, "by=id: id is text"),
        ({"by": "gap"}, "give top=N"),
        ({"order": "lowest"}, "give top=N"),
    ],
)
def test_what_cannot_be_understood(words: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        selection(COLUMNS, IS_NUMBER, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("gap == 0", [0]),
        ("gap==0.0", [0]),
        (" gap  !=  0 ", [-1, 1]),
        ("gap < .5", [-1, 0]),
        ("gap<=1.", [-1, 0, 1]),
        ("gap > -5e-1", [0, 1]),
        ("a gap (eV) >= +0", [0, 1]),
    ],
)
def test_a_comparison_has_a_column_a_sign_and_a_number(where: str, kept: list[float]) -> None:
    rows = [[str(number)] * 2 for number in (-1, 0, 1, "nan")]
    found = selection(["gap", "a gap (eV)"], [True, True], where).of(rows)
    assert [row[0] for row in found] == list(map(str, kept))


@pytest.mark.parametrize(
    "where",
    [
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
        "gap == 0\nimport os",
        "__import__('os').mkdir('trap')",
    ],
)
def test_other_text_is_refused(where: str) -> None:
    expected = r": expected <column> <sign> <number> with one of < <= > "
    with pytest.raises(ConfigError, match=expected):
        selection(COLUMNS, IS_NUMBER, where)
