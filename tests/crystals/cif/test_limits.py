"""CIFs that would take minutes to read are refused; similar harmless ones are read."""

import itertools

import pytest
from structure_text import CELL, CIF, Write, cif_with, magnetic_cif

from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError

# What is assumed or corrected is warned of.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LAST_SITE = "0.5 0.5 0.5"


def with_operations(*operations: str) -> str:
    lines = "".join(f"'{operation}'\n" for operation in operations)
    return cif_with(f"loop_\n_symmetry_equiv_pos_as_xyz\n{lines}")


def magnetic(end: str = "", item: str = "") -> str:
    """A CIF with a magnetic space group, which pymatgen reads."""
    return magnetic_cif("a,b,c;0,0,0").replace("loop_", f"{item}\nloop_", 1) + end


def translations(n: int) -> list[str]:
    """Operations of a supercell: n of 13,824 translations."""
    grid = itertools.product(range(24), repeat=3)
    return [f"x+{a}/24,y+{b}/24,z+{c}/24" for a, b, c in itertools.islice(grid, n)]


def with_centerings(n: int) -> str:
    symop = "loop_\n_space_group_symop_magn_"
    return cif_with(f"{symop}operation.xyz\nx,y,z,+1\n{symop}centering.xyz\n" + "x,y,z,+1\n" * n)


def with_rows(n: int, space_group: str) -> str:
    rows = "".join(f"Cs{i} Cs 0 0 {i / n / 2}\n" for i in range(1, n))
    return cif_with(f"_symmetry_space_group_name_H-M '{space_group}'", rows)


def after_blocks_without_coordinates(n: int) -> str:
    return "".join(f"data_{i}\nloop_\n_atom_site_label\nCs\n" for i in range(n)) + CIF


def with_formula(text: str) -> str:
    return cif_with(f"_chemical_formula_sum '{text}'")


# Refused text, similar text that is read, and the reason.
CASES = {
    "quotes": (
        magnetic(end="# " + "'" * 12_000),
        magnetic(end="# " + "'" * 2000),
        "more quotes than a CIF can",
    ),
    "shared sites": (
        magnetic(end="# " + " + " * 6000),
        magnetic(end="# " + " + " * 600),
        "shared by several elements",
    ),
    "long operation": (
        with_operations("x, y, z" + "+0" * 100),
        with_operations("x, y, z" + "+0" * 9),
        "as_xyz: 'x, y, z.*is no symmetry operation",
    ),
    "long number": (
        with_operations("x, y, z+0.1" + "0" * 99 + "1"),
        with_operations("x, y, z+0.000"),
        "as_xyz: .*translation 0.1000",
    ),
    "many operations": (
        with_operations(*translations(2000)),
        with_operations(*["x, y, z"] * 2000),
        "2000 symmetry operations; up to 1000",
    ),
    "many centerings": (
        with_centerings(4000),
        with_centerings(4),
        "4000 symmetry operations make up to 8000 positions",
    ),
    "many positions": (
        with_rows(6000, "F m -3 m"),
        with_rows(100, "P 1"),
        "6001 rows of atoms and 192 symmetry",
    ),
    "long line without quotes": (
        with_operations("x,y,z").replace("'x,y,z'", "x, y, z\n" + "x, " * 5000),
        with_operations("x,y,z").replace("'x,y,z'", "x, y, z"),
        "not a readable cif file|is no symmetry operation",
    ),
    "power": (
        magnetic_cif("9**9**9**9,b,c;0,0,0"),
        magnetic_cif("2*a+b,b,c;0,0,0"),
        "transform_BNS_Pp_abc holds",
    ),
    "spaced power": (
        magnetic_cif("9* *9* *9,b,c;0,0,0"),
        magnetic_cif("b, c, a; 0, 1/4, 0"),
        "BNS_Pp_abc holds",
    ),
    "code": (
        magnetic_cif('__import__("os").getcwd(),b,c;0,0,0'),
        magnetic_cif("a,b,c;0,0,0"),
        "BNS_Pp_abc holds",
    ),
    "long setting": (
        magnetic_cif("a" + "+0" * 99 + ",b,c;0,0,0"),
        magnetic_cif("a+0,b,c;0,0,0"),
        "BNS_Pp_abc holds",
    ),
    "far coordinate": (
        CIF.replace(LAST_SITE, "0.5 0.5 -2e6(3)"),
        CIF.replace(LAST_SITE, "0.5 0.5 -20.5(3)"),
        "atom Cl1: _atom_site_fract_z is -2e.06",
    ),
    "long formula": (
        with_formula("Cs1 Cl" + "1" * 30_000),
        with_formula("Cs1 Cl1"),
        "formula_sum holds 30006 characters; is it a formula",
    ),
    "blocks without coordinates": (
        after_blocks_without_coordinates(8).partition("data_CsCl")[0],
        after_blocks_without_coordinates(8),
        "there are no atoms in it",
    ),
    "no atoms": (
        f"data_CsCl\n{CELL}",
        "data_empty\n" + CIF,
        "there are no atoms in it",
    ),
}


@pytest.mark.parametrize(("refused", "accepted", "reason"), CASES.values(), ids=CASES)
def test_cif_within_bounds_is_read_and_beyond_them_refused(
    write: Write, refused: str, accepted: str, reason: str
) -> None:
    crystal = to_crystal(write("accepted.cif", accepted))
    assert set(crystal.atomic_number.tolist()) == {55, 17}
    path = write("refused.cif", refused)
    with pytest.raises(StructureError, match=reason) as caught:
        to_crystal(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
