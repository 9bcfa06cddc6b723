"""Readers of data sets: one class per format, each a `csgcnn.crystals.datasets.DatasetReader`."""

import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import ClassVar

from csgcnn.crystals.data_tables import (
    Table,
    csv_rows,
    csv_table,
    find_column,
    json_lines_table,
    json_table,
    json_table_or_value,
    table_format,
)
from csgcnn.crystals.json_stream import JsonStream
from csgcnn.crystals.records import (
    DEFAULT_OPTIONS,
    ReadOptions,
    Record,
    none_if_missing,
    parse_scalar,
)
from csgcnn.crystals.structure_files import structure_format, structure_name
from csgcnn.errors import UserError

ID_COLUMNS = ("material_id", "jid", "mbid", "id")
STRUCTURE_COLUMNS = ("crystal_structure", "structure", "atoms")
_FILE_COLUMNS = ("file", "path", "structure", "cif", "filename")
_ID_PROP_NAMES = ("id_prop.csv", "id_prop.csv.gz")


class JsonTable:
    """Read JSON: a list of records (such as JARVIS's) or a DataFrame in split orient (Matbench)."""

    name = ".json"
    version = ""
    _format: ClassVar = "json"

    def matches(self, path: Path) -> bool:
        """Return whether a file has the suffix of this format."""
        return table_format(path) == self._format and not path.is_dir()

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        """Return the records of the file.

        Args:
            path: The file.
            options: Columns that the user named.
        """
        return _structure_records(path, self._table(path), options)

    def read_or_none(self, path: Path) -> Iterator[Record] | None:
        """Return the records of a file that holds a table, or None."""
        try:
            found = json_table_or_value(JsonStream(path))
        except UserError:
            return None
        is_table = isinstance(found, Table)
        return _structure_records(path, found, DEFAULT_OPTIONS) if is_table else None

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        """Yield the file.

        Args:
            path: The file.
            options: Not used.
        """
        yield path

    def _table(self, path: Path) -> Table:
        return json_table(JsonStream(path))


class JsonLines(JsonTable):
    """Read JSON lines: one record per line."""

    name = ".jsonl"
    _format = "jsonl"

    def _table(self, path: Path) -> Table:
        return json_lines_table(JsonStream(path))


class CsvTable:
    """Read a csv table with a column of structure files, relative to the folder of the table."""

    name = ".csv"
    version = ""

    def matches(self, path: Path) -> bool:
        """Return whether a file has the suffix of this format."""
        return table_format(path) == "csv" and not path.is_dir()

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        """Yield the records of the table.

        Args:
            path: The table.
            options: Columns that the user named.
        """
        table = csv_table(path)
        column = find_column(path, table, options.structure_column, _FILE_COLUMNS, "structure file")
        for record in _table_records(path, table, options.id_column, column):
            name = str(record.source)
            source = None if none_if_missing(name) is None else _file_beside(path, name)
            yield Record(record.id, source, record.columns)

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        """Yield the table and the structure files that it names.

        Args:
            path: The table.
            options: Columns that the user named.
        """
        yield path
        yield from _source_files(self.read(path, options))


class IdPropFolder:
    """Read a folder with id_prop.csv: a line `id,target` for each structure file `<id>.cif`.

    The table may have a header and more targets; other structure formats have their suffixes.
    """

    name = "a folder with id_prop.csv"
    version = ""

    def matches(self, path: Path) -> bool:
        """Return whether the folder has the table."""
        return path.is_dir() and any((path / name).is_file() for name in _ID_PROP_NAMES)

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        """Yield a record for each line of the table.

        Args:
            path: The folder.
            options: Not used.
        """
        table = self._table(path)
        rows = csv_rows(table)
        first_id, *first_values = first = next(rows)
        files = {
            structure_name(name): name
            for name in sorted(os.listdir(path), reverse=True)
            if is_structure_file(name)
        }
        has_header = first_id not in files and any(
            isinstance(parse_scalar(text), str) for text in first_values
        )
        numbered = (f"target_{number}" for number in range(2, len(first_values) + 1))
        unnamed = [None, "target", *numbered][: len(first)]
        names = first if has_header else unnamed
        for row in rows if has_header else chain([first], rows):
            # A missing file is reported when the structure is read.
            is_known = row[0] in files
            source = path / files[row[0]] if is_known else _file_beside(table, f"{row[0]}.cif")
            columns = {
                name: parse_scalar(text)
                for name, text in zip(names, row, strict=True)
                if name is not None
            }
            yield Record(row[0], source, columns)

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        """Yield the table and the structure files that it names.

        Args:
            path: The folder.
            options: Not used.
        """
        yield self._table(path)
        yield from _source_files(self.read(path, options))

    def _table(self, folder: Path) -> Path:
        return next(folder / name for name in _ID_PROP_NAMES if (folder / name).is_file())


class StructureFolder:
    """Read all structure files in a folder and below; they have no targets.

    The id is the path within the folder without suffix; the suffix stays where ids would be
    equal. Hidden files and folders are skipped.
    """

    name = "a folder of structure files"
    version = ""

    def matches(self, path: Path) -> bool:
        """Return whether it is a folder."""
        return path.is_dir()

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        """Yield a record for each structure file.

        Args:
            path: The folder.
            options: Not used.
        """
        for directory, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            within = Path(directory).relative_to(path)
            structures = sorted(filter(is_structure_file, files))
            counts = Counter(map(structure_name, structures))
            for file in structures:
                name = structure_name(file)
                unique = name if counts[name] == 1 else file
                yield Record(printable((within / unique).as_posix()), Path(directory, file), {})

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        """Yield the structure files.

        Args:
            path: The folder.
            options: Not used.
        """
        return _source_files(self.read(path, options))


def is_structure_file(name: str) -> bool:
    """Return whether a file name is that of a structure file and not hidden."""
    return structure_format(name) is not None and not name.startswith(".")


def printable(name: str) -> str:
    """Return a file name as valid text; on Linux a name may be any bytes."""
    return os.fsencode(name).decode(errors="replace")


def _structure_records(path: Path, table: Table, options: ReadOptions) -> Iterator[Record]:
    if not table.columns:
        return iter(())
    column = find_column(path, table, options.structure_column, STRUCTURE_COLUMNS, "structure")
    return _table_records(path, table, options.id_column, column)


def _table_records(
    path: Path, table: Table, id_column: str | None, structure_column: str
) -> Iterator[Record]:
    if id_column is not None or not set(ID_COLUMNS).isdisjoint(table.columns):
        id_column = find_column(path, table, id_column, ID_COLUMNS, "id")
    read = parse_scalar if table.is_text else none_if_missing
    for number, (index, row) in enumerate(table.rows, 1):
        id_ = index if id_column is None else row.get(id_column)
        if isinstance(id_, list | dict):
            found = f"the id of record {number} is {reprlib.repr(id_):.60}"
            raise UserError(f"{path}: {found}; expected text or a number")
        if none_if_missing(id_) is None:
            name = id_column or "index"
            raise UserError(f"{path}: record {number} has no {name}; every record needs an id")
        columns = {
            name: read(value)
            for name, value in row.items()
            if name not in (structure_column, id_column) and not isinstance(value, list | dict)
        }
        yield Record(str(id_), row.get(structure_column), columns)


def _file_beside(table: Path, name: str) -> Path:
    """Return the path of a file that a table names, which must lie in or below its folder."""
    file = os.path.normpath(name)
    if os.path.isabs(file) or file.split(os.sep)[0] == os.pardir:
        raise UserError(
            f"{table}: names the file {name!r:.200}, which is not in the folder of the table; "
            "expected a path inside it: move the table, or link the files there"
        )
    return table.parent / file


def _source_files(records: Iterable[Record]) -> Iterator[Path]:
    """Yield the existing structure files of records."""
    for record in records:
        if isinstance(record.source, Path) and _is_file(record.source):
            yield record.source


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # The name is too long for a file.
        return False
