"""Data-set tables as they lie in json and csv files: columns, rows and an index, not yet records."""

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from csgcnn.crystals.structure_files import one_line, read_text
from csgcnn.crystals.structures import is_structure_dict
from csgcnn.errors import UserError

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
        return json.loads(text)
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
                raise UserError(f"{path}: entry {number} is {row!r:.60}; {_EXPECTED_JSON}")
        columns = list(dict.fromkeys(chain.from_iterable(value)))
        return Table(columns, value, list(range(len(value))), is_text=False)
    if is_table(value):
        return _split_table(path, value)
    found = "a single structure" if is_structure_dict(value) else repr(value)
    if isinstance(value, dict) and not is_structure_dict(value):
        found = f"an object with the keys {', '.join(value)}"
    raise UserError(f"{path}: holds {one_line(found)}; {_EXPECTED_JSON}")


def csv_table(path: Path) -> Table:
    """The table in a csv file with a header.

    Raises: UserError naming the file and line that is malformed.
    """
    columns, *rows = csv_rows(path)
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: several columns are called {', '.join(repeated)}; give each its own name")
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


def _split_table(path: Path, value: dict[str, Any]) -> Table:
    columns, data = value["columns"], value["data"]
    try:
        rows = [dict(zip(columns, row, strict=True)) for row in data]
    except (TypeError, ValueError):
        raise UserError(f"{path}: the rows of data do not match the columns; {_EXPECTED_JSON}") from None
    index = value.get("index", range(len(rows)))
    if len(index) != len(rows):
        raise UserError(f"{path}: {len(index)} entries in index but {len(rows)} rows of data")
    return Table(columns, rows, list(index), is_text=False)
