"""Records of tables: which columns hold ids and structures, and what a cell says of a structure."""

import json
import os
import reprlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from csgcnn.crystals.data_tables import (
    FILE_COLUMNS,
    STRUCTURE_COLUMNS,
    Row,
    Table,
    find_column,
)
from csgcnn.crystals.records import ID_COLUMNS, ReadOptions, Record, none_if_missing
from csgcnn.crystals.structure_files import structure_format, structure_name
from csgcnn.crystals.structures import StructureSource, StructureText, text_or_file
from csgcnn.errors import UserError

_NAME_COLUMN = "name"
# File names are shorter.
_MAX_NAME_LENGTH = 4096


def structure_records(
    path: Path, table: Table, options: ReadOptions, is_csv: bool = False
) -> Iterator[Record]:
    """Return the records of a table with a column of structures.

    A structure is a dict, the text of a file, or the name of a file in the folder of the table.

    Args:
        path: The table.
        table: Its content.
        options: Columns that the user named.
        is_csv: Whether a column of files is preferred to one of other structures.

    Raises:
        UserError: A column does not exist, a record has no id, or a file lies outside the folder of
            the table.
    """
    if not table.columns:
        return iter(())
    usual, role, hint = (*STRUCTURE_COLUMNS, *FILE_COLUMNS), "structure", ""
    if is_csv:
        usual, role = (*FILE_COLUMNS, *STRUCTURE_COLUMNS), "structure file"
        hint = (
            "; name it with dataset.structure_column, or the columns of a table without a header "
            "with dataset.columns=[id,file,TARGET]"
        )
    column = find_column(path, table, options.structure_column, usual, role, hint)
    return _records(path, table, options, column)


def file_beside(table: Path, name: str) -> Path:
    """Return the path of a file that a table names.

    Args:
        table: The table.
        name: The name, relative to the folder of the table.

    Raises:
        UserError: The file does not lie in or below the folder of the table, or the name is none.
    """
    if len(name) > _MAX_NAME_LENGTH:
        raise UserError(
            f"{table}: a cell of {len(name)} characters in one line ({name[:20]!r}...) is neither "
            "the name of a file nor the text of a structure"
        )
    file = os.path.normpath(name)
    if os.path.isabs(file) or file.split(os.sep)[0] == os.pardir:
        raise UserError(
            f"{table}: names the file {name!r:.200}, which is not in the folder of the table; "
            "expected a path inside it: move the table, or link the files there"
        )
    return table.parent / file


def source_files(records: Iterable[Record], n_searched: int | None = None) -> Iterator[Path]:
    """Yield the existing files that the structures of records are read from.

    Args:
        records: The records.
        n_searched: Number of records after which the search ends if none of them has a file.
    """
    stream, any_file = iter(records), False
    for record in islice(stream, n_searched):
        any_file = any_file or isinstance(record.source, Path)
        yield from _files_of(record)
    if any_file:
        for record in stream:
            yield from _files_of(record)


def _records(
    path: Path, table: Table, options: ReadOptions, structure_column: str
) -> Iterator[Record]:
    id_column = options.id_column
    if id_column is not None or not set(ID_COLUMNS).isdisjoint(table.columns):
        id_column = find_column(path, table, id_column, ID_COLUMNS, "id")
    elif options.ids_by_name and _NAME_COLUMN in table.columns:
        id_column = _NAME_COLUMN
    nested = f"{structure_column}."
    for number, row in enumerate(table.rows, 1):
        found = row.values.get(structure_column)
        id_ = row.index if id_column is None else row.values.get(id_column)
        if id_column is None and options.ids_by_name and (name := _file_name(found)):
            id_ = structure_name(name)
        columns = {
            name: json.dumps(value) if isinstance(value, list) else table.scalar(row, name)
            for name, value in row.values.items()
            if name not in (structure_column, id_column)
            and (not isinstance(value, list | dict) or name in options.vectors)
            and not name.startswith(nested)
        }
        id_ = _checked_id(path, number, row, id_, id_column)
        yield Record(id_, _source(path, found), columns, row.line)


def _checked_id(path: Path, number: int, row: Row, id_: Any, id_column: str | None) -> str:
    place = f"record {number}" if row.line is None else f"line {row.line}"
    if isinstance(id_, list | dict):
        found = f"the id of {place} is {reprlib.repr(id_):.60}"
        raise UserError(f"{path}: {found}; expected text or a number")
    if none_if_missing(id_) is None:
        raise UserError(f"{path}: {place} has no {id_column or 'index'}; every record needs an id")
    return str(id_)


def _source(path: Path, value: Any) -> StructureSource:
    if not isinstance(value, str):
        return value
    if none_if_missing(value) is None:
        return None
    source = text_or_file(value)
    return source if isinstance(source, StructureText) else file_beside(path, value)


def _file_name(value: Any) -> str | None:
    is_text = isinstance(value, str)
    return value if is_text and isinstance(text_or_file(value), Path) else None


def _files_of(record: Record) -> Iterator[Path]:
    file = record.source
    if isinstance(file, Path) and _is_file(file):
        yield file
        potcar = file.parent / "POTCAR"
        # It names the elements of a POSCAR without symbols.
        if structure_format(file.name) == "poscar" and _is_file(potcar):
            yield potcar


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # The name is too long for a file.
        return False
