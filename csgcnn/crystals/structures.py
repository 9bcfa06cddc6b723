"""Structures of every kind, read into a `Crystal`."""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import (
    Crystal,
    checked_lattice,
    lattice_from_parameters,
    make_crystal,
    refuse_disorder,
)
from csgcnn.crystals.structure_files import parse_structure, read_structure_file, text_format
from csgcnn.errors import StructureError, one_line

if TYPE_CHECKING:
    from pymatgen.core import Structure


class StructureText(NamedTuple):
    """A structure as the text of a file: CIF, POSCAR or JSON."""

    text: str


# None: the record has no structure, which is reported when it is read.
StructureSource: TypeAlias = "dict[str, Any] | Path | StructureText | Structure | Crystal | None"

_STRUCTURE_KEYS = ("sites", "lattice", "lattice_parameters", "lattice_mat")
_OCCUPANCY_TOLERANCE = 1e-6


def to_crystal(source: StructureSource) -> Crystal:
    """Return the crystal of a dict, a file, the text of a file, or a pymatgen Structure.

    Lengths are in Å, angles in degrees. A dict has one of these sets of keys:

    - those of pymatgen's `Structure.as_dict()`;
    - `lattice` or `lattice_parameters` (a, b, c, alpha, beta, gamma), `species`, `frac_coords`;
    - those of JARVIS: `lattice_mat`, `elements`, `coords`, `cartesian`.

    Raises:
        StructureError: It is not an ordered crystal of elements 1 to 100. The message names the
            file, if one is read, and counts sites from 1.
    """
    if isinstance(source, Crystal):
        return source
    if isinstance(source, dict):
        return _from_dict(source)
    if isinstance(source, Path):
        return _from_file(source)
    if isinstance(source, StructureText):
        return _from_content(parse_structure(source.text, text_format(source.text)))
    if source is None or not (hasattr(source, "lattice") and hasattr(source, "frac_coords")):
        raise StructureError(
            "expected a structure (a dict, a file or a pymatgen Structure), "
            f"found {type(source).__name__} {reprlib.repr(source):.60}"
        )
    return _from_pymatgen(source)


def is_structure_dict(value: object) -> bool:
    """Return whether a JSON value has the keys of a structure."""
    return isinstance(value, dict) and any(key in value for key in _STRUCTURE_KEYS)


def _from_dict(source: dict[str, Any]) -> Crystal:
    try:
        if "sites" in source:
            return _from_pymatgen_dict(source)
        if "lattice_mat" in source:
            return _from_jarvis_dict(source)
        if "lattice_parameters" in source:
            lattice = lattice_from_parameters(source["lattice_parameters"])
        else:
            lattice = checked_lattice(source["lattice"])
        return make_crystal(
            lattice, source["species"], _floats(source["frac_coords"], "frac_coords")
        )
    except StructureError:
        raise
    except KeyError as error:
        raise StructureError(
            f"the structure has no {one_line(error)}; "
            f"it has {one_line(', '.join(map(str, source)))}. "
            "Expected a pymatgen dict, or species and frac_coords with lattice or "
            "lattice_parameters, or JARVIS atoms"
        ) from None
    except Exception as error:
        # A value of an unexpected type can raise any error.
        raise StructureError(f"the structure is malformed: {one_line(error)}") from None


def _from_pymatgen_dict(source: dict[str, Any]) -> Crystal:
    sites = source["sites"]
    species = []
    for number, site in enumerate(sites, 1):
        occupants = site["species"]
        if len(occupants) != 1 or abs(occupants[0]["occu"] - 1) > _OCCUPANCY_TOLERANCE:
            refuse_disorder(number, {str(o["element"]): o["occu"] for o in occupants})
        species.append(occupants[0]["element"])
    frac_coords = _floats([site["abc"] for site in sites], "abc")
    return make_crystal(checked_lattice(source["lattice"]["matrix"]), species, frac_coords)


def _from_jarvis_dict(source: dict[str, Any]) -> Crystal:
    lattice = checked_lattice(source["lattice_mat"])
    coords = _floats(source["coords"], "coords")
    if source["cartesian"] and coords.shape[1:] == (3,):
        coords = coords @ np.linalg.inv(lattice)
    return make_crystal(lattice, source["elements"], coords)


def _from_pymatgen(structure: "Structure") -> Crystal:
    species = []
    for number, site in enumerate(structure, 1):
        occupants = site.species
        if len(occupants) != 1 or abs(occupants.num_atoms - 1) > _OCCUPANCY_TOLERANCE:
            refuse_disorder(number, {str(one): occupancy for one, occupancy in occupants.items()})
        species.append(next(iter(occupants)).symbol)
    frac_coords = np.array(structure.frac_coords, dtype=float)
    return make_crystal(checked_lattice(structure.lattice.matrix), species, frac_coords)


def _from_file(path: Path) -> Crystal:
    try:
        return _from_content(read_structure_file(path))
    except StructureError as error:
        raise StructureError(f"{path}: {error}") from error


def _from_content(content: "dict[str, Any] | Structure") -> Crystal:
    return _from_dict(content) if isinstance(content, dict) else _from_pymatgen(content)


def _floats(values: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        for number, row in enumerate(values if isinstance(values, list) else [], 1):
            if not isinstance(row, Sequence) or len(row) != 3:
                found = f"{name} is {row!r:.60}"
                raise StructureError(f"site {number}: {found}, expected 3 numbers") from None
        raise StructureError(f"{name} does not hold numbers only ({one_line(error)})") from None
