"""Read the rows of atoms of a CIF: labels, elements, occupancies and coordinates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.cif.items import ABSENT, Items, n_decimals, number
from csgcnn.crystals.cif.labels import (
    element_of_label,
    element_of_type,
    elements_in_formula,
    row_names,
    unclear_element,
)
from csgcnn.crystals.cif.sites import Rows
from csgcnn.crystals.crystal import OCCUPANCY_TOLERANCE
from csgcnn.crystals.formulas import Formula
from csgcnn.crystals.structure_warnings import warn
from csgcnn.errors import StructureError, one_line

_SITE = "_atom_site_"
_AXES = ("x", "y", "z")
# Cosine of an angle that counts as right.
_RIGHT_ANGLE = 1e-4

Array = NDArray[Any]


def read_rows(
    items: Items, lattice: Array, formula: Formula | None
) -> tuple[Rows, list[StructureError]]:
    """Return the rows of atoms, without dummy and empty sites.

    Args:
        items: The block.
        lattice: Lattice vectors [3, 3] in Å.
        formula: The formula that the block gives.

    Returns:
        The rows, and doubts that only a matching formula removes: elements guessed from labels,
        hydrogen atoms without a row.

    Raises:
        StructureError: A row has no element, position or occupancy; the message names it.
    """
    labels, symbols = items.column(f"{_SITE}label"), items.column(f"{_SITE}type_symbol")
    is_cartesian = f"{_SITE}fract_x" not in items.values
    axes = _coordinate_columns(items, "cartn" if is_cartesian else "fract")
    names = row_names(labels, symbols, len(axes[0]))
    occupancies = [
        1.0 if text in ABSENT else number(text, f"{_SITE}occupancy", name)
        for text, name in zip(_column(items, "occupancy", len(names)), names, strict=True)
    ]
    flags = _column(items, "calc_flag", len(names))
    kept = [row for row in range(len(names)) if _is_atom(names[row], flags[row], occupancies[row])]
    doubts: list[StructureError] = []
    elements = [
        _element(_value(labels, row), _value(symbols, row), names[row], formula, doubts)
        for row in kept
    ]
    _check_hydrogens(items, kept, names, doubts)
    if all(abs(occupancies[row] - 1) <= OCCUPANCY_TOLERANCE for row in kept):
        _check_alternatives(items, kept, names)
    if not kept:
        raise StructureError("the structure has no atoms")
    kept_names = [names[row] for row in kept]
    texts = [(axes[0][row], axes[1][row], axes[2][row]) for row in kept]
    key = f"{_SITE}{'Cartn' if is_cartesian else 'fract'}_"
    coords = np.array(
        [
            [number(text, key + axis, name) for text, axis in zip(of_row, _AXES, strict=True)]
            for name, of_row in zip(kept_names, texts, strict=True)
        ]
    )
    if is_cartesian:
        coords = coords @ np.linalg.inv(_cartesian_axes(items, lattice))
    else:
        coords = _ideal_thirds(coords, texts)
    occupancy = np.array([occupancies[row] for row in kept])
    return Rows(kept_names, np.array(elements), occupancy, coords, texts), doubts


def _coordinate_columns(items: Items, kind: str) -> list[list[str]]:
    columns = []
    for axis in _AXES:
        column = items.column(f"{_SITE}{kind}_{axis}")
        if column is None:
            raise StructureError(f"there is no {_SITE}{kind}_{axis} in it")
        columns.append(column)
    if len({len(column) for column in columns}) > 1:
        raise StructureError(f"{_SITE}{kind}_x, y and z have different numbers of rows")
    return columns


def _column(items: Items, name: str, n_rows: int) -> Sequence[str]:
    """Return a column of the rows of atoms, "." where the file does not have it."""
    column = items.column(_SITE + name)
    if column is None:
        return ["."] * n_rows
    if len(column) != n_rows:
        raise StructureError(
            f"{_SITE}{name} has {len(column)} values for {n_rows} rows of coordinates"
        )
    return column


def _value(column: Sequence[str] | None, row: int) -> str | None:
    return None if column is None else column[row]


def _is_atom(name: str, flag: str, occupancy: float) -> bool:
    """Return whether a row is an atom, and warn of a dummy or empty site."""
    reason = "a dummy site" if flag.lower() == "dum" else "empty" if occupancy == 0 else ""
    if reason:
        warn("omitted_site", f"site {one_line(name)} is {reason} and is left out")
    return not reason


def _element(
    label: str | None,
    symbol: str | None,
    name: str,
    formula: Formula | None,
    doubts: list[StructureError],
) -> int:
    """Return the atomic number of a row, by its type symbol, else by its label."""
    if symbol is not None and symbol not in ABSENT:
        text, found = symbol, element_of_type(symbol)
    elif label is not None and label not in ABSENT:
        text, found = label, element_of_label(label)
    else:
        raise StructureError(
            f"atom {one_line(name)}: there is neither {_SITE}label nor {_SITE}type_symbol"
        )
    if found is not None:
        return found
    guesses = elements_in_formula(text, formula)
    doubts.append(unclear_element(name, symbol))
    if len(guesses) != 1:
        raise doubts[-1]
    return guesses[0]


def _check_hydrogens(
    items: Items, kept: Sequence[int], names: Sequence[str], doubts: list[StructureError]
) -> None:
    key = f"{_SITE}attached_hydrogens"
    if key not in items.values:
        return
    column = _column(items, "attached_hydrogens", len(names))
    for row in kept:
        if column[row] not in ABSENT and number(column[row], key, names[row]) > 0:
            doubts.append(
                StructureError(
                    f"atom {one_line(names[row])} has {column[row]} attached hydrogen atoms "
                    f"({key}) without rows; add their coordinates"
                )
            )
            return


def _check_alternatives(items: Items, kept: Sequence[int], names: Sequence[str]) -> None:
    """Refuse atoms with the occupancy 1 in several groups of an assembly, which are disordered."""
    groups = _column(items, "disorder_group", len(names))
    assemblies = _column(items, "disorder_assembly", len(names))
    first: dict[str, int] = {}
    for row in kept:
        if groups[row] in ABSENT:
            continue
        other = first.setdefault(assemblies[row], row)
        if groups[other] != groups[row]:
            raise StructureError(
                f"atoms {one_line(names[other])} and {one_line(names[row])} are disordered: "
                f"alternatives by {_SITE}disorder_group, without occupancies; give an ordered "
                "structure"
            )


def _cartesian_axes(items: Items, lattice: Array) -> Array:
    """Return the lattice vectors in the axes of Cartesian coordinates [3, 3]."""
    if any(key.startswith("_atom_sites_cartn_tran") for key in items.values):
        raise StructureError(
            "the coordinates are Cartesian (_atom_site_Cartn_x) in axes of their own "
            "(_atom_sites_Cartn_tran); give fractional coordinates"
        )
    lengths = np.linalg.norm(lattice, axis=1)
    cosines = (lattice @ lattice.T) / np.outer(lengths, lengths)
    if abs(cosines - np.eye(3)).max() > _RIGHT_ANGLE:
        raise StructureError(
            "the coordinates are Cartesian (_atom_site_Cartn_x) and the cell is not rectangular, "
            "so that their axes are not known; give fractional coordinates"
        )
    return np.diag(lengths)


def _ideal_thirds(coords: Array, texts: Sequence[Sequence[str]]) -> Array:
    """Replace coordinates such as 0.3333 by the thirds and sixths that they were rounded from."""
    sixths = np.round(coords * 6)
    is_near = (abs(coords - sixths / 6) < 1e-3) & (sixths % 3 != 0)
    for row, axis in np.argwhere(is_near).tolist():
        decimals = n_decimals(texts[row][axis])
        if decimals >= 3 and abs(coords[row, axis] - sixths[row, axis] / 6) < 10.0**-decimals:
            coords[row, axis] = sixths[row, axis] / 6
    return coords
