"""Read the crystal of a CIF: its blocks, cell, symmetry and atoms."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.cif.atoms import read_rows
from csgcnn.crystals.cif.items import Items, number
from csgcnn.crystals.cif.sites import Rows, expand, occupied_rows, shortest_distance
from csgcnn.crystals.cif.symmetry import Symmetry, possible_symmetries
from csgcnn.crystals.crystal import Crystal, cell_volume, lattice_from_parameters
from csgcnn.crystals.formulas import Formula, count_atoms, parse_formula, same_ratios
from csgcnn.crystals.structure_warnings import warn
from csgcnn.errors import StructureError, one_line

if TYPE_CHECKING:
    from pymatgen.core import Structure

_EDGES, _ANGLES = ("a", "b", "c"), ("alpha", "beta", "gamma")
_COORDINATES = ("_atom_site_fract_x", "_atom_site_cartn_x")
_FORMULA = "_chemical_formula_sum"
_MAX_FORMULA_LENGTH = 30_000
_MAGNETIC = ("_space_group_magn", "_space_group_symop_magn", "_atom_site_moment")
# Data names of modulated and of composite structures.
_MODULATED = ("_cell_modulation_dim", "_space_group_ssg", "_space_group_symop_ssg", "_cell_subsys")
# Relative difference between the volume of the cell and that which the file gives.
_VOLUME_TOLERANCE = 0.02
# Å: atoms of a setting that are closer show that it is not the one meant.
_CLASH = 0.5

Array = NDArray[Any]

# Line, column and byte of an error of gemmi.
_PLACE = re.compile(r"string:(?P<line>\d+):\d+\(\d+\): (?P<reason>.*)", re.DOTALL)
# Signs and blanks that look like those of ASCII.
_LOOKALIKES = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u200b\ufeff"), ""),
}
# An operation with blanks and without quotes, alone or after its number.
_UNQUOTED = re.compile(
    r"^(?P<number>[ \t]*(?:\d+[ \t]+)?)"
    r"(?P<operation>[-+xyz\d/.](?:[-+,xyz\d/. \t]*[-+,xyz\d/.])?)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
# The first of a list of operations, with a blank behind a comma and without quotes.
_FIRST_UNQUOTED = re.compile(
    r"_xyz[ \t]*(?:\r?\n[ \t]*)+(?:\d+[ \t]+)?[^'\"\s][^'\"\n]*,[ \t]", re.IGNORECASE
)


def read_cif(text: str) -> "Crystal | Structure":
    """Return the crystal of the first block with atoms.

    The crystal has the labels of its atoms and the formula that the file declares. Other blocks
    with atoms, and what was assumed, are warned of.

    Args:
        text: Text of the file.

    Returns:
        The crystal, or what pymatgen reads if the file describes a magnetic structure.

    Raises:
        StructureError: The file is no CIF, or does not describe one ordered crystal. The message
            names the label, data name or block of the file.
    """
    blocks = [(name, items) for name, _, items in _blocks(text) if _has_atoms(items)]
    if not blocks:
        raise StructureError("there are no atoms in it: expected a loop with _atom_site_fract_x")
    name, items = blocks[0]
    _refuse_modulation(items)
    if any(key.startswith(_MAGNETIC) for key in items.values):
        # Imported late, as pymatgen takes a second.
        from csgcnn.crystals.magnetic_cif import read_magnetic_cif

        return read_magnetic_cif(text)
    if len(blocks) > 1:
        others = one_line(", ".join(other for other, _ in blocks[1:4]))
        warn(
            "other_blocks",
            f"the file holds {len(blocks)} structures; {one_line(name)} is used, not {others}",
        )
    return _read_block(items)


def _refuse_modulation(items: Items) -> None:
    for key in items.values:
        if key.startswith(_MODULATED) and items.text(key) not in (None, "0"):
            raise StructureError(
                f"the structure is modulated ({key}); expected one that is periodic in three "
                "dimensions: give a supercell as an approximant"
            )


def cif_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each block with atoms.

    Args:
        text: Text of a CIF.

    Raises:
        StructureError: It is no CIF.
    """
    for name, block, items in _blocks(text):
        if _has_atoms(items):
            yield name, block.as_string()


def _blocks(text: str) -> Iterator[tuple[str, Any, Items]]:
    from gemmi import cif

    text = text if text.isascii() else text.translate(_LOOKALIKES)
    try:
        # Level 0: a repeated name of a block or an item is no error yet.
        document = cif.read_string(_quote_operations(text), 0)
    except (RuntimeError, ValueError) as error:
        raise StructureError(f"not a readable cif file: {_parser_message(error, text)}") from None
    for block in document:
        yield block.name, block, Items(block)


def _parser_message(error: Exception, text: str) -> str:
    """Return the message of gemmi's parser, with the line that it is about."""
    found = _PLACE.fullmatch(str(error))
    if found is None:
        return one_line(error)
    number = int(found["line"])
    line = one_line(repr("".join(text.split("\n")[number - 1 : number]).strip()), 60)
    return f"line {number} ({line}): {one_line(found['reason'])}"


def _has_atoms(items: Items) -> bool:
    return any(key in items.values for key in _COORDINATES)


def _quote_operations(text: str) -> str:
    """Quote symmetry operations that are written with blanks and without quotes."""

    def quoted(found: re.Match[str]) -> str:
        operation = found["operation"]
        if operation.count(",") != 2 or " " not in operation.replace("\t", " "):
            return found[0]
        return f"{found['number']}'{operation}'"

    if not _FIRST_UNQUOTED.search(text):
        return text
    changed = _UNQUOTED.sub(quoted, text)
    if changed != text:
        warn("unquoted_operation", "symmetry operations with blanks are not in quotes")
    return changed


def _read_block(items: Items) -> Crystal:
    lattice, declared = _lattice(items), _declared_formula(items)
    formula = parse_formula(declared)
    rows, doubts = read_rows(items, lattice, formula)
    symmetries = possible_symmetries(items, lattice)
    row, frac_coords = _choose(symmetries, rows, lattice, formula)
    atomic_number = rows.atomic_number[row]
    is_confirmed = formula is not None and same_ratios(count_atoms(atomic_number), formula)
    if doubts and not is_confirmed:
        raise doubts[0]
    if is_confirmed:
        _check_formula_units(items, declared, len(row), symmetries[0].doubt)
    labels = tuple(rows.name[one] for one in row.tolist())
    return Crystal(lattice, atomic_number.astype(np.uint8), frac_coords, labels, declared)


def _choose(
    symmetries: Sequence[Symmetry], rows: Rows, lattice: Array, formula: Formula | None
) -> tuple[Array, Array]:
    """Return row and fractional coordinates of each atom, by the symmetry that fits the file."""
    if len(symmetries) == 1:
        return _atoms(symmetries[0], rows, lattice)
    found, first_error = [], None
    for symmetry in symmetries:
        try:
            row, frac_coords = _atoms(symmetry, rows, lattice)
        except StructureError as error:
            first_error = first_error or error
            continue
        atoms = count_atoms(rows.atomic_number[row])
        is_apart = shortest_distance(frac_coords, lattice) > _CLASH
        if is_apart and (formula is None or same_ratios(atoms, formula)):
            found.append((symmetry, row, frac_coords))
    names = " and ".join(symmetry.name for symmetry in symmetries)
    if not found:
        raise first_error or StructureError(
            f"its atoms fit none of the settings of the space group, {names}: atoms would lie on "
            "each other, or the formula differs; list the symmetry operations"
        )
    symmetry, row, frac_coords = found[0]
    if len(found) > 1:
        warn("assumed_setting", f"the space group may be {names}; {symmetry.name} is assumed")
    elif symmetry is not symmetries[0]:
        warn("inferred_setting", f"of {names}, only {symmetry.name} fits the atoms")
    return row, frac_coords


def _atoms(symmetry: Symmetry, rows: Rows, lattice: Array) -> tuple[Array, Array]:
    orbits = expand(rows, symmetry.operations, lattice)
    kept = occupied_rows(rows, orbits, lattice)
    if len(kept) == len(rows.name):
        return orbits.row, orbits.frac_coords
    is_kept = np.isin(orbits.row, kept)
    return orbits.row[is_kept], orbits.frac_coords[is_kept]


def _lattice(items: Items) -> Array:
    parameters = []
    for kind, names in (("length", _EDGES), ("angle", _ANGLES)):
        for name in names:
            key = f"_cell_{kind}_{name}"
            values = items.column(key)
            if not values:
                raise StructureError(f"there is no {key} in it")
            # The CIF dictionary gives 90 as the default of an angle.
            is_default = kind == "angle" and values[0] == "."
            value = 90.0 if is_default else number(values[0], key)
            largest = 180 if kind == "angle" else math.inf
            if not 0 < value < largest:
                raise StructureError(
                    f"{key} is {values[0]!r:.40}; expected a number above 0"
                    + (" and below 180" if kind == "angle" else "")
                )
            parameters.append(value)
    angles = parameters[3:]
    if 2 * max(angles) >= sum(angles) or sum(angles) >= 360:
        raise StructureError(
            "_cell_angle_alpha, _cell_angle_beta and _cell_angle_gamma are "
            f"{', '.join(f'{angle:g}' for angle in angles)}; no lattice has these angles"
        )
    lattice = lattice_from_parameters(parameters)
    if (given := items.text("_cell_volume")) is not None:
        volume = abs(cell_volume(lattice))
        expected = number(given, "_cell_volume")
        if abs(volume - expected) > _VOLUME_TOLERANCE * volume:
            warn(
                "cell_volume",
                f"_cell_volume is {given:.40}, but lengths and angles give {volume:.5g} Å³",
            )
    return lattice


def _declared_formula(items: Items) -> str:
    declared = items.text(_FORMULA) or ""
    if len(declared) > _MAX_FORMULA_LENGTH:
        raise StructureError(f"{_FORMULA} holds {len(declared)} characters; is it a formula?")
    return declared


def _check_formula_units(items: Items, declared: str, n_atoms: int, doubt: str) -> None:
    """Warn of another number of formula units than in the file; refuse fewer, if in doubt."""
    given, formula = items.text("_cell_formula_units_z"), parse_formula(declared)
    if given is None or formula is None:
        return
    units, size = number(given, "_cell_formula_units_Z"), sum(formula.values())
    # pymatgen writes the formula of the cell, and the units of the reduced formula in it.
    is_of_cell = size == n_atoms and units >= 1 and not any(n % units for n in formula.values())
    if abs(n_atoms - units * size) > 0.01 * n_atoms and not is_of_cell:
        message = (
            f"_cell_formula_units_Z is {given:.40}, but the cell has "
            f"{n_atoms / size:g} formula units of {one_line(declared)}"
        )
        if doubt and n_atoms < units * size:
            raise StructureError(f"{message}, and {doubt}; list all symmetry operations")
        warn("formula_units", message)
