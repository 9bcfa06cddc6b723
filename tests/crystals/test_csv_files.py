"""Tables of text in the forms that editors and spreadsheets write."""

import json
from pathlib import Path

import pytest
from record_lists import read_records
from structure_text import CIF, CSCL, POSCAR, Write

from csgcnn.crystals.records import ReadOptions
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import UserError

TABLE = "id,file,gap\na,a.vasp,1.5\nb,b.vasp,2.25\n"


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", ", "),
        TABLE.replace(",", ";").replace(".5", ",5").replace("2.25", "2,25"),
        "sep=;\n" + TABLE.replace(",", ";"),
        "# made by me, 2024\n" + TABLE,
        TABLE.replace("b,b", "# left out\n#c,c.vasp,9\nb,b"),
        "#" + TABLE,
        "# my data\n# " + TABLE,
        TABLE.replace("a.vasp", "'a.vasp'").replace("a,", "'a',").replace("b,", "'b',"),
        TABLE.replace("a.vasp", '"a.vasp"').replace("1.5", '"1.5"'),
        TABLE.replace("1.5", '"1,5"').replace("2.25", '"2,25"'),
        TABLE.replace("\n", "\r\n"),
        "\ufeff" + TABLE,
        TABLE.encode("utf-16"),
        b"\xfe\xff" + TABLE.encode("utf-16-be"),
    ],
)
@pytest.mark.parametrize("name", ["table.csv", "table.tsv"])
def test_the_form_of_a_table_is_recognized(
    write: Write, tmp_path: Path, name: str, text: str | bytes
) -> None:
    records = read_records(write(name, text))
    assert [record.id for record in records] == ["a", "b"]
    assert [record.source for record in records] == [tmp_path / "a.vasp", tmp_path / "b.vasp"]
    assert [record.columns for record in records] == [{"gap": 1.5}, {"gap": 2.25}]


def test_letters_beyond_ascii_in_other_encodings(write: Write) -> None:
    for encoding in ("utf-8", "utf-8-sig", "latin-1", "utf-16"):
        (record,) = read_records(write("t.csv", "id,file,note\né,a.vasp,Å\n".encode(encoding)))
        assert (record.id, record.columns) == ("é", {"note": "Å"})


def test_a_table_without_header_needs_names(write: Write) -> None:
    path = write("table.csv", "a,a.vasp,1.5\nb,b.vasp,2\n")
    with pytest.raises(UserError, match=r"no column for the structure file .*dataset\.columns"):
        read_records(path)
    records = read_records(path, ReadOptions(columns=("id", "file", "gap")))
    assert [(record.id, record.columns) for record in records] == [
        ("a", {"gap": 1.5}),
        ("b", {"gap": 2.0}),
    ]
    with pytest.raises(UserError, match=r"dataset\.columns has 2 names, but there are 3 columns"):
        read_records(path, ReadOptions(columns=("id", "file")))
    with pytest.raises(UserError, match=r"first row is a header \(id, file, gap\); omit"):
        read_records(write("t.csv", TABLE), ReadOptions(columns=("id", "file", "gap")))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1,234", "5,678"], "line 2: '1,234' has a comma that may separate decimals or thousands"),
        (["1,5", "2.25"], "line 3: '2.25' has a decimal point, but other cells .*decimal comma"),
    ],
)
def test_an_unclear_number_is_refused_with_line_and_cell(
    write: Write, cells: list[str], message: str
) -> None:
    rows = [f"{name};{name}.vasp;{cell}\n" for name, cell in zip("ab", cells, strict=True)]
    path = write("table.csv", "id;file;gap\n" + "".join(rows))
    with pytest.raises(UserError, match=rf"table\.csv: {message}"):
        read_records(path)


@pytest.mark.parametrize("cells", [["0,123", "1,234"], ["12,5", "n/a"], ["1,5", "-"], ["1,5", "2"]])
def test_decimal_commas_that_are_clear_are_read(write: Write, cells: list[str]) -> None:
    rows = [f"{name};{name}.vasp;{cell}\n" for name, cell in zip("ab", cells, strict=True)]
    first, _ = read_records(write("table.csv", "id;file;gap\n" + "".join(rows)))
    assert first.columns == {"gap": float(cells[0].replace(",", "."))}


def test_commas_in_text_stay(write: Write) -> None:
    path = write("table.csv", 'id,file,note\na,a.vasp,"1,0"\nb,b.vasp,"x,y"\n')
    assert [record.columns["note"] for record in read_records(path)] == ["1,0", "x,y"]


def test_cells_may_hold_the_text_of_a_structure(write: Write) -> None:
    texts = [CIF, "# made by hand\n" + CIF, POSCAR, json.dumps(CSCL)]
    quoted = [f'{n},"{text.replace(chr(34), chr(34) * 2)}",{n}.5' for n, text in enumerate(texts)]
    records = read_records(write("table.csv", "id,cif,gap\n" + "\n".join(quoted)))
    assert [record.columns["gap"] for record in records] == [0.5, 1.5, 2.5, 3.5]
    for record in records:
        assert to_crystal(record.source).atomic_number.tolist() == [55, 17]


def test_a_long_structure_fits_into_a_cell(write: Write) -> None:
    text = json.dumps(CSCL | {"note": "x" * 200_000}).replace('"', '""')
    (record,) = read_records(write("table.csv", f'id,structure,gap\na,"{text}",1\n'))
    assert len(to_crystal(record.source).atomic_number) == 2


def test_malformed_lines_are_named(write: Write) -> None:
    path = write("table.csv", "# comment\nid;file;gap\na;a.vasp;1\n\nb;b.vasp\n")
    with pytest.raises(UserError, match=r"table\.csv: line 5 has 2 fields, expected 3"):
        read_records(path)
