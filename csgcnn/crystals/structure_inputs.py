"""Structures to predict, found in files, folders, patterns and data sets."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from csgcnn.crystals.cif import cif_blocks
from csgcnn.crystals.datasets import find_reader, iter_records, path_exists
from csgcnn.crystals.id_prop import IdPropFolder
from csgcnn.crystals.readers import ExtendedXyz, JsonTable, StructureFolder, printable
from csgcnn.crystals.records import DEFAULT_OPTIONS, ReadOptions, Record
from csgcnn.crystals.structure_files import structure_format, structure_name
from csgcnn.crystals.structures import StructureText
from csgcnn.crystals.text_files import ONE_STRUCTURE, text_pieces
from csgcnn.errors import ConfigError, StructureError, UserError


def iter_structures(
    paths: Sequence[str | Path], options: ReadOptions = DEFAULT_OPTIONS
) -> Iterator[Record]:
    """Return the records to predict, one at a time.

    The id of a structure file is its name without suffix, or its path where names are equal; in a
    folder, the path within the folder, after the folder's if several paths are given. Data sets
    have their own ids; without a column of ids they are those of a column `name`, or the names of
    the structure files.

    Args:
        paths: Structure files, folders, data sets, and patterns such as `cifs/*.cif`; `**` stands
            for all folders below.
        options: Columns of data sets.

    Raises:
        UserError: A path leads to no structure; raised before the first record.
        ConfigError: The options name columns, but no path is a data set.
    """
    inputs = [found for path in paths for found in _expand(Path(os.path.expanduser(path)))]
    if not inputs:
        raise UserError(
            "no structures given; expected files, folders or patterns such as 'cifs/*.cif'"
        )
    if options.id_column or options.structure_column:
        _check_columns(inputs)
    counts = Counter(structure_name(path.name) for path in inputs)

    def records_of(path: Path) -> Iterator[Record]:
        if _is_structure_folder(path):
            return _folder_records(path, "" if len(inputs) == 1 else f"{path.as_posix()}/")
        name = structure_name(path.name)
        unique = printable(name if counts[name] == 1 else path.as_posix())
        return _file_records(path, unique, replace(options, ids_by_name=True))

    records = chain.from_iterable(map(records_of, inputs))
    return chain.from_iterable(map(_blocks, records)) if options.all_blocks else records


def _check_columns(inputs: Sequence[Path]) -> None:
    """Check that a file may have columns, which the user named."""
    if all(_is_structure_folder(path) or find_reader(path) is None for path in inputs):
        raise ConfigError(
            f"{inputs[0]} has no columns; omit id_column and structure_column, which name those of "
            "data files"
        )


def _expand(path: Path) -> list[Path]:
    matches = [path] if path_exists(path) else sorted(set(_matches(path)))
    found = [
        match for match in matches if not _is_structure_folder(match) or any(_folder_records(match))
    ]
    if not found:
        reason = "no such file or folder, and no file matches it"
        if path_exists(path):
            reason = "no structure file in it"
        raise UserError(
            f"{path}: {reason}; expected .cif, POSCAR, .json or another structure or data-set file"
        )
    return found


def _matches(pattern: Path) -> Iterator[Path]:
    """Yield the paths that match a pattern.

    `**` skips hidden folders and links, unlike that of `glob`, as links may form circles.
    """
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


def _is_structure_folder(path: Path) -> bool:
    """Return whether a folder is searched for structure files, with or without id_prop.csv."""
    return path.is_dir() and isinstance(find_reader(path), StructureFolder | IdPropFolder)


def _folder_records(folder: Path, prefix: str = "") -> Iterator[Record]:
    for record in StructureFolder().read(folder, DEFAULT_OPTIONS):
        yield Record(printable(prefix) + record.id, record.source, record.columns)


def _blocks(record: Record) -> Iterator[Record]:
    """Yield a record for each block with atoms of a CIF, or the record itself."""
    path, blocks = record.source, list[tuple[str, str]]()
    if isinstance(path, Path) and structure_format(path.name) == "cif":
        # An unreadable file is refused when its record is read.
        with suppress(StructureError):
            blocks = list(cif_blocks("".join(text_pieces(path, ONE_STRUCTURE))))
    if not blocks:
        yield record
    names = Counter(name for name, _ in blocks)
    for number, (name, text) in enumerate(blocks, 1):
        # Blocks of one name are told apart by their numbers.
        unique = name if names[name] == 1 else f"{name}:{number}"
        yield Record(f"{record.id}:{unique}", StructureText(text), record.columns)


def _file_records(path: Path, id_: str, options: ReadOptions) -> Iterator[Record]:
    reader = find_reader(path)
    records: Iterator[Record] | None = None
    if type(reader) is JsonTable:
        # A JSON file may hold one structure; it is read, or refused, as a structure file.
        records = reader.read_or_none(path, options)
    elif isinstance(reader, ExtendedXyz):
        records = reader.named(path, id_, options)
    elif reader is not None:
        records = iter_records(path, options)
    yield from iter((Record(id_, path, {}),)) if records is None else records
