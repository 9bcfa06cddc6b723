"""One crystal: lattice, elements and coordinates, checked."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS, atomic_number
from csgcnn.crystals.limits import MAX_FRAC_COORD, MAX_SITES
from csgcnn.errors import StructureError, one_line

# "Fe3+", "O2-", "Fe2.5+,spin=5"
_CHARGED_SPECIES = re.compile(r"([A-Z][a-z]?)\d*(\.\d*)?[+-](,.*)?")
# volume / (a b c) below which the lattice is singular.
_MIN_VOLUME_RATIO = 1e-6
_ISOTOPES = {"D": "H", "T": "H"}
_NUMBERS = {one: z for z, one in enumerate(SYMBOLS[: MAX_ATOMIC_NUMBER + 1]) if z}
# Occupancies from 0.999 to 1.001 are 1; the difference 1 - 0.999 is a little above 0.001.
OCCUPANCY_TOLERANCE = 1e-3 + 1e-9
# Å
_MAX_VECTOR_LENGTH = 1e4


class Crystal(NamedTuple):
    """A periodic, ordered crystal."""

    lattice: NDArray[np.float64]  # [3, 3], rows are the lattice vectors, Å
    atomic_number: NDArray[np.uint8]  # [n_atoms]
    frac_coords: NDArray[np.float64]  # [n_atoms, 3]
    labels: tuple[str, ...] = ()  # names of the sites in the file, if it has some
    declared_formula: str = ""  # formula that the file gives

    def site_name(self, site: int) -> str:
        """Return the name of a site for messages: its label, or its number from 1."""
        if self.labels:
            return self.labels[site]
        return f"{site + 1} ({SYMBOLS[self.atomic_number[site]]})"

    def pair_name(self, first: int, second: int) -> str:
        """Return the names of two sites for messages.

        Args:
            first: A site.
            second: Another one, or the same, whose periodic image is meant.
        """
        one, other = (self.site_name(site) for site in sorted((first, second)))
        if first == second:
            return f"site {one} and its periodic image"
        return f"two copies of site {one}" if one == other else f"sites {one} and {other}"


class Unusable(NamedTuple):
    """A structure that is refused when it is read, such as that of a record with a repeated id."""

    reason: str


def make_crystal(
    lattice: NDArray[np.float64], species: Sequence[str], frac_coords: NDArray[np.float64]
) -> Crystal:
    """Return a crystal after checking its parts.

    Args:
        lattice: Lattice vectors [3, 3] in Å, from `checked_lattice`.
        species: Element of each site, which may have a charge ("Fe3+").
        frac_coords: Fractional coordinates [n_atoms, 3].

    Raises:
        StructureError: There are no sites or too many, an element is unknown, or coordinates are
            not finite. The message counts sites from 1.
    """
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
    # The sum of squares is faster than a comparison of each coordinate, and NaN if one is.
    if not np.vdot(frac_coords, frac_coords) <= MAX_FRAC_COORD**2:
        is_near = np.abs(frac_coords) <= MAX_FRAC_COORD
        if not is_near.all():
            _refuse_coordinates(int(np.argmin(is_near.all(axis=1))), species, frac_coords)
    numbers = [_atomic_number(one, site) for site, one in enumerate(species, 1)]
    return Crystal(lattice, np.array(numbers, dtype=np.uint8), frac_coords)


def cell_volume(lattice: NDArray[np.float64]) -> float:
    """Return the volume of a cell in Å³, faster than `np.linalg.det`; negative if left-handed."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice.tolist()
    return ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)


def checked_lattice(values: Any) -> NDArray[np.float64]:
    """Return lattice vectors [3, 3] in Å as an array.

    Raises:
        StructureError: They are not 3x3 finite numbers, span no volume or are too long.
    """
    try:
        lattice = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise StructureError(f"the lattice is not 3x3 numbers ({one_line(error)})") from None
    if lattice.shape != (3, 3):
        raise StructureError(f"the lattice has shape {list(lattice.shape)}, expected [3, 3]")
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice.tolist()
    volume = cell_volume(lattice)
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


def lattice_from_parameters(parameters: Any) -> NDArray[np.float64]:
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
    return checked_lattice(
        [
            [a * math.sin(beta), 0.0, a * math.cos(beta)],
            [-b_sin * math.cos(gamma_star), b_sin * math.sin(gamma_star), b * math.cos(alpha)],
            [0.0, 0.0, c],
        ]
    )


def occupant(site: int | str, occupancies: Sequence[tuple[str, float]]) -> str:
    """Return the only element of a site, which may occur in several charge states.

    Args:
        site: Number or label of the site.
        occupancies: Species such as "Fe3+" with their occupancies.

    Raises:
        StructureError: Several elements share the site, or it is partly occupied.
    """
    if len(occupancies) == 1 and occupancies[0][1] == 1:
        return occupancies[0][0]
    elements = {_ISOTOPES.get(name, name) for name in map(_element, dict(occupancies))}
    total = sum(occupancy for _, occupancy in occupancies)
    if len(elements) != 1 or not abs(total - 1) <= OCCUPANCY_TOLERANCE:
        refuse_disorder(site, dict(occupancies))
    return elements.pop()


def refuse_disorder(site: int | str, occupancies: dict[str, float]) -> NoReturn:
    """Refuse a site that several elements share, or that is partly occupied.

    Args:
        site: Number or label of the site.
        occupancies: Occupancy of each species.

    Raises:
        StructureError: Always.
    """
    found = ", ".join(f"{species} {occupancy:g}" for species, occupancy in occupancies.items())
    raise StructureError(
        f"site {site} is disordered ({one_line(found or 'no species')}); "
        "expected one species with occupancy 1: give an ordered structure"
    )


def refuse_not_periodic(pbc: Any) -> None:
    """Refuse a structure that is not periodic along all lattice vectors.

    Args:
        pbc: Whether the structure is periodic along a, b and c, or along all of them.

    Raises:
        StructureError: It is not periodic along one of them.
    """
    if isinstance(pbc, tuple) and pbc == (True, True, True):
        return
    each = 3 * (np.ravel(pbc).tolist() or [True])
    if open_axes := [axis for axis, periodic in zip("abc", each, strict=False) if not periodic]:
        raise StructureError(
            f"the structure is not periodic along {' and '.join(open_axes)} (pbc is False there); "
            "put it into a cell with 10 Å of vacuum in this direction and set pbc to True"
        )


def _atomic_number(species: str, site: int) -> int:
    if isinstance(species, str) and species in _NUMBERS:
        return _NUMBERS[species]
    try:
        number = atomic_number(_element(species))
    except StructureError as error:
        raise StructureError(f"site {site}: {one_line(error)}") from None
    if number > MAX_ATOMIC_NUMBER:
        raise StructureError(
            f"site {site}: {species} has atomic number {number}; "
            f"elements up to {MAX_ATOMIC_NUMBER} (Fm) are supported"
        )
    return number


def _element(species: str) -> str:
    """Return a species without its charge."""
    charged = (
        isinstance(species, str) and not species.isalpha() and _CHARGED_SPECIES.fullmatch(species)
    )
    return charged[1] if charged else species


def _refuse_coordinates(
    position: int, species: Sequence[str], frac_coords: NDArray[np.float64]
) -> NoReturn:
    found = frac_coords[position]
    reason = "are a million cells away" if np.isfinite(found).all() else "are not finite"
    name = one_line(species[position])
    raise StructureError(f"site {position + 1} ({name}): coordinates {found.tolist()} {reason}")
