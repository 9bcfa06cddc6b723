"""Atoms with Cartesian positions in a cell: `Atoms` of ASE, rows of its databases, xyz frames.

They are read by attribute or key, so that ASE need not be installed and executes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import (
    OCCUPANCY_TOLERANCE,
    Crystal,
    checked_lattice,
    make_crystal,
    refuse_disorder,
    refuse_not_periodic,
)
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.errors import StructureError, one_line

# Dummy atoms of ASE and xyz files.
_GHOSTS = ("X", "Xx")


def is_ase_atoms(value: object) -> bool:
    """Return whether a value is an `Atoms` of ASE, without importing ASE."""
    return hasattr(value, "get_chemical_symbols")


def is_atoms_dict(value: Mapping[str, Any]) -> bool:
    """Return whether a dict has the keys that `crystal_of_dict` reads."""
    return "positions" in value and ("numbers" in value or "species" in value)


def crystal_of_ase(atoms: Any) -> Crystal:
    """Return the crystal of an `Atoms` of ASE.

    Raises:
        StructureError: It is not a periodic, ordered crystal.
    """
    _refuse_partial_occupancies(getattr(atoms, "info", {}).get("occupancy"))
    lattice = _periodic_lattice(atoms.get_cell(), atoms.pbc)
    species = atoms.get_chemical_symbols()
    _refuse_ghosts(species)
    return make_crystal(lattice, species, np.array(atoms.get_scaled_positions()))


def crystal_of_dict(source: Mapping[str, Any]) -> Crystal:
    """Return the crystal of a row of an ASE database, or of a frame of an xyz file.

    Args:
        source: `numbers` or `species`, `positions` in Å, and maybe `cell` in Å, `pbc` and
            `occupancy`; an array may be an `__ndarray__` of ASE's JSON.

    Raises:
        StructureError: It is not a periodic, ordered crystal.
    """
    _refuse_partial_occupancies(source.get("occupancy"))
    if (species := source.get("species")) is None:
        species = _symbols(_plain_array(source["numbers"]))
    lattice = _periodic_lattice(_plain_array(source.get("cell")), _plain_array(source.get("pbc")))
    _refuse_ghosts(species)
    positions = np.array(_plain_array(source["positions"]), dtype=np.float64).reshape(-1, 3)
    return make_crystal(lattice, species, positions @ np.linalg.inv(lattice))


def _plain_array(value: Any) -> Any:
    """Return the nested list of an array in ASE's JSON, or the value."""
    if isinstance(value, Mapping) and "array" in value:
        # A cell with its class.
        value = value["array"]
    if not (isinstance(value, Mapping) and "__ndarray__" in value):
        return value
    shape, _, flat = value["__ndarray__"]
    return np.array(flat, dtype=float).reshape(shape).tolist()


def _periodic_lattice(cell: Any, pbc: Any) -> NDArray[np.float64]:
    if cell is None or not np.any(cell):
        raise StructureError(
            "the structure has no cell; put it into a cell with 10 Å of vacuum around the atoms "
            "and set pbc to True"
        )
    refuse_not_periodic(False if pbc is None else pbc)
    return checked_lattice(cell)


def _refuse_ghosts(species: Sequence[str]) -> None:
    for site, symbol in enumerate(species, 1):
        if symbol in _GHOSTS:
            raise StructureError(
                f"site {site} ({symbol}) is a ghost or dummy atom; remove it from the structure"
            )


def _symbols(numbers: Iterable[Any]) -> list[str]:
    symbols = []
    for site, number in enumerate(numbers, 1):
        if number not in range(len(SYMBOLS)):
            raise StructureError(
                f"site {site} has the atomic number {one_line(number, 20)}; expected 1 to 100"
            )
        symbols.append(SYMBOLS[int(number)] or "X")
    return symbols


def _refuse_partial_occupancies(occupancy: Any) -> None:
    """Refuse disorder, which ASE stores as occupancies of the elements by kind of site."""
    if not isinstance(occupancy, Mapping):
        return
    for kind, occupancies in occupancy.items():
        amounts = list(occupancies.values())
        if len(amounts) != 1 or abs(amounts[0] - 1) > OCCUPANCY_TOLERANCE:
            refuse_disorder(f"of kind {one_line(kind, 20)}", dict(occupancies))
