"""Tables of data sets in JSON and csv files: columns and rows, read row by row."""

import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Any, NamedTuple

from csgcnn.crystals.ase_database import ase_rows, is_ase_database
from csgcnn.crystals.csv_files import CsvFile
from csgcnn.crystals.json_stream import JsonStream
from csgcnn.crystals.nested import with_nested
from csgcnn.crystals.optimade import is_optimade, optimade_row
from csgcnn.crystals.records import Scalar, none_if_missing
from csgcnn.crystals.structures import is_structure_dict
from csgcnn.errors import UserError, one_line

STRUCTURE_COLUMNS = ("crystal_structure", "structure", "atoms")
FILE_COLUMNS = ("file", "path", "structure", "cif", "filename")
_SITE_KEYS = ("sites", "frac_coords", "coords", "cartesian_site_positions", "positions")
# Records of a JSON list that are read ahead to find its columns.
_N_HEAD_RECORDS = 1000
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
}
_EXPECTED_JSON = "expected a list of records, or a DataFrame with columns and data"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        index: Its index in a DataFrame, or its number from 0.
        values: Values by column. Those of nested dicts are also under dotted names.
        line: Its line in a file of text.
    """

    index: Any
    values: dict[str, Any]
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a data-set file.

    Attributes:
        columns: Names of the columns; later rows of a JSON list may have more.
        rows: The rows; raises UserError at a malformed row.
        scalar: Returns the number, text or missing value in a column of a row.
    """

    columns: list[str]
    rows: Iterator["Row"]
    scalar: Callable[["Row", str], Scalar] = lambda row, name: none_if_missing(row.values[name])


def table_format(path: Path) -> str | None:
    """Return csv, json, jsonl or parquet by the suffix, which `.gz` may follow, or None."""
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
        return record_table(path, _last_list(stream))
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
    if is_ase_database(content):
        return record_table(path, ase_rows(content))
    entries = content.get("data")
    if isinstance(entries, list) and any(map(is_optimade, entries)):
        return record_table(path, iter(entries))
    return content


def json_lines_table(stream: JsonStream) -> Table:
    """Return the table of a file with one JSON record per line.

    Raises:
        UserError: A value is not a record.
    """
    return record_table(stream.path, (stream.value() for _ in iter(stream.peek, "")))


def csv_table(path: Path, columns: Sequence[str] | None = None) -> Table:
    """Return the table of a csv file.

    Args:
        path: The file.
        columns: Names of the columns if the file has no header.

    Raises:
        UserError: A line is malformed, two columns have one name, or there is a header besides
            `columns`.
    """
    file = CsvFile(path)
    first = next(file.rows)
    names, data = first.cells, file.rows
    if columns is not None:
        is_header = not set(FILE_COLUMNS).isdisjoint(first.cells)
        check_given_columns(path, columns, first.cells, is_header)
        names, data = list(columns), chain([first], file.rows)
    elif set(FILE_COLUMNS).isdisjoint(names) and not set(FILE_COLUMNS).isdisjoint(file.comment):
        # The header is a comment: "# id,file,gap".
        names, data = file.comment, chain([first], file.rows)
    check_columns(path, names)
    position = {name: number for number, name in enumerate(names)}

    def rows() -> Iterator[Row]:
        for number, row in enumerate(data):
            yield Row(number, dict(zip(names, row.cells, strict=True)), row.line)

    def scalar(row: Row, name: str) -> Scalar:
        return file.value(row.values[name], position[name], row.line or 0)

    return Table(names, rows(), scalar)


def check_given_columns(
    path: Path, columns: Sequence[str], first: Sequence[str], is_header: bool
) -> None:
    """Check the names of columns that the user gave for a table without a header.

    Args:
        path: The table, for messages.
        columns: The names.
        first: The first cells of these columns.
        is_header: Whether these cells are names.

    Raises:
        UserError: There are more or fewer columns, or the table has a header.
    """
    if len(columns) != len(first):
        raise UserError(
            f"{path}: dataset.columns has {len(columns)} names, but there are {len(first)} columns "
            f"({one_line(', '.join(first))})"
        )
    if is_header:
        found = one_line(", ".join(first), 60)
        raise UserError(f"{path}: its first row is a header ({found}); omit dataset.columns")


def find_column(
    path: Path, table: Table, wanted: str | None, usual: Iterable[str], role: str, hint: str = ""
) -> str:
    """Return a column of a table.

    Args:
        path: File of the table, for messages.
        table: The table.
        wanted: Name that the user gave, or None.
        usual: Names to look for otherwise; the first that exists is returned.
        role: What the column holds, for messages.
        hint: End of the message if none of the usual names exists.

    Raises:
        UserError: The table has no such column; the message lists its columns.
    """
    exist = f"the columns are {one_line(', '.join(map(str, table.columns)))}"
    if wanted is not None and wanted not in table.columns:
        raise UserError(f"{path}: no column {wanted!r} for the {role}; {exist}")
    found = wanted or next((name for name in usual if name in table.columns), None)
    if found is None:
        raise UserError(
            f"{path}: no column for the {role} (looked for {', '.join(usual)}); {exist}{hint}"
        )
    return found


def check_columns(path: Path, columns: Sequence[str]) -> None:
    """Refuse a table, by a UserError, in which several columns have one name.

    Args:
        path: The table, for messages.
        columns: The names.
    """
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


def record_table(path: Path, values: Iterator[Any]) -> Table:
    """Return the table of some records; entries of OPTIMADE are records, too.

    Args:
        path: Their file, for messages.
        values: The records.

    Raises:
        UserError: A value is not a record.
    """
    nested_names: set[str] = set()

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(values, 1):
            if not isinstance(row, dict):
                found = f"entry {number} is {reprlib.repr(row):.60}"
                raise UserError(f"{path}: {found}; {_EXPECTED_JSON}")
            yield with_nested(_record(row), nested_names)

    all_rows = rows()
    head = list(islice(all_rows, _N_HEAD_RECORDS))
    columns = list(dict.fromkeys(chain.from_iterable(head)))
    return Table(columns, starmap(Row, enumerate(chain(head, all_rows))))


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose structure is in a column: that of OPTIMADE, or the row itself."""
    if "attributes" in row and is_optimade(row):
        return optimade_row(row)
    is_structure = is_structure_dict(row) and row.keys().isdisjoint(STRUCTURE_COLUMNS)
    if is_structure and any(isinstance(row.get(key), list) for key in _SITE_KEYS):
        others = {name: value for name, value in row.items() if not isinstance(value, list | dict)}
        return {**others, "structure": row}
    return row


def _split_table(path: Path, columns: Any, index: Any, data: Any) -> Table:
    if not isinstance(columns, list) or any(isinstance(name, list | dict) for name in columns):
        found = f"columns is {reprlib.repr(columns):.60}, not a list of names"
        raise UserError(f"{path}: {found}; {_EXPECTED_JSON}")
    columns = list(map(str, columns))
    check_columns(path, columns)
    if not isinstance(index, list | None):
        raise UserError(f"{path}: index is {reprlib.repr(index):.60}, not a list; {_EXPECTED_JSON}")
    nested_names: set[str] = set()
    rows = (
        Row(name, with_nested(values, nested_names))
        for name, values in _split_rows(path, columns, index, data)
    )
    head = list(islice(rows, 1))
    names = dict.fromkeys([*columns, *(head[0].values if head else ())])
    return Table(list(names), chain(head, rows))


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
