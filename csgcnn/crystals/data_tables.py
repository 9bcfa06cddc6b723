"""Data-set tables as they lie in json and csv files: columns and rows, read one by one, not yet records."""

import csv
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from csgcnn.crystals.crystal import is_structure_dict
from csgcnn.crystals.json_stream import JsonStream
from csgcnn.crystals.structure_files import text_pieces
from csgcnn.errors import StructureError, UserError, one_line

HEAD = 1000  # records that are looked at to know the columns of a list of them
_SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl"}
_EXPECTED_JSON = "expected a list of records, or a DataFrame with columns and data"


@dataclass(frozen=True, slots=True)
class Table:
    """A data-set file: its columns, and an index and a dict for each row.

    ``is_text`` says that numbers are still text, as in csv.

    Raises: UserError naming the file and the row, from ``rows``, where it is malformed.
    """

    columns: list[str]
    rows: Iterator[tuple[Any, dict[str, Any]]]
    is_text: bool


def table_format(path: Path) -> str | None:
    """The table format that a file name promises ("csv", "json" or "jsonl"), or None; ``.gz`` may follow."""
    return _SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix.lower())


def json_table(path: Path) -> Table:
    """The table in a json file: a list of records, or a DataFrame in split orient.

    Raises: UserError naming the file and what it holds instead.
    """
    found = json_table_or_value(path)
    if isinstance(found, Table):
        return found
    told = "a single structure" if is_structure_dict(found) else reprlib.repr(found)
    if isinstance(found, dict) and not is_structure_dict(found):
        told = f"an object with the keys {', '.join(found)}"
    raise UserError(f"{path}: holds {one_line(told)}; {_EXPECTED_JSON}")


def json_table_or_value(path: Path) -> Any:
    """The table in a json file, or the value in a file that is none.

    Raises: UserError naming the file if it holds no valid json.
    """
    stream = JsonStream(path)
    if stream.peek() == "[":
        return _record_table(path, _data(stream))
    if stream.peek() != "{":
        value = stream.value()
        stream.end()
        return value
    content: dict[str, Any] = {}
    keys = stream.entries()
    for key in keys:
        if key == "data" and {"columns", "index"} <= content.keys() and stream.peek() == "[":
            return _split_table(path, content["columns"], content["index"], _data(stream, keys))
        content[key] = stream.value()
    stream.end()
    if {"columns", "data"} <= content.keys():
        return _split_table(path, content["columns"], content.get("index"), content["data"])
    return content


def json_lines_table(path: Path) -> Table:
    """The table in a file of JSON records one after the other, a line each.

    Raises: UserError naming the file and what it holds instead.
    """
    stream = JsonStream(path)
    return _record_table(path, (stream.value() for _ in iter(stream.peek, "")))


def csv_table(path: Path) -> Table:
    """The table in a csv file with a header.

    Raises: UserError naming the file and line that is malformed.
    """
    rows = csv_rows(path)
    columns = next(rows)
    _check_columns(path, columns)
    return Table(
        columns, enumerate(dict(zip(columns, row, strict=True)) for row in rows), is_text=True
    )


def csv_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a csv file, at least one, all of one length, cells stripped, blank lines left out.

    Raises: UserError naming the file and line that is malformed.
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
    """The wanted column, or else the first of the usual ones that the table has.

    Raises: UserError that says which columns exist.
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
        raise UserError(
            f"{path}: several columns are called {one_line(', '.join(repeated))}; give each its own name"
        )


def _data(stream: JsonStream, keys: Iterable[str] = ()) -> Iterator[Any]:
    """The items of a list, after which other entries of an object may follow, of no interest, and nothing else."""
    yield from stream.items()
    for _ in keys:
        stream.value()
    stream.end()


def _record_table(path: Path, values: Iterator[Any]) -> Table:
    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(values, 1):
            if not isinstance(row, dict):
                raise UserError(
                    f"{path}: entry {number} is {reprlib.repr(row):.60}; {_EXPECTED_JSON}"
                )
            yield row

    all_rows = rows()
    head = list(islice(all_rows, HEAD))
    columns = list(dict.fromkeys(chain.from_iterable(head)))
    return Table(columns, enumerate(chain(head, all_rows)), is_text=False)


def _split_table(path: Path, columns: Any, index: Any, data: Any) -> Table:
    if not isinstance(columns, list) or any(isinstance(name, list | dict) for name in columns):
        raise UserError(
            f"{path}: columns is {reprlib.repr(columns):.60}, not a list of names; {_EXPECTED_JSON}"
        )
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
