"""One crystal structure, from a dict, a file or pymatgen, or an error that says what is wrong with it."""

import math
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER, atomic_number
from csgcnn.crystals.limits import MAX_FRAC_COORD, MAX_SITES
from csgcnn.crystals.structure_files import read_structure_file
from csgcnn.errors import StructureError, one_line

if TYPE_CHECKING:
    from pymatgen.core import Structure

StructureSource: TypeAlias = (
    "dict[str, Any] | Path | Structure | Crystal | None"  # None: a record without one
)

_LATTICE_KEYS = ("sites", "lattice", "lattice_parameters", "lattice_mat")
_CHARGED_SPECIES = re.compile(
    r"([A-Z][a-z]?)\d*(\.\d*)?[+-](,.*)?"
)  # "Fe3+", "O2-", "Fe2.5+,spin=5"
_OCCUPANCY_TOLERANCE = 1e-6
_FLAT_CELL = 1e-6  # volume / (a b c) below which the lattice vectors span no volume
_LONGEST_VECTOR = 1e4  # Å, of a lattice


class Crystal(NamedTuple):
    """A periodic, ordered crystal.

    Shapes: lattice [3, 3], rows are vectors; atomic_number [n_atoms]; frac_coords [n_atoms, 3].
    Units: lattice in Å.
    """

    lattice: NDArray[np.float64]
    atomic_number: NDArray[np.uint8]
    frac_coords: NDArray[np.float64]


def to_crystal(source: StructureSource) -> Crystal:
    """Read one structure from a dict, a structure file or a pymatgen Structure; a Crystal is returned as it is.

    A dict is one of: pymatgen's ``Structure.as_dict()``; ``lattice`` or ``lattice_parameters`` (a, b, c,
    alpha, beta, gamma) with ``species`` and ``frac_coords``; JARVIS's ``lattice_mat``, ``elements``,
    ``coords`` and ``cartesian``.

    Units: Å, degrees. Sites are counted from 1 in messages.
    Raises: StructureError with the reason, and the file if one is read, unless it is an ordered crystal of
    elements 1 to 100.
    """
    if isinstance(source, Crystal):
        return source
    if isinstance(source, dict):
        return _from_dict(source)
    if isinstance(source, Path):
        return _from_file(source)
    if source is None or not (hasattr(source, "lattice") and hasattr(source, "frac_coords")):
        raise StructureError(
            "expected a structure (a dict, a file or a pymatgen Structure), "
            f"found {type(source).__name__} {reprlib.repr(source):.60}"
        )
    return _from_pymatgen(source)


def is_structure_dict(value: object) -> bool:
    """Whether a JSON value is one structure (rather than a data set or something else)."""
    return isinstance(value, dict) and any(key in value for key in _LATTICE_KEYS)


def _from_dict(source: dict[str, Any]) -> Crystal:
    try:
        if "sites" in source:
            return _from_pymatgen_dict(source)
        if "lattice_mat" in source:
            return _from_jarvis_dict(source)
        if "lattice_parameters" in source:
            lattice = _lattice_from_parameters(source["lattice_parameters"])
        else:
            lattice = _lattice(source["lattice"])
        return _crystal(lattice, source["species"], _floats(source["frac_coords"], "frac_coords"))
    except StructureError:
        raise
    except KeyError as error:
        raise StructureError(
            f"the structure has no {one_line(error)}; it has {one_line(', '.join(map(str, source)))}. Expected a "
            "pymatgen dict, or species and frac_coords with lattice or lattice_parameters, or JARVIS atoms"
        ) from None
    except Exception as error:  # whatever a value of an unexpected kind leads to
        raise StructureError(f"the structure is malformed: {one_line(error)}") from None


def _from_pymatgen_dict(source: dict[str, Any]) -> Crystal:
    sites = source["sites"]
    species = []
    for number, site in enumerate(sites, 1):
        occupants = site["species"]
        if len(occupants) != 1 or abs(occupants[0]["occu"] - 1) > _OCCUPANCY_TOLERANCE:
            _refuse_disorder(number, {str(one["element"]): one["occu"] for one in occupants})
        species.append(occupants[0]["element"])
    frac_coords = _floats([site["abc"] for site in sites], "abc")
    return _crystal(_lattice(source["lattice"]["matrix"]), species, frac_coords)


def _from_jarvis_dict(source: dict[str, Any]) -> Crystal:
    lattice = _lattice(source["lattice_mat"])
    coords = _floats(source["coords"], "coords")
    if source["cartesian"] and coords.shape[1:] == (3,):
        coords = coords @ np.linalg.inv(lattice)
    return _crystal(lattice, source["elements"], coords)


def _from_pymatgen(structure: "Structure") -> Crystal:
    species = []
    for number, site in enumerate(structure, 1):
        occupants = site.species
        if len(occupants) != 1 or abs(occupants.num_atoms - 1) > _OCCUPANCY_TOLERANCE:
            _refuse_disorder(number, {str(one): occupancy for one, occupancy in occupants.items()})
        species.append(next(iter(occupants)).symbol)
    return _crystal(
        _lattice(structure.lattice.matrix), species, np.array(structure.frac_coords, dtype=float)
    )


def _from_file(path: Path) -> Crystal:
    try:
        content = read_structure_file(path)
        return _from_dict(content) if isinstance(content, dict) else _from_pymatgen(content)
    except StructureError as error:
        raise StructureError(f"{path}: {error}") from error


def _floats(values: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        for number, row in enumerate(values if isinstance(values, list) else [], 1):
            if not isinstance(row, Sequence) or len(row) != 3:
                raise StructureError(
                    f"site {number}: {name} is {row!r:.60}, expected 3 numbers"
                ) from None
        raise StructureError(f"{name} does not hold numbers only ({one_line(error)})") from None


def _lattice(values: Any) -> NDArray[np.float64]:
    try:
        lattice = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise StructureError(f"the lattice is not 3x3 numbers ({one_line(error)})") from None
    if lattice.shape != (3, 3):
        raise StructureError(f"the lattice has shape {list(lattice.shape)}, expected [3, 3]")
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice.tolist()
    volume = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    if not math.isfinite(volume):
        raise StructureError("the lattice holds NaN or infinite numbers")
    a, b, c = math.hypot(ax, ay, az), math.hypot(bx, by, bz), math.hypot(cx, cy, cz)
    if (longest := max(a, b, c)) > _LONGEST_VECTOR:
        raise StructureError(
            f"a lattice vector is {longest:.3g} Å long, expected at most {_LONGEST_VECTOR:g} Å"
        )
    if abs(volume) <= _FLAT_CELL * a * b * c:
        raise StructureError("the lattice is singular: its three vectors span no volume")
    return lattice


def _lattice_from_parameters(parameters: Any) -> NDArray[np.float64]:
    """Lattice vectors oriented as those of ``pymatgen.core.Lattice.from_parameters``."""
    values = [float(value) for value in parameters]
    if len(values) != 6:
        raise StructureError(f"lattice_parameters {values}: expected a, b, c, alpha, beta, gamma")
    a, b, c, *angles = values
    if not all(0 < angle < 180 for angle in angles) or not all(
        0 < length < math.inf for length in (a, b, c)
    ):
        raise StructureError(
            f"lattice_parameters {values}: expected lengths > 0, angles between 0 and 180"
        )
    alpha, beta, gamma = map(math.radians, angles)
    cos_gamma_star = (math.cos(alpha) * math.cos(beta) - math.cos(gamma)) / (
        math.sin(alpha) * math.sin(beta)
    )
    gamma_star = math.acos(max(-1.0, min(1.0, cos_gamma_star)))
    b_sin = b * math.sin(alpha)
    return _lattice(
        [
            [a * math.sin(beta), 0.0, a * math.cos(beta)],
            [-b_sin * math.cos(gamma_star), b_sin * math.sin(gamma_star), b * math.cos(alpha)],
            [0.0, 0.0, c],
        ]
    )


def _crystal(
    lattice: NDArray[np.float64], species: Sequence[str], frac_coords: NDArray[np.float64]
) -> Crystal:
    if len(species) == 0:
        raise StructureError("the structure has no atoms")
    if len(species) > MAX_SITES:
        raise StructureError(
            f"the structure has {len(species)} sites; up to {MAX_SITES} are supported"
        )
    if frac_coords.shape != (len(species), 3):
        raise StructureError(
            f"{len(species)} species but coordinates of shape {list(frac_coords.shape)}; expected [{len(species)}, 3]"
        )
    near = np.abs(frac_coords) <= MAX_FRAC_COORD
    if not near.all():
        site = int(np.argmin(near.all(axis=1)))
        found = frac_coords[site].tolist()
        why = (
            "are a million cells away" if np.isfinite(frac_coords[site]).all() else "are not finite"
        )
        raise StructureError(
            f"site {site + 1} ({one_line(species[site])}): coordinates {found} {why}"
        )
    numbers = [_element(one, site) for site, one in enumerate(species, 1)]
    return Crystal(lattice, np.array(numbers, dtype=np.uint8), frac_coords)


def _element(species: str, site: int) -> int:
    charged = (
        isinstance(species, str) and not species.isalpha() and _CHARGED_SPECIES.fullmatch(species)
    )
    try:
        number = atomic_number(charged[1] if charged else species)
    except StructureError as error:
        raise StructureError(f"site {site}: {one_line(error)}") from None
    if number > MAX_ATOMIC_NUMBER:
        raise StructureError(
            f"site {site}: {species} has atomic number {number}; elements up to {MAX_ATOMIC_NUMBER} (Fm) are supported"
        )
    return number


def _refuse_disorder(site: int, occupancies: dict[str, float]) -> NoReturn:
    found = ", ".join(f"{species} {occupancy:g}" for species, occupancy in occupancies.items())
    raise StructureError(
        f"site {site} is disordered ({one_line(found or 'no species')}); expected one species with occupancy 1: "
        "give an ordered structure"
    )
