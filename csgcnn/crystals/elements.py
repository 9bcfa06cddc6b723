"""Tables of the elements: one row per atomic number, read once from the files in `tables/`."""

import csv
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csgcnn.errors import StructureError

MAX_ATOMIC_NUMBER = 100

_PERIODIC_TABLE = """
H He
Li Be B C N O F Ne
Na Mg Al Si P S Cl Ar
K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS: tuple[str, ...] = ("", *_PERIODIC_TABLE.split())

_HYDROGEN_ISOTOPES = {"D": 1, "T": 1}
_ATOMIC_NUMBERS = {symbol: z for z, symbol in enumerate(SYMBOLS) if z} | _HYDROGEN_ISOTOPES

FloatTable = NDArray[np.float32]


def atomic_number(symbol: str) -> int:
    """Return the atomic number of an element symbol; D and T are hydrogen.

    Raises:
        StructureError: No element has this symbol.
    """
    try:
        return _ATOMIC_NUMBERS[symbol]
    except (KeyError, TypeError):
        message = f"unknown element {symbol!r}; expected a symbol such as 'Fe'"
        raise StructureError(message) from None


@cache
def atom_init() -> FloatTable:
    """Return the 92 binary atom features of the original CGCNN.

    Source: `atom_init.json` of Xie & Grossman, Phys. Rev. Lett. 120, 145301 (2018), MIT license.

    Returns:
        [101, 92], indexed by atomic number; row 0 is zero.
    """
    rows = _read_table("atom_init.csv")[1:]
    return _with_row_zero([[int(bit) for bit in features] for _, features in rows])


@cache
def onehot() -> FloatTable:
    """Return one column per element.

    Returns:
        [101, 100], indexed by atomic number and atomic number - 1; row 0 is zero.
    """
    return _with_row_zero(np.eye(MAX_ATOMIC_NUMBER))


@cache
def bits() -> FloatTable:
    """Return the binary code of the atomic number, least significant bit first.

    Returns:
        [101, 7], indexed by atomic number; row 0 is zero.
    """
    z = np.arange(1, MAX_ATOMIC_NUMBER + 1)
    return _with_row_zero(z[:, None] >> np.arange(MAX_ATOMIC_NUMBER.bit_length()) & 1)


@cache
def elemental() -> FloatTable:
    """Return six standardized elemental properties, with flags for unknown values.

    The properties are atomic number, electronegativity, atomic radius, ionization energy, electron
    affinity and number of valence electrons. Each has mean 0 and standard deviation 1 over the
    elements for which it is known. An unknown value is 0, the mean, with a 1 in an extra column.

    Valence electrons are those outside the noble-gas core, without the filled d shell of the p
    block and the filled f shell of Lu, Lr and beyond: the group number in the s and d blocks, the
    group number - 10 in the p block, 2 for He, 3 to 16 for La-Yb and Ac-No.

    Source: `tables/elemental.csv` (units in its header), from pymatgen's periodic table.

    Returns:
        [101, 8], indexed by atomic number; row 0 is zero. Columns 6 and 7 flag electronegativity
        and radius.
    """
    cells = [row[1:] for row in _read_table("elemental.csv")[1:]]
    values = np.array([[float(cell or "nan") for cell in row] for row in cells])
    unknown = np.isnan(values)
    standardized = (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)
    flags = unknown[:, unknown.any(axis=0)]
    return _with_row_zero(np.hstack([np.where(unknown, 0.0, standardized), flags]))


@cache
def properties() -> dict[str, FloatTable]:
    """Return the six properties of `elemental` in their units; unknown values are the mean.

    Returns:
        [101] for each name with unit, indexed by atomic number; row 0 is zero.
    """
    header, *rows = _read_table("elemental.csv")
    values = np.array([[float(cell or "nan") for cell in row[1:]] for row in rows])
    filled = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    return {
        name: _with_row_zero(column[:, None]).ravel()
        for name, column in zip(header[1:], filled.T, strict=True)
    }


def radii() -> FloatTable:
    """Return atomic radii in Å; unknown ones, mostly of noble gases, are the mean.

    Returns:
        [101], indexed by atomic number; row 0 is zero.
    """
    return properties()["atomic_radius [Å]"]


@cache
def masses() -> FloatTable:
    """Return standard atomic masses in u.

    Source: `tables/atomic_mass.csv`, from pymatgen's periodic table.

    Returns:
        [101], indexed by atomic number; row 0 is zero.
    """
    rows = _read_table("atomic_mass.csv")[1:]
    return _with_row_zero([[float(mass)] for _, mass in rows]).ravel()


@cache
def element_colors() -> tuple[str, ...]:
    """Return the color of each element, as Jmol draws it, as #rrggbb by atomic number."""
    from ase.data.colors import jmol_colors

    levels = (255 * jmol_colors).round().astype(int).tolist()
    return tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in levels)


def _read_table(name: str) -> list[list[str]]:
    text = files("csgcnn.crystals").joinpath("tables", name).read_text(encoding="utf-8")
    return list(csv.reader(text.splitlines()))


def _with_row_zero(rows: ArrayLike) -> FloatTable:
    table = np.pad(np.asarray(rows, dtype=np.float32), ((1, 0), (0, 0)))
    # All callers share the cached table.
    table.flags.writeable = False
    return table
