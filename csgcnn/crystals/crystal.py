"""One crystal structure, read from a dict, a file or a pymatgen Structure and checked."""

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

# None: the record has no structure, which is reported when it is read.
StructureSource: TypeAlias = "dict[str, Any] | Path | Structure | Crystal | None"

_STRUCTURE_KEYS = ("sites", "lattice", "lattice_parameters", "lattice_mat")
# "Fe3+", "O2-", "Fe2.5+,spin=5"
_CHARGED_SPECIES = re.compile(r"([A-Z][a-z]?)\d*(\.\d*)?[+-](,.*)?")
_OCCUPANCY_TOLERANCE = 1e-6
# volume / (a b c) below which the lattice is singular.
_MIN_VOLUME_RATIO = 1e-6
# Å
_MAX_VECTOR_LENGTH = 1e4


class Crystal(NamedTuple):
    """A periodic, ordered crystal."""

    lattice: NDArray[np.float64]  # [3, 3], rows are the lattice vectors, Å
    atomic_number: NDArray[np.uint8]  # [n_atoms]
    frac_coords: NDArray[np.float64]  # [n_atoms, 3]


def to_crystal(source: StructureSource) -> Crystal:
    """Return the crystal of a dict, a structure file, a pymatgen Structure or a Crystal.

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
            lattice = _lattice_from_parameters(source["lattice_parameters"])
        else:
            lattice = _lattice(source["lattice"])
        return _crystal(lattice, source["species"], _floats(source["frac_coords"], "frac_coords"))
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
            _refuse_disorder(number, {str(o["element"]): o["occu"] for o in occupants})
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
    frac_coords = np.array(structure.frac_coords, dtype=float)
    return _crystal(_lattice(structure.lattice.matrix), species, frac_coords)


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
                found = f"{name} is {row!r:.60}"
                raise StructureError(f"site {number}: {found}, expected 3 numbers") from None
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
    if (longest := max(a, b, c)) > _MAX_VECTOR_LENGTH:
        raise StructureError(
            f"a lattice vector is {longest:.3g} Å long, expected at most {_MAX_VECTOR_LENGTH:g} Å"
        )
    if abs(volume) <= _MIN_VOLUME_RATIO * a * b * c:
        raise StructureError("the lattice is singular: its three vectors span no volume")
    return lattice


def _lattice_from_parameters(parameters: Any) -> NDArray[np.float64]:
    """Return lattice vectors with the orientation of pymatgen's `Lattice.from_parameters`."""
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
            f"{len(species)} species but coordinates of shape {list(frac_coords.shape)}; "
            f"expected [{len(species)}, 3]"
        )
    is_near = np.abs(frac_coords) <= MAX_FRAC_COORD
    if not is_near.all():
        _refuse_coordinates(int(np.argmin(is_near.all(axis=1))), species, frac_coords)
    numbers = [_atomic_number(one, site) for site, one in enumerate(species, 1)]
    return Crystal(lattice, np.array(numbers, dtype=np.uint8), frac_coords)


def _atomic_number(species: str, site: int) -> int:
    charged = (
        isinstance(species, str) and not species.isalpha() and _CHARGED_SPECIES.fullmatch(species)
    )
    try:
        number = atomic_number(charged[1] if charged else species)
    except StructureError as error:
        raise StructureError(f"site {site}: {one_line(error)}") from None
    if number > MAX_ATOMIC_NUMBER:
        raise StructureError(
            f"site {site}: {species} has atomic number {number}; "
            f"elements up to {MAX_ATOMIC_NUMBER} (Fm) are supported"
        )
    return number


def _refuse_coordinates(
    position: int, species: Sequence[str], frac_coords: NDArray[np.float64]
) -> NoReturn:
    found = frac_coords[position]
    reason = "are a million cells away" if np.isfinite(found).all() else "are not finite"
    name = one_line(species[position])
    raise StructureError(f"site {position + 1} ({name}): coordinates {found.tolist()} {reason}")


def _refuse_disorder(site: int, occupancies: dict[str, float]) -> NoReturn:
    found = ", ".join(f"{species} {occupancy:g}" for species, occupancy in occupancies.items())
    raise StructureError(
        f"site {site} is disordered ({one_line(found or 'no species')}); "
        "expected one species with occupancy 1: give an ordered structure"
    )
