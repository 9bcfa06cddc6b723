"""Write a DataFrame of structures and targets as a data file."""

import gzip
import json
import math
from collections.abc import Iterator
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csgcnn.crystals.data_tables import STRUCTURE_COLUMNS
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.records import ID_COLUMNS
from csgcnn.crystals.structure_files import structure_format
from csgcnn.crystals.structures import (
    StructureText,
    is_structure_dict,
    is_structure_object,
    text_or_file,
    to_crystal,
)
from csgcnn.crystals.text_files import ONE_STRUCTURE, text_pieces
from csgcnn.errors import StructureError, UserError
from csgcnn.io import write_bytes

if TYPE_CHECKING:
    import pandas as pd


def is_frame(value: object) -> bool:
    """Return whether a value is a DataFrame, without importing pandas."""
    return hasattr(value, "columns") and hasattr(value, "itertuples")


def write_frame(
    frame: "pd.DataFrame", path: Path, structure_column: str | None = None
) -> dict[str, str]:
    """Write a DataFrame as JSON lines.

    The id of a row is in a column material_id, jid, mbid or id, else it is the index.

    Args:
        frame: A column of structures (pymatgen `Structure`, ASE `Atoms`, `Crystal`, dict, path
            or text of a structure file), and columns of targets.
        path: The file, which is compressed.
        structure_column: Column of the structures; None: the first column that holds some.

    Returns:
        Keys of the section `dataset` that read the file.

    Raises:
        UserError: There is no column of structures, or no row.
        StructureError: A structure file cannot be read.
    """
    if not len(frame):
        raise UserError("dataset: the DataFrame has no rows")
    column = structure_column or _structure_column(frame)
    if column not in frame.columns:
        raise UserError(f"dataset: the DataFrame has no column {column!r}")
    lines = "".join(f"{json.dumps(record)}\n" for record in _records(frame, column))
    write_bytes(path, gzip.compress(lines.encode(), mtime=0))
    return {"dataset.path": str(path), "dataset.structure_column": column}


def _structure_column(frame: "pd.DataFrame") -> str:
    for name in frame.columns:
        first = next(iter(frame[name].dropna()), None)
        if is_structure_object(first) or is_structure_dict(first):
            return str(name)
    for name in (*STRUCTURE_COLUMNS, "file", "path", "cif", "filename"):
        if name in frame.columns:
            return name
    raise UserError(
        "dataset: the DataFrame has no column of structures; expected pymatgen Structures, ASE "
        "Atoms, dicts, or paths in a column named structure"
    )


def _records(frame: "pd.DataFrame", column: str) -> Iterator[dict[str, Any]]:
    has_ids = any(name in frame.columns for name in ID_COLUMNS)
    for index, row in zip(frame.index, frame.to_dict("records"), strict=True):
        record: dict[str, Any] = {} if has_ids else {"id": str(index)}
        record[column] = _structure(row[column], index)
        for name, value in row.items():
            if name != column and _is_scalar(value):
                record[str(name)] = _plain(value)
            elif name != column and _is_vector(value):
                record[str(name)] = [_plain(item) for item in value]
        yield record


def _structure(value: Any, index: Any) -> Any:
    if isinstance(value, dict) or value is None:
        return value
    if hasattr(value, "as_dict"):
        return json.loads(json.dumps(value.as_dict(), default=_plain))
    source = text_or_file(value) if isinstance(value, str) else value
    try:
        if isinstance(source, Path) and structure_format(source.name) == "cif":
            source = StructureText(_text(source))
        if isinstance(source, StructureText):
            # When graphs are built, its reader warns and names the record.
            return source.text
        crystal = to_crystal(source)
    except StructureError as error:
        raise StructureError(f"row {index} of the DataFrame: {error}") from error
    return {
        "lattice": crystal.lattice.tolist(),
        "species": [SYMBOLS[z] for z in crystal.atomic_number.tolist()],
        "frac_coords": crystal.frac_coords.tolist(),
    }


def _text(path: Path) -> str:
    try:
        return "".join(text_pieces(path, ONE_STRUCTURE))
    except StructureError as error:
        raise StructureError(f"{path}: {error}") from error


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | Number) or getattr(value, "ndim", 1) == 0


def _is_vector(value: Any) -> bool:
    """Return whether a value is a list of numbers, which may be the value of a target."""
    is_list = isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1
    return is_list and all(isinstance(item, Number | None) for item in value)


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    return None if is_missing or type(value).__name__ == "NAType" else value
