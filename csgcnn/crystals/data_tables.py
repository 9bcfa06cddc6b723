"""Data-set tables as they lie in json and csv files: columns, rows and an index, not yet records."""

import csv
import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from csgcnn.crystals.structure_files import one_line, read_text
from csgcnn.crystals.structures import is_structure_dict
from csgcnn.errors import UserError

_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half a character, which can be read but not written: or a pair
_EXPECTED_JSON = "expected a list of records, or a DataFrame with columns and data"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a data-set file; ``is_text`` says that numbers are still text, as in csv."""

    columns: list[str]
    rows: list[dict[str, Any]]
    index: list[Any]
    is_text: bool


def table_format(path: Path) -> str | None:
    """The table format that a file name promises ("csv" or "json"), or None; ``.gz`` may follow."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix[1:] if suffix in (".csv", ".json") else None


def load_json(path: Path) -> Any:
    """The value in a json file, gzip-compressed or not.

    Raises: UserError naming the file if it holds no valid json.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
        if _LONE_SURROGATE.search(text):
            value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
        return value
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({one_line(error)}); it starts with {text[:30]!r}") from None


def is_table(value: Any) -> bool:
    """Whether a JSON value has the outer shape of a data set: a list, or a DataFrame in split orient."""
    return isinstance(value, list) or (isinstance(value, dict) and {"columns", "data"} <= value.keys())


def json_table(path: Path, value: Any) -> Table:
    """The table in a JSON value: a list of records or a DataFrame in split orient.

    Raises: UserError naming the file and what it holds instead.
    """
    if isinstance(value, list):
        for number, row in enumerate(value, 1):
            if not isinstance(row, dict):
                raise UserError(f"{path}: entry {number} is {reprlib.repr(row):.60}; {_EXPECTED_JSON}")
        columns = list(dict.fromkeys(chain.from_iterable(value)))
        return Table(columns, value, list(range(len(value))), is_text=False)
    if is_table(value):
        return _split_table(path, value)
    found = "a single structure" if is_structure_dict(value) else reprlib.repr(value)
    if isinstance(value, dict) and not is_structure_dict(value):
        found = f"an object with the keys {', '.join(value)}"
    raise UserError(f"{path}: holds {one_line(found)}; {_EXPECTED_JSON}")


def csv_table(path: Path) -> Table:
    """The table in a csv file with a header.

    Raises: UserError naming the file and line that is malformed.
    """
    columns, *rows = csv_rows(path)
    _check_columns(path, columns)
    return Table(columns, [dict(zip(columns, row, strict=True)) for row in rows], list(range(len(rows))), is_text=True)


def csv_rows(path: Path) -> list[list[str]]:
    """The rows of a csv file, at least one, all of one length, cells stripped, blank lines left out.

    Raises: UserError naming the file and line that is malformed.
    """
    reader = csv.reader(read_text(path).splitlines(keepends=True), strict=True)
    rows: list[list[str]] = []
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            if rows and len(row) != len(rows[0]):
                raise UserError(f"{path}: line {reader.line_num} has {len(row)} fields, expected {len(rows[0])}")
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not csv ({error})") from None
    if not rows:
        raise UserError(f"{path}: the table is empty")
    return rows


def find_column(path: Path, table: Table, wanted: str | None, usual: Iterable[str], role: str) -> str:
    """The wanted column, or else the first of the usual ones that the table has.

    Raises: UserError that says which columns exist.
    """
    exist = f"the columns are {one_line(', '.join(map(str, table.columns)))}"
    if wanted is not None and wanted not in table.columns:
        raise UserError(f"{path}: no column {wanted!r} for the {role}; {exist}")
    found = wanted or next((name for name in usual if name in table.columns), None)
    if found is None:
        raise UserError(f"{path}: no column for the {role} (looked for {', '.join(usual)}); {exist}")
    return found


def _check_columns(path: Path, columns: list[str]) -> None:
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: several columns are called {one_line(', '.join(repeated))}; give each its own name")


def _split_table(path: Path, value: dict[str, Any]) -> Table:
    columns, data, index = value["columns"], value["data"], value.get("index")
    if not isinstance(columns, list) or any(isinstance(name, list | dict) for name in columns):
        raise UserError(f"{path}: columns is {reprlib.repr(columns):.60}, not a list of names; {_EXPECTED_JSON}")
    columns = list(map(str, columns))
    _check_columns(path, columns)
    try:
        rows = [dict(zip(columns, row, strict=True)) for row in data]
    except (TypeError, ValueError):
        raise UserError(f"{path}: the rows of data do not match the columns; {_EXPECTED_JSON}") from None
    if index is None:
        index = list(range(len(rows)))
    if not isinstance(index, list):
        raise UserError(f"{path}: index is {reprlib.repr(index):.60}, not a list; {_EXPECTED_JSON}")
    if len(index) != len(rows):
        raise UserError(f"{path}: {len(index)} entries in index but {len(rows)} rows of data")
    return Table(columns, rows, index, is_text=False)
