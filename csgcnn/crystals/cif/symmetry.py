"""The symmetry that a CIF describes: listed operations, or a space group by symbol or number."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.cif.items import Items, number
from csgcnn.crystals.cif.operations import Operations, hall_operations, listed_operations
from csgcnn.crystals.cif.space_groups import (
    Setting,
    group_number,
    settings_of_name,
    settings_of_number,
)
from csgcnn.crystals.structure_warnings import warn
from csgcnn.errors import StructureError, one_line

_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_NAMES = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m_ref",
)
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
# Relative deviation of the metric of the cell from that of its symmetry.
_METRIC_TOLERANCE = 0.02

Array = NDArray[Any]


class Symmetry(NamedTuple):
    """Symmetry operations that the file may mean.

    Attributes:
        name: Space group, for messages.
        operations: The operations.
        doubt: Why atoms may be missing, or "".
    """

    name: str
    operations: Operations
    doubt: str = ""


def possible_symmetries(items: Items, lattice: Array) -> list[Symmetry]:
    """Return what the symmetry of a block may be, the likeliest first.

    Listed operations come before the Hall symbol, this before the Hermann-Mauguin symbol, and the
    number comes last. A symbol without origin or axes can mean several settings; those that do not
    fit the cell are left out.

    Args:
        items: The block.
        lattice: Lattice vectors [3, 3] in Å.

    Returns:
        At least one symmetry.

    Raises:
        StructureError: The operations are no group, the space group is unknown or does not fit the
            cell, or its symbols and number disagree.
    """
    if (listed := _listed(items)) is not None:
        doubt = _compare_with_name(items, listed, lattice)
        return [Symmetry(f"{len(listed)} operations", listed, doubt)]
    settings, given = _named(items)
    if not given:
        doubt = "the file names no space group"
        warn("no_symmetry", f"{doubt}; its atoms are taken as all of the cell")
        return [Symmetry("P 1", hall_operations("P 1"), doubt)]
    _check_number(items, settings, given)
    if not settings:
        raise StructureError(
            f"the space group {one_line(given)} is not known, and no symmetry operations are "
            f"listed; add {_OPERATIONS[0]}"
        )
    found = [Symmetry(setting.name, hall_operations(setting.hall)) for setting in settings]
    fitting = [symmetry for symmetry in found if _fits_cell(symmetry.operations, lattice)]
    if not fitting:
        lengths = ", ".join(f"{length:.4g}" for length in np.linalg.norm(lattice, axis=1))
        raise StructureError(
            f"the space group {one_line(given)} does not fit the cell (edges {lengths} Å and its "
            "angles); correct the file, or list the symmetry operations"
        )
    return fitting


def _fits_cell(operations: Operations, lattice: Array) -> bool:
    """Return whether all rotations keep the lengths and angles of a cell."""
    if len(operations) == 1:
        return True
    metric = lattice @ lattice.T
    rotated = operations.rotation.transpose(0, 2, 1) @ metric @ operations.rotation
    lengths = np.sqrt(np.diag(metric))
    return bool((abs(rotated - metric) <= _METRIC_TOLERANCE * np.outer(lengths, lengths)).all())


def _listed(items: Items) -> Operations | None:
    for key in _OPERATIONS:
        triplets = [text for text in items.column(key) or () if text not in ("?", ".", "")]
        if triplets:
            try:
                return listed_operations(tuple(triplets))
            except StructureError as error:
                raise StructureError(f"{key}: {error}") from None
    return None


def _check_number(items: Items, settings: Sequence[Setting], given: str) -> None:
    """Refuse a Hall symbol, a Hermann-Mauguin symbol and a number of different space groups."""
    numbers = {group_number(setting.hall) for setting in settings}
    others = {name: settings_of_name(name) for key in _NAMES if (name := items.text(key))}
    if (number_text := items.text(*_NUMBERS)) is not None:
        with suppress(StructureError):
            others[number_text] = _settings_of_number(number_text)
    for other, its_settings in others.items():
        of_other = {group_number(setting.hall) for setting in its_settings}
        if numbers and of_other and None not in numbers | of_other and numbers.isdisjoint(of_other):
            raise StructureError(
                f"the file names two space groups, {one_line(given)} and {one_line(other)}; "
                f"correct one, or add {_OPERATIONS[0]}"
            )


def _settings_of_number(text: str) -> list[Setting]:
    value = number(text, _NUMBERS[0])
    return settings_of_number(int(value)) if value.is_integer() else []


def _named(items: Items) -> tuple[list[Setting], str]:
    """Return the settings of the named space group, and its name in the file."""
    unknown = []
    if hall := items.text(*_HALL):
        try:
            hall_operations(" ".join(hall.split()))
        except StructureError:
            unknown.append(hall)
        else:
            return [Setting(hall, " ".join(hall.split()), "")], hall
    for key in _NAMES:
        if name := items.text(key):
            if settings := settings_of_name(name):
                return settings, name
            unknown.append(name)
    given = items.text(*_NUMBERS)
    if unknown or given is None:
        # The number alone could mean another setting than the unknown name.
        return [], " or ".join(dict.fromkeys(unknown))
    return _settings_of_number(given), given


def _compare_with_name(items: Items, listed: Operations, lattice: Array) -> str:
    """Warn if the listed operations do not fit the cell or the named group; return the latter."""
    if not _fits_cell(listed, lattice):
        warn(
            "symmetry_mismatch", "the listed symmetry operations do not fit the angles of the cell"
        )
    settings, given = _named(items)
    orders = {len(hall_operations(setting.hall)) for setting in settings}
    if not orders or len(listed) in orders:
        return ""
    mismatch = (
        f"{len(listed)} symmetry operations are listed, but the space group "
        f"{one_line(given)} has {max(orders)}"
    )
    warn("symmetry_mismatch", f"{mismatch}; the listed ones are used")
    return mismatch
