import json
from pathlib import Path

import numpy as np
import pytest
from record_lists import read_records
from structure_text import CSCL, Write

from csgcnn.errors import UserError


@pytest.mark.parametrize("name", ["../x.cif", "/etc/x.cif", "a/../../x.cif", "./.././x.cif"])
def test_tables_must_not_name_files_outside_their_folder(
    write: Write, tmp_path: Path, name: str
) -> None:
    for table in (
        write("table.csv", f"id,file\na,{name}\n"),
        write("id_prop.csv", f"{name.removesuffix('.cif')},1\n"),
    ):
        with pytest.raises(
            UserError, match=r"names the file .* which is not in the folder of the table"
        ) as caught:
            read_records(table if table.name == "table.csv" else tmp_path)
        assert str(caught.value).isprintable()
    (record,) = read_records(write("table.csv", "id,file\na,b/../..x/./a.cif\n"))
    assert record.source == tmp_path / "..x" / "a.cif"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "id,file\na,a\0.cif\n", "binary data"),
        ("a.csv", "id,file\na,b\n\nc\n", "line 4 has 1 field, expected 2"),
        (
            "a.csv",
            'id,"x\n\x1b[2J","x\n\x1b[2J"\na,b,c\n',
            r"several columns are called x \[2J; give",
        ),
        (
            "a.csv",
            "id,file\na," + "b" * 200_000,
            "a cell of 200000 characters in one line .*neither the name of a file nor the text",
        ),
        ("a.json", {"columns": ["a", "a"], "data": []}, "several columns are called a"),
        ("a.json", {"columns": [1, "1"], "data": []}, "several columns are called 1"),
        ("a.json", {"columns": [["a"]], "data": []}, "not a list of names"),
        ("a.json", {"columns": ["a"], "data": [[1]], "index": 7}, "index is 7, not a list"),
        ("a.json", "[" * 100_000, "not valid JSON .*recursion"),
        ("a.json", "[" + "9" * 5000 + "]", "not valid JSON .*digits"),
        ("a.json", {"a\n\x1b[2J": 1}, r"keys a \[2J; expected"),
        ("a.json", ["\n\x1b[2J"], r"entry 1 is '\\n\\x1b"),
        (
            "a.json",
            [{"id": [1], "structure": CSCL}],
            r"the id of record 1 is \[1\]; expected text or a number",
        ),
    ],
)
def test_malformed_tables_are_refused_in_one_printable_line(
    write: Write, name: str, content: object, reason: str
) -> None:
    path = write(name, content)
    with pytest.raises(UserError, match=reason) as caught:
        read_records(path)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)


def test_unusual_but_valid_values_are_kept(write: Write) -> None:
    deep = json.loads("[" * 100 + "]" * 100)
    values = {"large": 10**400, "small": -(10**400), "most": 10**300, "deep": deep}
    text = json.dumps([{"id": "a", "structure": CSCL} | values])
    (record,) = read_records(write("set.json", text.replace('"a"', r'"\ud800 \ud83d\ude00"')))
    assert record.id == "? 😀"
    assert record.columns == {"large": np.inf, "small": -np.inf, "most": 10**300}
