"""Entries of nested dicts as columns with dotted names, such as `outputs.pbe.bandgap`."""

from collections.abc import Mapping
from typing import Any

from csgcnn.crystals.structures import is_structure_dict

# Dicts are searched to this depth for this many columns.
_MAX_DEPTH, _MAX_COLUMNS = 6, 1000
_KEPT = (str, int, float, dict, type(None))


def with_nested(row: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return a record with the entries of its nested dicts under dotted names, too.

    Args:
        row: The record.
        names: Dotted names of all records so far, which is added to.
    """
    found: dict[str, Any] = {}

    def search(nested: Mapping[str, Any], prefix: str, depth: int) -> None:
        for key, value in nested.items():
            name = f"{prefix}{key}"
            if depth and isinstance(value, _KEPT) and name not in row:
                if name not in names and len(names) >= _MAX_COLUMNS:
                    continue
                names.add(name)
                found[name] = value
            if isinstance(value, dict) and depth < _MAX_DEPTH and not is_structure_dict(value):
                search(value, f"{name}.", depth + 1)

    search(row, "", 0)
    return {**row, **found} if found else row
