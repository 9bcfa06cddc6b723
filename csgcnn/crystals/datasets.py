"""Data sets: find the reader of a format, and read records one by one.

Packages of `plugins=[...]` add formats with `register_reader`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from csgcnn.crystals.crystal import Unusable
from csgcnn.crystals.id_prop import IdPropFolder
from csgcnn.crystals.readers import (
    AseDatabase,
    CsvTable,
    ExtendedXyz,
    JsonLines,
    JsonTable,
    ParquetTable,
    StructureFolder,
)
from csgcnn.crystals.records import DEFAULT_OPTIONS, ReadOptions, Record
from csgcnn.errors import UserError


class DatasetReader(Protocol):
    """Read the data sets of one format.

    Example:
        A reader of trajectories of ASE, in a plugin package:

            class Trajectory:
                name = ".traj"
                version = "1"

                def matches(self, path):
                    return path.suffix == ".traj"

                def read(self, path, options):
                    for number, atoms in enumerate(ase.io.iread(path)):
                        energy = atoms.get_potential_energy()
                        yield Record(str(number), atoms, {"energy": energy})

                def files(self, path, options):
                    yield path

            register_reader(Trajectory())

    Attributes:
        name: Name of the format in messages.
        version: Part of the cache key; change it when `read` returns other records than before.
        columns_read: Optional: names of the `COLUMN_OPTIONS` that it reads; without it, all.
    """

    name: str
    version: str

    def matches(self, path: Path) -> bool:
        """Return whether an existing file or folder has this format, judged without reading it."""

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        """Return an iterator of the records, read one by one so that memory stays bounded.

        Args:
            path: The data set.
            options: Columns that the user named.

        Raises:
            UserError: The data set is malformed; the message names the file.
        """

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        """Return an iterator of the existing files whose bytes determine the records.

        Args:
            path: The data set.
            options: Columns that the user named.
        """


_BUILT_IN: tuple[DatasetReader, ...] = (
    JsonTable(),
    JsonLines(),
    CsvTable(),
    ParquetTable(),
    ExtendedXyz(),
    AseDatabase(),
    IdPropFolder(),
    StructureFolder(),
)
# Ids among which repeated ones are searched in a dict.
_LATEST_IDS = 2**15
# Readers of plugins, the last registered first.
_registered: list[DatasetReader] = []


def register_reader(reader: DatasetReader) -> None:
    """Add a data format; of two formats that match a path, the last registered is used.

    Args:
        reader: The reader of the format.
    """
    _registered.insert(0, reader)


def find_reader(path: Path) -> DatasetReader | None:
    """Return the reader of an existing file or folder, or None if no format matches."""
    readers = (*_registered, *_BUILT_IN)
    return next((reader for reader in readers if reader.matches(path)), None)


def iter_records(path: Path, options: ReadOptions = DEFAULT_OPTIONS) -> Iterator[Record]:
    """Yield the records of a data set; memory does not grow with their number.

    Args:
        path: File or folder in one of the formats; files may be gzip-compressed.
        options: Columns that the user named.

    Raises:
        UserError: The data set is missing, empty, malformed or names a file outside its folder.
            The message names the file.
    """
    records = _reader(path).read(path, options)
    first = next(records, None)
    if first is None:
        raise UserError(f"{path}: the data set is empty; expected at least one record")
    yield first
    yield from records


def mark_repeated(records: Iterable[Record]) -> Iterator[Record]:
    """Yield records; those that repeat an id are unusable, with the reason.

    Memory: 16 bytes for each record, as a hash stands for its id.

    Args:
        records: Records of one data set.
    """
    # Sorted hashes of ids and their places; the latest are in a dict.
    hashes = places = np.empty(0, dtype=np.int64)
    latest: dict[int, int] = {}
    for number, record in enumerate(records, 1):
        place = record.line or number
        key = hash(record.id)
        position = int(hashes.searchsorted(key))
        is_known = position < len(hashes) and hashes[position] == key
        first = int(places[position]) if is_known else latest.setdefault(key, place)
        if len(latest) == _LATEST_IDS:
            hashes = np.append(hashes, np.fromiter(latest.keys(), np.int64))
            places = np.append(places, np.fromiter(latest.values(), np.int64))
            order = hashes.argsort()
            hashes, places, latest = hashes[order], places[order], {}
        if first == place:
            yield record
            continue
        kind = "record" if record.line is None else "line"
        reason = f"the id occurs more than once: {kind} {place} repeats that of {kind} {first}"
        yield Record(record.id, Unusable(reason), record.columns, record.line)


def source_files(path: Path, options: ReadOptions = DEFAULT_OPTIONS) -> Iterator[Path]:
    """Yield every existing file whose bytes determine a data set, a table before what it names.

    Args:
        path: File or folder.
        options: Columns that the user named.

    Raises:
        UserError: As `iter_records`.
    """
    yield from _reader(path).files(path, options)


def reader_version(path: Path) -> str:
    """Return the class and version of a plugin's reader of a data set, "" for built-in formats.

    Raises:
        UserError: The data set is missing, or its format is unknown.
    """
    reader = _reader(path)
    if reader in _BUILT_IN:
        return ""
    return f"{type(reader).__module__}.{type(reader).__qualname__} {reader.version}"


def check_labeled(path: Path) -> None:
    """Check that a data set can have targets.

    Raises:
        UserError: It is a folder of structure files without id_prop.csv.
    """
    if path_exists(path) and isinstance(find_reader(path), StructureFolder):
        raise UserError(
            f"{path}: no id_prop.csv in this folder; "
            "expected one with a line 'id,target' per file <id>.cif"
        )


def path_exists(path: Path) -> bool:
    """Return whether a file or folder exists; a name that the system refuses does not."""
    try:
        return path.exists()
    except OSError:
        return False


def _reader(path: Path) -> DatasetReader:
    if not path_exists(path):
        raise UserError(f"{path}: no such file or folder; check the path")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: is a device, pipe or socket; expected a file or folder")
    reader = find_reader(path)
    if reader is None:
        names = ", ".join(reader.name for reader in (*_BUILT_IN, *_registered))
        raise UserError(
            f"{path}: not a data set by its name; expected {names} (files also with .gz)"
        )
    return reader
