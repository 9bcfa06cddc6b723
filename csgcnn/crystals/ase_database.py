"""Databases of ASE: JSON files, and SQLite files, which are read without ASE.

ASE locks a database that it reads, and creates objects of the classes that its content names. Here
a file is opened for reading only, and its content stays plain data.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from csgcnn.crystals.records import ID_COLUMNS
from csgcnn.crystals.text_files import ONE_STRUCTURE
from csgcnn.errors import UserError, one_line

_STRUCTURE_KEYS = ("numbers", "positions", "cell", "pbc")
# Results of calculators that are one number.
_RESULTS = ("energy", "free_energy", "magmom")
_SELECT = f"""SELECT id, {", ".join(_STRUCTURE_KEYS)}, {", ".join(_RESULTS)}, key_value_pairs, data
FROM systems ORDER BY id"""
# Bytes
_MAX_CELL = int(ONE_STRUCTURE.max_bytes)


def is_ase_database(content: Mapping[str, Any]) -> bool:
    """Return whether the object of a JSON file is a database of ASE."""
    return {"ids", "nextid"} <= content.keys() and isinstance(content["ids"], list)


def ase_rows(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON database of ASE as records.

    Args:
        content: The object of the file.
    """
    for id_ in content["ids"]:
        row = content.get(str(id_))
        if isinstance(row, dict):
            yield _record(id_, row)


def sqlite_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a SQLite database of ASE as records.

    Args:
        path: The file.

    Raises:
        UserError: It is not such a database.
    """
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            _restrict(connection)
            _check_tables(path, connection)
            for id_, *values in connection.execute(_SELECT):
                columns = (*_STRUCTURE_KEYS, *_RESULTS, "key_value_pairs", "data")
                yield _record(id_, _plain_row(dict(zip(columns, values, strict=True))))
    except (sqlite3.Error, OverflowError) as error:
        raise UserError(
            f"{path}: not a readable database of ASE ({one_line(error)}); expected a SQLite file "
            "that ase.db wrote"
        ) from None


def _restrict(connection: sqlite3.Connection) -> None:
    """Keep an untrusted database from using much memory or time."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.text_factory = lambda text: text.decode(errors="replace")


def _check_tables(path: Path, connection: sqlite3.Connection) -> None:
    # A view, or a generated column (not 0), could compute anything.
    kinds = connection.execute("SELECT type FROM sqlite_master WHERE name = 'systems'").fetchall()
    columns = connection.execute("SELECT hidden FROM pragma_table_xinfo('systems')").fetchall()
    if kinds != [("table",)] or any(hidden for (hidden,) in columns):
        raise UserError(f"{path}: not a database of ASE; it has no table of systems")


def _plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of SQLite as one of JSON: arrays of numbers, dicts of values."""
    row["numbers"] = _array(row["numbers"], "<i4")
    row["positions"], row["cell"] = (_array(row[name], "<f8") for name in ("positions", "cell"))
    pbc = row["pbc"]
    row["pbc"] = [bool(pbc & bit) for bit in (1, 2, 4)] if isinstance(pbc, int) else None
    for name in ("key_value_pairs", "data"):
        row[name] = _decoded(row[name])
    return row


def _array(blob: Any, dtype: str) -> list[Any]:
    """Return the numbers of a blob, three per row if they are coordinates."""
    if not isinstance(blob, bytes) or len(blob) % np.dtype(dtype).itemsize:
        return []
    values = np.frombuffer(blob, dtype)
    is_vectors = dtype == "<f8" and values.size % 3 == 0
    return (values.reshape(-1, 3) if is_vectors else values).tolist()


def _decoded(value: Any) -> Any:
    """Return a dict from JSON text, or from the bytes that ASE writes: arrays, then JSON."""
    try:
        if isinstance(value, bytes):
            value = value[int.from_bytes(value[:8], "little", signed=True) :]
        return json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return None


def _record(id_: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as a record; values of `data` are nested, so that their names are dotted."""
    pairs = row.get("key_value_pairs")
    results = {name: row[name] for name in _RESULTS if row.get(name) is not None}
    record = {**results, **(pairs if isinstance(pairs, dict) else {})}
    if record.keys().isdisjoint(ID_COLUMNS):
        record["id"] = id_
    record["structure"] = {name: row[name] for name in _STRUCTURE_KEYS if row.get(name) is not None}
    if isinstance(data := row.get("data"), dict):
        record["data"] = data
    return record
