"""Readers of data sets: one class per format, each a `csgcnn.crystals.datasets.DatasetReader`."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

from csgcnn.crystals.ase_database import sqlite_rows
from csgcnn.crystals.data_tables import (
    Table,
    csv_table,
    json_lines_table,
    json_table,
    json_table_or_value,
    record_table,
    table_format,
)
from csgcnn.crystals.extxyz import frames
from csgcnn.crystals.json_stream import JsonStream
from csgcnn.crystals.records import COLUMN_OPTIONS, ReadOptions, Record
from csgcnn.crystals.structure_files import structure_format, structure_name
from csgcnn.crystals.table_records import (
    source_files,
    structure_records,
)
from csgcnn.crystals.text_files import text_lines
from csgcnn.errors import StructureError, UserError, one_line

# Rows of a parquet table that are in memory at once.
_BATCH_SIZE = 256


class JsonTable:
    """Read JSON with several structures.

    It is a list of records (such as JARVIS's), a DataFrame in split orient (Matbench), a response
    of OPTIMADE, or a database of ASE.
    """

    name = ".json"
    version = ""
    columns_read: Sequence[str] = ("id_column", "structure_column")
    _format: ClassVar = "json"
    # Records that are searched for structure files, unless one has a file.
    _n_searched: ClassVar[int | None] = 100

    def matches(self, path: Path) -> bool:
        """Return whether a file has the suffix of this format."""
        return table_format(path) == self._format and not path.is_dir()

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        """Return the records of the file.

        Args:
            path: The file.
            options: Columns that the user named.
        """
        return self._records(path, options)

    def read_or_none(self, path: Path, options: ReadOptions) -> Iterator[Record] | None:
        """Return the records of a file that holds a table, or None.

        Args:
            path: The file.
            options: Columns that the user named.
        """
        try:
            found = json_table_or_value(JsonStream(path))
        except UserError:
            return None
        return structure_records(path, found, options) if isinstance(found, Table) else None

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        """Yield the file, and the structure files that it names.

        Args:
            path: The file.
            options: Columns that the user named.
        """
        yield path
        yield from source_files(self.read(path, options), self._n_searched)

    def _records(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        return structure_records(path, self._table(path), options)

    def _table(self, path: Path) -> Table:
        return json_table(JsonStream(path))


class JsonLines(JsonTable):
    """Read JSON lines: one record per line."""

    name = ".jsonl"
    _format = "jsonl"

    def _table(self, path: Path) -> Table:
        return json_lines_table(JsonStream(path))


class CsvTable(JsonTable):
    """Read a csv table with a column of structure files or of their texts.

    The names of files are relative to the folder of the table.
    """

    name = ".csv"
    columns_read = COLUMN_OPTIONS
    _format = "csv"
    _n_searched = None

    def _records(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        table = csv_table(path, options.columns)
        yield from structure_records(path, table, options, is_csv=True)


class ParquetTable(JsonTable):
    """Read parquet: a column of structures (texts, dicts or file names) and columns of targets."""

    name = ".parquet"
    _format = "parquet"

    def _table(self, path: Path) -> Table:
        if find_spec("pyarrow") is None:
            raise UserError(
                f"{path}: parquet needs pyarrow: pip install pyarrow, or give .csv or .json"
            )
        return record_table(path, _parquet_rows(path))


class AseDatabase(JsonTable):
    """Read a SQLite database of ASE."""

    name = ".db"

    def matches(self, path: Path) -> bool:
        """Return whether a file has the suffix of this format."""
        return path.suffix.lower() == ".db" and not path.is_dir()

    def _table(self, path: Path) -> Table:
        return record_table(path, sqlite_rows(path))


class ExtendedXyz(JsonTable):
    """Read the frames of an extended xyz file with their properties.

    The id of a frame without one is the name of the file and, of several, its number from 0.
    """

    name = ".extxyz"
    _format = "xyz"

    def matches(self, path: Path) -> bool:
        """Return whether a file has a suffix of this format."""
        return structure_format(path.name) == "xyz" and not path.is_dir()

    def named(self, path: Path, name: str, options: ReadOptions) -> Iterator[Record]:
        """Return the records of the file.

        Args:
            path: The file.
            name: Name that begins the ids.
            options: Columns that the user named.
        """
        table = record_table(path, self._rows(path))
        head = list(islice(table.rows, 2))
        rows = chain(head, table.rows)
        if len(head) > 1:
            indexed = (row._replace(index=f"{name}:{row.index}") for row in rows)
        else:
            indexed = (row._replace(index=name) for row in rows)
        return structure_records(path, Table(table.columns, indexed), options)

    def _records(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        return self.named(path, structure_name(path.name), options)

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        try:
            for frame in frames(text_lines(path)):
                yield {**frame.info, "structure": frame.structure}
        except StructureError as error:
            raise UserError(f"{path}: {error}") from None


class StructureFolder:
    """Read all structure files in a folder and below; they have no targets.

    The id is the path within the folder without suffix; the suffix stays where ids would be
    equal. Hidden files and folders are skipped.
    """

    name = "a folder of structure files"
    version = ""
    columns_read: Sequence[str] = ()

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
        return source_files(self.read(path, options))


def is_structure_file(name: str) -> bool:
    """Return whether a file name is that of a structure file and not hidden."""
    return structure_format(name) is not None and not name.startswith(".")


def printable(name: str) -> str:
    """Return a file name as valid text; on Linux a name may be any bytes."""
    return os.fsencode(name).decode(errors="replace")


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_SIZE):
                for row in batch.to_pylist():
                    yield {name: _plain(value) for name, value in row.items()}
    except (ArrowException, ValueError, OSError, MemoryError, OverflowError) as error:
        raise UserError(
            f"{path}: not a readable parquet file: damaged or of another format ({one_line(error)})"
        ) from None


def _plain(value: Any) -> Any:
    """Return a value as JSON would hold it; a date becomes text, a decimal number a float."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | dict):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
