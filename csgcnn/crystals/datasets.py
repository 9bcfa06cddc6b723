"""Data sets in, records out: an id, the source of a structure and the scalar columns of each row."""

import glob
import math
import os
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from csgcnn.crystals.crystal import StructureSource
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
from csgcnn.crystals.structure_files import structure_format, structure_name
from csgcnn.errors import UserError, one_line

Scalar = float | int | str | bool | None

_ID_COLUMNS = ("material_id", "jid", "mbid", "id")
_STRUCTURE_COLUMNS = ("crystal_structure", "structure", "atoms")
_FILE_COLUMNS = ("file", "path", "structure", "cif", "filename")
_LARGEST_INTEGER = 10**300
_MISSING = {"", "na", "NA", "N/A", "nan", "NaN", "None", "null"}  # not "Na": that is sodium


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data set; ``columns`` holds its other scalar values, None where a value is missing."""

    id: str
    source: StructureSource
    columns: dict[str, Scalar]


def read_records(
    path: Path, id_column: str | None = None, structure_column: str | None = None
) -> list[Record]:
    """Read a whole data set, as `iter_records` does.

    Raises: UserError as ``iter_records``, and if an id is repeated.
    """
    records = list(iter_records(path, id_column, structure_column))
    check_unique(path, Counter(record.id for record in records))
    return records


def iter_records(
    path: Path, id_column: str | None = None, structure_column: str | None = None
) -> Iterator[Record]:
    """Read a data set record by record: a folder of structure files, a csv table of them, or json records.

    In a folder, the table id_prop.csv tells which files with which targets; without it all are read, without any. Json
    is a list of records (JARVIS's too), records line by line (.jsonl), or a DataFrame in split orient (Matbench,
    matminer). Any file may be gzip-compressed. Without a column for it, the id is the DataFrame's index or the row
    number from 0. Memory does not grow with the number of records.

    Raises: UserError naming the file if it is missing, empty, malformed or names a file elsewhere.
    """
    records = _read(path, id_column, structure_column)
    first = next(records, None)
    if first is None:
        raise UserError(f"{path}: the data set is empty; expected at least one record")
    yield first
    yield from records


def _read(path: Path, id_column: str | None, structure_column: str | None) -> Iterator[Record]:
    _check_exists(path)
    if path.is_dir():
        id_prop = _id_prop_file(path)
        return _id_prop_records(path, id_prop) if id_prop else _folder_records(path)
    kind = table_format(path)
    if kind == "csv":
        return _csv_records(path, id_column, structure_column)
    if kind is None:
        expected = "expected .json, .jsonl, .csv (or these with .gz) or a folder"
        raise UserError(f"{path}: not a data set by its name; {expected}")
    table = json_lines_table(path) if kind == "jsonl" else json_table(path)
    return _json_records(path, table, id_column, structure_column)


def check_unique(path: Path, count: Mapping[str, int]) -> None:
    """Check that no id of a data set is there more than once.

    Raises: UserError naming some that are.
    """
    repeated = [id for id, n_records in count.items() if n_records > 1]
    if repeated:
        some = one_line(", ".join(repeated[:5]) + (", ..." if len(repeated) > 5 else ""))
        raise UserError(
            f"{path}: {len(repeated)} ids occur more than once ({some}); expected unique ids"
        )


def source_files(
    path: Path, id_column: str | None = None, structure_column: str | None = None
) -> Iterator[Path]:
    """Every existing file whose bytes determine the data set, a table before the files that it names.

    Raises: UserError as ``iter_records``.
    """
    _check_exists(path)
    if table := _id_prop_file(path) if path.is_dir() else path:
        yield table
    if table_format(path) in ("json", "jsonl") and path.is_file():
        return
    for record in iter_records(path, id_column, structure_column):
        if isinstance(record.source, Path) and _is_file(record.source):
            yield record.source


def iter_structures(paths: Sequence[str | Path]) -> Iterator[Record]:
    """Records to predict, one at a time, from structure files, folders, globs and data-set files.

    The id is the file's name without suffix; in a folder, its path inside without suffix (behind the folder
    if several paths are given); the suffix stays, or the path, where ids would be equal. A data-set file
    brings its own ids. Of a folder, files named as a structure format are read; hidden ones are not.

    Raises: UserError, before the first record, if a path leads to no structure.
    """
    entries = [entry for path in paths for entry in _expand(Path(os.path.expanduser(path)))]
    if not entries:
        raise UserError(
            "no structures given; expected files, folders or patterns such as 'cifs/*.cif'"
        )
    names = Counter(structure_name(entry.name) for entry in entries)

    def records_of(entry: Path) -> Iterator[Record]:
        if entry.is_dir():
            return _folder_records(
                entry, prefix="" if len(entries) == 1 else f"{entry.as_posix()}/"
            )
        name = structure_name(entry.name)
        return _file_records(entry, _text(name if names[name] == 1 else entry.as_posix()))

    return chain.from_iterable(map(records_of, entries))


def check_labeled(path: Path) -> None:
    """Check that a data set can have targets.

    Raises: UserError if it is a folder without id_prop.csv.
    """
    if path.is_dir() and _id_prop_file(path) is None:
        raise UserError(
            f"{path}: no id_prop.csv in this folder; expected one with a line 'id,target' per file <id>.cif"
        )


def _id_prop_file(folder: Path) -> Path | None:
    return next(
        (folder / name for name in ("id_prop.csv", "id_prop.csv.gz") if (folder / name).is_file()),
        None,
    )


def _id_prop_records(folder: Path, table: Path) -> Iterator[Record]:
    rows = csv_rows(table)
    first_id, *first_values = first = next(rows)
    files = {
        structure_name(name): name
        for name in sorted(os.listdir(folder), reverse=True)
        if _is_named(name)
    }
    targets = ["target", *(f"target_{number}" for number in range(2, len(first_values) + 1))]
    has_header = first_id not in files and any(
        isinstance(_parsed(text), str) for text in first_values
    )
    names = first if has_header else [None, *targets[: len(first_values)]]
    for row in rows if has_header else chain([first], rows):
        # a file that is absent is refused by name when it is read
        source = folder / files[row[0]] if row[0] in files else _inside(table, f"{row[0]}.cif")
        columns = {
            name: _parsed(text) for name, text in zip(names, row, strict=True) if name is not None
        }
        yield Record(row[0], source, columns)


def _inside(table: Path, name: str) -> Path:
    """The file that a table names, which lies in the folder of the table or below; links may lead elsewhere."""
    file = os.path.normpath(name)
    if os.path.isabs(file) or file.split(os.sep)[0] == os.pardir:
        raise UserError(
            f"{table}: names the file {name!r:.200}, which is not in the folder of the table; expected a path inside "
            "it: move the table, or link the files there"
        )
    return table.parent / file


def _check_exists(path: Path) -> None:
    if not _exists(path):
        raise UserError(f"{path}: no such file or folder; check the path")


def _exists(path: Path) -> bool:
    """Whether there is such a file or folder; a name that the system refuses names none."""
    try:
        return path.exists()
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _csv_records(
    path: Path, id_column: str | None = None, structure_column: str | None = None
) -> Iterator[Record]:
    table = csv_table(path)
    column = find_column(path, table, structure_column, _FILE_COLUMNS, "structure file")
    for record in _records(path, table, id_column, column):
        name = str(record.source)
        yield Record(
            record.id, _inside(path, name) if name not in _MISSING else None, record.columns
        )


def _json_records(
    path: Path, table: Table, id_column: str | None = None, structure_column: str | None = None
) -> Iterator[Record]:
    if not table.columns:
        return iter(())
    column = find_column(path, table, structure_column, _STRUCTURE_COLUMNS, "structure")
    return _records(path, table, id_column, column)


def _records(
    path: Path, table: Table, id_column: str | None, structure_column: str
) -> Iterator[Record]:
    if id_column is not None or not set(_ID_COLUMNS).isdisjoint(table.columns):
        id_column = find_column(path, table, id_column, _ID_COLUMNS, "id")
    read = _parsed if table.is_text else _present
    for number, (index, row) in enumerate(table.rows, 1):
        id = index if id_column is None else row.get(id_column)
        if isinstance(id, list | dict):
            raise UserError(
                f"{path}: the id of record {number} is {reprlib.repr(id):.60}; expected text or a number"
            )
        if _present(id) is None:
            raise UserError(
                f"{path}: record {number} has no {id_column or 'index'}; every record needs an id"
            )
        columns = {
            name: read(value)
            for name, value in row.items()
            if name not in (structure_column, id_column) and not isinstance(value, list | dict)
        }
        yield Record(str(id), row.get(structure_column), columns)


def _present(value: Scalar) -> Scalar:
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return math.inf if value > 0 else -math.inf  # no float is that large
    is_missing = value in _MISSING if isinstance(value, str) else value != value
    return None if is_missing else value


def _parsed(text: str) -> Scalar:
    try:
        number = float(text)
    except ValueError:
        return _present(text)
    return (
        None if math.isnan(number) else text if "_" in text else number
    )  # float() would read "1_2" as 12


def _expand(path: Path) -> list[Path]:
    matches = [path] if _exists(path) else sorted(set(_matches(path)))
    found = [match for match in matches if not match.is_dir() or next(_folder_records(match), None)]
    if not found:
        what = (
            "no structure file in it"
            if _exists(path)
            else "no such file or folder, and no file matches it"
        )
        raise UserError(
            f"{path}: {what}; expected .cif, POSCAR, .json or another structure or data-set file"
        )
    return found


def _matches(pattern: Path) -> Iterator[Path]:
    """What a pattern stands for; `**` is every folder below but hidden ones and links, which may lead in circles."""
    if "**" not in pattern.parts:
        yield from map(Path, glob.glob(str(pattern)))
        return
    stars = pattern.parts.index("**")
    rest = pattern.parts[stars + 1 :]
    for top in _matches(Path(*pattern.parts[:stars])):
        if not rest:
            yield top
            continue
        for directory, folders, _ in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _matches(Path(glob.escape(directory), *rest))


def _is_named(name: str) -> bool:
    return structure_format(name) is not None and not name.startswith(".")


def _folder_records(folder: Path, prefix: str = "") -> Iterator[Record]:
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        within = Path(directory).relative_to(folder)
        structures = sorted(filter(_is_named, files))
        names = Counter(map(structure_name, structures))
        for file in structures:
            name = structure_name(file)
            unique = name if names[name] == 1 else file
            yield Record(_text(prefix + (within / unique).as_posix()), Path(directory, file), {})


def _text(name: str) -> str:
    """A file name as text that can be written; names need not be UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def _file_records(path: Path, id: str) -> Iterator[Record]:
    kind = table_format(path)
    if kind in ("csv", "jsonl"):
        yield from iter_records(path)
    elif kind == "json" and (table := _json_table_or_none(path)):
        yield from _json_records(path, table)
    else:
        yield Record(id, path, {})


def _json_table_or_none(path: Path) -> Table | None:
    try:
        found = json_table_or_value(path)
    except UserError:  # reading the structure will say why
        return None
    return found if isinstance(found, Table) else None
