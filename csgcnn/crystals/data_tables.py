"""Tables of data sets in JSON and csv files: columns and rows, read row by row."""

import csv
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from csgcnn.crystals.json_stream import JsonStream
from csgcnn.crystals.structures import is_structure_dict
from csgcnn.crystals.text_files import text_pieces
from csgcnn.errors import StructureError, UserError, one_line

# Records of a JSON list that are read ahead to find its columns.
_N_HEAD_RECORDS = 1000
_SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl"}
_EXPECTED_JSON = "expected a list of records, or a DataFrame with columns and data"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a data-set file.

    Attributes:
        columns: Names of the columns; later rows of a JSON list may have more.
        rows: Index and values by column of each row; raises UserError at a malformed row.
        is_text: Whether numbers are still text, as in csv.
    """

    columns: list[str]
    rows: Iterator[tuple[Any, dict[str, Any]]]
    is_text: bool


def table_format(path: Path) -> str | None:
    """Return "csv", "json" or "jsonl" by the suffix, which `.gz` may follow, or None."""
    return _SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix.lower())


def json_table(stream: JsonStream) -> Table:
    """Return the table of a JSON file: a list of records, or a DataFrame in split orient.

    Raises:
        UserError: The file holds something else; the message says what.
    """
    found = json_table_or_value(stream)
    if isinstance(found, Table):
        return found
    content = "a single structure" if is_structure_dict(found) else reprlib.repr(found)
    if isinstance(found, dict) and not is_structure_dict(found):
        content = f"an object with the keys {', '.join(found)}"
    raise UserError(f"{stream.path}: holds {one_line(content)}; {_EXPECTED_JSON}")


def json_table_or_value(stream: JsonStream) -> Any:
    """Return the table of a JSON file, or the value of a file without a table.

    Raises:
        UserError: The file is not valid JSON.
    """
    path = stream.path
    if stream.peek() == "[":
        return _record_table(path, _last_list(stream))
    if stream.peek() != "{":
        value = stream.value()
        stream.end()
        return value
    content: dict[str, Any] = {}
    keys = stream.entries()
    for key in keys:
        if key == "data" and {"columns", "index"} <= content.keys() and stream.peek() == "[":
            rows = _last_list(stream, keys)
            return _split_table(path, content["columns"], content["index"], rows)
        content[key] = stream.value()
    stream.end()
    if {"columns", "data"} <= content.keys():
        return _split_table(path, content["columns"], content.get("index"), content["data"])
    return content


def json_lines_table(stream: JsonStream) -> Table:
    """Return the table of a file with one JSON record per line.

    Raises:
        UserError: A value is not a record.
    """
    return _record_table(stream.path, (stream.value() for _ in iter(stream.peek, "")))


def csv_table(path: Path) -> Table:
    """Return the table of a csv file with a header.

    Raises:
        UserError: A line is malformed, or two columns have one name.
    """
    rows = csv_rows(path)
    columns = next(rows)
    _check_columns(path, columns)
    values = (dict(zip(columns, row, strict=True)) for row in rows)
    return Table(columns, enumerate(values), is_text=True)


def csv_rows(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a csv file with stripped cells; blank lines are skipped.

    Raises:
        UserError: A line is malformed or has another number of cells, or there are no rows.
    """
    reader = csv.reader(_lines(path), strict=True)
    length = 0
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            if length and len(row) != length:
                raise UserError(
                    f"{path}: line {reader.line_num} has {len(row)} fields, expected {length}"
                )
            length = len(row)
            yield row
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not csv ({error})") from None
    if not length:
        raise UserError(f"{path}: the table is empty")


def _lines(path: Path) -> Iterator[str]:
    rest = ""
    try:
        for piece in text_pieces(path):
            *lines, rest = (rest + piece).splitlines(keepends=True) or [""]
            yield from lines
    except StructureError as error:
        raise UserError(f"{path}: {error}") from None
    yield rest


def find_column(
    path: Path, table: Table, wanted: str | None, usual: Iterable[str], role: str
) -> str:
    """Return a column of a table.

    Args:
        path: File of the table, for messages.
        table: The table.
        wanted: Name that the user gave, or None.
        usual: Names to look for otherwise; the first that exists is returned.
        role: What the column holds, for messages.

    Raises:
        UserError: The table has no such column; the message lists its columns.
    """
    exist = f"the columns are {one_line(', '.join(map(str, table.columns)))}"
    if wanted is not None and wanted not in table.columns:
        raise UserError(f"{path}: no column {wanted!r} for the {role}; {exist}")
    found = wanted or next((name for name in usual if name in table.columns), None)
    if found is None:
        raise UserError(
            f"{path}: no column for the {role} (looked for {', '.join(usual)}); {exist}"
        )
    return found


def _check_columns(path: Path, columns: list[str]) -> None:
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        names = one_line(", ".join(repeated))
        raise UserError(f"{path}: several columns are called {names}; give each its own name")


def _last_list(stream: JsonStream, keys: Iterable[str] = ()) -> Iterator[Any]:
    """Yield the items of a list, skip the entries of the object after it, and expect the end."""
    yield from stream.items()
    for _ in keys:
        stream.value()
    stream.end()


def _record_table(path: Path, values: Iterator[Any]) -> Table:
    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(values, 1):
            if not isinstance(row, dict):
                found = f"entry {number} is {reprlib.repr(row):.60}"
                raise UserError(f"{path}: {found}; {_EXPECTED_JSON}")
            yield row

    all_rows = rows()
    head = list(islice(all_rows, _N_HEAD_RECORDS))
    columns = list(dict.fromkeys(chain.from_iterable(head)))
    return Table(columns, enumerate(chain(head, all_rows)), is_text=False)


def _split_table(path: Path, columns: Any, index: Any, data: Any) -> Table:
    if not isinstance(columns, list) or any(isinstance(name, list | dict) for name in columns):
        found = f"columns is {reprlib.repr(columns):.60}, not a list of names"
        raise UserError(f"{path}: {found}; {_EXPECTED_JSON}")
    columns = list(map(str, columns))
    _check_columns(path, columns)
    if not isinstance(index, list | None):
        raise UserError(f"{path}: index is {reprlib.repr(index):.60}, not a list; {_EXPECTED_JSON}")
    return Table(columns, _split_rows(path, columns, index, data), is_text=False)


def _split_rows(
    path: Path, columns: list[str], index: list[Any] | None, data: Any
) -> Iterator[tuple[Any, dict[str, Any]]]:
    n_rows = 0
    try:
        for n_rows, row in enumerate(data, 1):
            values = dict(zip(columns, row, strict=True))
            if index is None or n_rows <= len(index):
                yield (n_rows - 1 if index is None else index[n_rows - 1]), values
    except (TypeError, ValueError):
        raise UserError(
            f"{path}: the rows of data do not match the columns; {_EXPECTED_JSON}"
        ) from None
    if index is not None and len(index) != n_rows:
        raise UserError(f"{path}: {len(index)} entries in index but {n_rows} rows of data")
