"""Folders with id_prop.csv, the data format of CGCNN."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path

from csgcnn.crystals.csv_files import CsvFile, CsvRow
from csgcnn.crystals.data_tables import check_columns, check_given_columns
from csgcnn.crystals.records import (
    ReadOptions,
    Record,
    is_missing,
    parse_scalar,
)
from csgcnn.crystals.structure_files import structure_format, structure_name
from csgcnn.crystals.table_records import file_beside, source_files
from csgcnn.errors import UserError

_NAMES = ("id_prop.csv", "id_prop.csv.gz", "id_prop.tsv", "id_prop.tsv.gz")


class IdPropFolder:
    """Read a folder with id_prop.csv: a line `id,target` for each structure file.

    The id is the name of the file with or without its suffix: `m0` and `m0.cif` stand for m0.cif,
    `m0` also for POSCAR_m0. The table may have a header and more targets.
    """

    name = "a folder with id_prop.csv"
    version = ""
    columns_read = ("columns",)

    def matches(self, path: Path) -> bool:
        """Return whether the folder has the table."""
        return path.is_dir() and any((path / name).is_file() for name in _NAMES)

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        """Yield a record for each line of the table.

        Args:
            path: The folder.
            options: Names of the columns of a table without header.
        """
        table = self._table(path)
        find = _finder(table)
        file = CsvFile(table)
        first = next(file.rows)
        names = self._names(table, first, find(first.cells[0]) is not None, options.columns)
        rows = file.rows if names == first.cells else chain([first], file.rows)
        for row in rows:
            id_ = row.cells[0]
            if not id_:
                raise UserError(f"{table}: line {row.line} has no id; every row needs one")
            # A missing file is reported when the structure is read.
            is_file = structure_format(id_) is not None
            source = find(id_) or file_beside(table, id_ if is_file else f"{id_}.cif")
            columns = {
                name: file.value(cell, position, row.line)
                for position, (name, cell) in enumerate(zip(names, row.cells, strict=True))
                if name is not None
            }
            yield Record(id_, source, columns, row.line)

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        """Yield the table and the structure files that it names.

        Args:
            path: The folder.
            options: Names of the columns of a table without header.
        """
        yield self._table(path)
        yield from source_files(self.read(path, options))

    def _table(self, folder: Path) -> Path:
        return next(folder / name for name in _NAMES if (folder / name).is_file())

    def _names(
        self, table: Path, first: CsvRow, has_file: bool, given: Sequence[str] | None
    ) -> Sequence[str | None]:
        """Return the names of the columns, None for the ids if they have none."""
        is_header = not has_file and _is_header(table, first)
        if is_header and given is None:
            check_columns(table, first.cells)
            return first.cells
        if given is not None:
            check_given_columns(table, given, first.cells[1:], is_header)
            return [None, *given]
        numbered = (f"target_{number}" for number in range(2, len(first.cells)))
        return [None, "target", *numbered][: len(first.cells)]


def _is_header(table: Path, first: CsvRow) -> bool:
    """Return whether a first row without a file holds names rather than an id and values.

    It does if no value is a number, missing, or a class that occurs in later rows, too.
    """
    id_, *values = first.cells
    if not values or structure_format(id_) is not None:
        return False
    if any(
        is_missing(value) or not isinstance(parse_scalar(value.replace(",", ".", 1)), str)
        for value in values
    ):
        return False
    later = islice(CsvFile(table).rows, 1, None)
    return not any(
        value == cell for row in later for value, cell in zip(values, row.cells[1:], strict=True)
    )


def _finder(table: Path) -> Callable[[str], Path | None]:
    """Return a function that finds the structure file that an id stands for."""
    of_folder = cache(_file_of_name)

    def find(id_: str) -> Path | None:
        path = file_beside(table, id_)
        name = of_folder(path.parent).get(path.name)
        return None if name is None else path.parent / name

    return find


def _file_of_name(folder: Path) -> dict[str, str]:
    """Return the structure files of a folder by all names that stand for them."""
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except OSError:
        return {}
    files = [name for name in names if structure_format(name) and not name.startswith(".")]
    found: dict[str, str] = {}
    for name in files:
        for prefix in ("POSCAR", "CONTCAR"):
            if name.upper().startswith(prefix) and name[len(prefix) :][:1] in ("_", "-", "."):
                found[structure_name(name)[len(prefix) + 1 :]] = name
    # The more a name says, the more it counts.
    found |= {structure_name(name): name for name in files}
    found |= {name.removesuffix(".gz"): name for name in files}
    return found | {name: name for name in files}
