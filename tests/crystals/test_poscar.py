from pathlib import Path

import numpy as np
import pytest
from structure_text import POSCAR, Write

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.structure_warnings import StructureWarning
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError

HALF = "0.5 0.5 0.5"
VASP_4 = POSCAR.replace("Cs Cl\n", "").replace("CsCl", "my crystal")


def edges(crystal: Crystal) -> list[float]:
    return np.linalg.norm(crystal.lattice, axis=1).tolist()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Cs Cl\n1 1", "Cs Cl ! my elements\n1 1 # counts"),
        ("1.0\n", " 1.0 ! scale\n"),
        ("Cs Cl\n", "Cs_sv/1a2b3c Cl/4d5e6f\n"),
        ("Direct", "direct coordinates"),
        ("Direct", "Selective dynamics\nDirect"),
        (f"{HALF}\n", f"{HALF} T T F Cl ! last\n"),
        (f"{HALF}\n", f"{HALF}\n\n0 0 0\n0.1 0.1 0.1\n\npredictor-corrector\n1\n"),
        (f"{HALF}\n", f"{HALF}\nCartesian\n0 0 0\n0.1 0.1 0.1\n"),
        (HALF, ".5d0 5.D-1 +0.5"),
        ("Cs Cl\n1 1", "Cs O Cl\n1 0 1"),
        ("CsCl", ""),
    ],
)
def test_forms_of_a_poscar(write: Write, old: str, new: str) -> None:
    crystal = to_crystal(write("POSCAR", POSCAR.replace(old, new, 1)))
    assert crystal.atomic_number.tolist() == [55, 17]
    np.testing.assert_allclose(crystal.lattice, np.eye(3) * 4)
    np.testing.assert_allclose(crystal.frac_coords, [[0] * 3, [0.5] * 3])


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("2", [8, 8, 8]), ("1 1 2.5", [4, 4, 10]), ("-125", [5, 5, 5])],
)
@pytest.mark.parametrize("mode", ["Direct", "Cartesian", "kartesisch"])
def test_scale_factors_and_volumes(
    write: Write, scale: str, expected: list[float], mode: str
) -> None:
    text = POSCAR.replace("1.0", scale).replace("Direct", mode)
    if mode != "Direct":
        text = text.replace(HALF, "2 2 2")
    if scale == "-125" and mode != "Direct":
        text = text.replace("4", "1").replace("2 2 2", HALF)
    crystal = to_crystal(write("POSCAR", text))
    np.testing.assert_allclose(edges(crystal), expected)
    np.testing.assert_allclose(crystal.frac_coords[1], [0.5] * 3)


def test_three_factors_scale_x_y_and_z_of_every_vector(write: Write) -> None:
    text = POSCAR.replace("1.0", "1 2 3").replace("0 4 0", "1 4 1")
    crystal = to_crystal(write("POSCAR", text))
    np.testing.assert_allclose(crystal.lattice[1], [1, 8, 3])


def test_missing_symbols_are_those_of_the_potcar_beside(write: Write) -> None:
    potcar = write("POTCAR", "  PAW_PBE Cs_sv\n   VRHFIN =Cs: 5s\n end\n   VRHFIN =Cl: s2p5\n")
    assert to_crystal(write("POSCAR", VASP_4)).atomic_number.tolist() == [55, 17]
    potcar.write_text("   VRHFIN =Cs: 5s\n")
    with pytest.raises(StructureError, match=r"POTCAR beside it has 1 \(Cs\), but there are 2"):
        to_crystal(Path(potcar.parent, "POSCAR"))


def test_missing_symbols_are_those_behind_the_coordinates(write: Write) -> None:
    text = VASP_4.replace("0 0 0\n0.5", "0 0 0 Cs\n0.5").replace(HALF, f"{HALF} Cl")
    assert to_crystal(write("POSCAR", text)).atomic_number.tolist() == [55, 17]


@pytest.mark.parametrize("title", ["Cs Cl", "CsCl", "Cs1 Cl1"])
def test_missing_symbols_from_a_title_are_warned_of(write: Write, title: str) -> None:
    path = write("POSCAR", VASP_4.replace("my crystal", title))
    with pytest.warns(
        StructureWarning, match="no element symbols; Cs Cl are those of its"
    ) as found:
        crystal = to_crystal(path)
    assert crystal.atomic_number.tolist() == [55, 17]
    assert found[0].message.code == "elements_from_title"  # type: ignore[union-attr]


@pytest.mark.parametrize("title", ["", "my crystal", "Cs", "Cs Cl O", "Cs2 Cl", "CsCl2", "Xx Cl"])
def test_a_title_that_does_not_fit_names_no_elements(write: Write, title: str) -> None:
    path = write("POSCAR", VASP_4.replace("my crystal", title))
    with pytest.raises(StructureError, match=r"Elements in POSCAR cannot .* 2 element symbols"):
        to_crystal(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1 1\n", "1 2\n", "declares 3 atoms but has 2 coordinate lines: line 11 is missing"),
        (f"{HALF}\n", f"\n{HALF}\n", "declares 2 atoms but has 1 coordinate lines: line 10"),
        (f"{HALF}\n", f"{HALF}\n0 0 0.1\n", "declares 2 atoms but has more coordinate lines"),
        ("Cs Cl\n", "Cs\n", r"1 elements \(Cs\) but 2 numbers of atoms in line 7"),
        (HALF, "0,5 0,5 0,5", r"line 10 is '0,5 .* coordinates of atom 2 of 2 \(3 numbers\)"),
        (HALF, "0.5 0.5", "line 10 is '0.5 0.5', expected coordinates of atom 2 of 2"),
        ("Direct\n", "", "line 8 is '0 0 0', expected Direct or Cartesian"),
        ("0 4 0", "0 4", r"line 4 is '0 4', expected a lattice vector"),
        ("1.0", "1 1", "line 2 is '1 1', expected one or three scale factors"),
        ("1.0", " ", "line 2 is blank, expected one or three scale factors"),
        ("1.0", "0", "the scale in line 2 is 0.0; expected a positive number"),
        ("1.0", "1 -1 1", "the scale in line 2 is 1.0 -1.0 1.0"),
        ("1.0", "-1e300", "the scale in line 2"),
        ("1 1\n", "1 x\n", "line 7 is '1 x', expected numbers of atoms"),
        ("1 1\n", "1 -1\n", "line 7 is '1 -1', expected numbers of atoms"),
        ("Cs Cl", "Cs Vac", "site 2: unknown element 'Vac'"),
        ("Cs Cl", "Cs H.5", "site 2: unknown element 'H.5'"),
        (POSCAR[20:], "", "line 5 is missing, expected a lattice vector"),
    ],
)
def test_what_is_wrong_in_a_poscar_is_named(write: Write, old: str, new: str, message: str) -> None:
    path = write("POSCAR", POSCAR.replace(old, new, 1))
    with pytest.raises(StructureError, match=message) as caught:
        to_crystal(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "malformed" not in str(caught.value)
