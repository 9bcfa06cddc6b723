import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from structure_text import CSCL, CSSR, POSCAR, XSF, XSF_GRID, Write

from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError

# pymatgen warns of what it corrects.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LAST_SITE = "0.5 0.5 0.5"
CIF = """data_NaCl
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cs1 Cs 0 0 0 1
Cl1 Cl 0.5 0.5 0.5 1
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("CsCl.cif", CIF),
        ("CsCl.CIF", CIF),
        ("Ca(OH)2 =[1].cif", CIF),
        ("CsCl.cif.gz", gzip.compress(CIF.encode(), mtime=0)),
        ("packed.cif", gzip.compress(CIF.encode(), mtime=0)),
        ("latin1.cif", ("# Ångström\n" + CIF).encode("latin-1")),
        ("two.cif", CIF + CIF.replace("data_NaCl", "data_second").replace("Cs", "K")),
        ("POSCAR", POSCAR),
        ("POSCAR_CsCl", POSCAR),
        ("CONTCAR.gz", gzip.compress(POSCAR.encode(), mtime=0)),
        ("CsCl.vasp", POSCAR),
        ("CsCl.poscar", POSCAR),
        ("CsCl.xsf", XSF),
        ("CsCl.json", json.dumps(CSCL)),
    ],
)
def test_structure_files_are_read(write: Write, name: str, content: str | bytes) -> None:
    crystal = to_crystal(write(name, content))
    assert crystal.atomic_number.tolist() == [55, 17]
    np.testing.assert_allclose(crystal.lattice, np.eye(3) * 4, atol=1e-12)
    np.testing.assert_allclose(crystal.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.cif", "", "the file is empty"),
        ("a.cif", " \n", "the file is empty"),
        ("a.cif", b"\x89PNG\0\0\0\0", "binary data"),
        ("a.cif", "<!DOCTYPE html><html>404</html>", "HTML page"),
        ("a.cif", "hello", "not a readable"),
        (
            "a.cif",
            CIF.replace("_cell_length_a 4.0\n", ""),
            "there is no _cell_length_a in it",
        ),
        ("a.cif", CIF.replace("0.5 0.5 0.5 1", "x y z 1"), "atom Cl1: _atom_site_fract_x is 'x'"),
        ("a.cif", CIF[: CIF.index("Cs1")], "has no atoms"),
        (
            "a.cif",
            CIF.replace("0.5 0.5 0.5 1", "0.5 0.5 0.5 0.8"),
            r"site Cl1 is disordered \(Cl 0.8\)",
        ),
        ("a.cif", CIF + "K1 K 0 0 0 0.5\n", "site K1 is disordered"),
        (
            "a.cif",
            CIF.replace("Cl1 Cl", "Qq1 Qq"),
            "atom Qq1: its type symbol 'Qq' does not name an element",
        ),
        ("a.cif.gz", gzip.compress(CIF.encode(), mtime=0)[:100], "truncated or damaged"),
        ("POSCAR", POSCAR[:20], "not a readable"),
        (
            "POSCAR",
            POSCAR.replace("Cs Cl\n", "").replace("CsCl", "my crystal"),
            "Elements in POSCAR cannot",
        ),
        ("a.json", "[1, 2]", "list of 2 entries, not one structure"),
        ("a.json", '"text"', "not a structure"),
        ("a.json", '{"foo": 1}', "no 'lattice'; it has foo"),
        ("a.json", '{"lattice": ', "not a readable json file"),
        ("a.txt", "hello", "not a structure file by its name; expected .cif"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "not a structure file by its name"),
        ("vasprun.xml", "<modeling/>", "not a structure file by its name"),
    ],
)
def test_unreadable_files_are_refused_with_name_and_reason(
    write: Write, name: str, content: str | bytes, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(StructureError, match=message) as caught:
        to_crystal(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=r"nowhere\.cif: no such file"):
        to_crystal(tmp_path / "nowhere.cif")
    (tmp_path / "folder.cif").mkdir()
    with pytest.raises(StructureError, match=r"folder\.cif: cannot be read: it is a folder"):
        to_crystal(tmp_path / "folder.cif")


# Name, refused content, similar content that is read, and the reason.
CASES = {
    "far, POSCAR": (
        "POSCAR",
        POSCAR.replace(LAST_SITE, "0.5 0.5 1e7"),
        POSCAR.replace(LAST_SITE, "0 0 1e5"),
        "a million cells",
    ),
    "count, POSCAR": (
        "POSCAR",
        POSCAR.replace("1 1", "1 -999999"),
        POSCAR.replace("1 1", "+1 1 # 999999"),
        "declares",
    ),
    "count, XSF": (
        "a.xsf",
        XSF.replace("2 1", "999999999999 1"),
        "# 999999\n" + XSF,
        r"declares 1e\+12 sites; up to",
    ),
    "count, CSSR": (
        "a.cssr",
        CSSR.replace("2 0", "999999999 0"),
        CSSR,
        r"declares 1e\+09 sites; up to 100000",
    ),
    "grid, XSF": (
        "a.xsf",
        XSF.replace("2 1", "2 1\n9000 9000 90000"),
        XSF_GRID + "END_BLOCK_DATAXSF_GRID_3D\n" + XSF,
        "declares",
    ),
    "open grid, XSF": ("a.xsf", XSF_GRID + XSF, XSF + "\n" + XSF_GRID, "not a readable xsf"),
    "deep json": (
        "a.json",
        "[" * 100_000,
        json.dumps(CSCL | {"more": [[[[[]]]]]}),
        "not a readable json file: .*recurs",
    ),
    "long integer, json": (
        "a.json",
        "9" * 5000,
        json.dumps(CSCL | {"more": 10**4000}),
        "not a readable json file: .*digit",
    ),
    "large integer, json": (
        "a.json",
        json.dumps(CSCL | {"lattice": [[10**400, 0, 0], [0, 4, 0], [0, 0, 4]]}),
        json.dumps(CSCL | {"lattice": [[10**3, 0, 0], [0, 4, 0], [0, 0, 4]]}),
        "the lattice is not 3x3 numbers",
    ),
    "long cell, json": (
        "a.json",
        json.dumps(CSCL | {"lattice": [[20_000, 0, 0], [0, 4, 0], [0, 0, 4]]}),
        json.dumps(CSCL | {"lattice": [[9000, 0, 0], [0, 4, 0], [0, 0, 4]]}),
        r"a lattice vector is 2e\+04 Å long, expected at most 10000 Å",
    ),
    "many sites, json": (
        "a.json",
        json.dumps(CSCL | {"species": ["Cs"] * 100_001, "frac_coords": [[0, 0, 0]] * 100_001}),
        json.dumps(CSCL | {"species": ["Cs", "Cl"] * 500, "frac_coords": [[0, 0, 0]] * 1000}),
        "the structure has 100001 sites; up to 100000 are supported",
    ),
    "control characters": (
        "a.json",
        '"\\u001b[2J\\nup"',
        json.dumps(CSCL | {"\x1b[2J": "\n"}),
        "not a structure",
    ),
}


@pytest.mark.parametrize(("name", "refused", "accepted", "reason"), CASES.values(), ids=CASES)
def test_content_within_bounds_is_read_and_beyond_them_refused(
    write: Write, name: str, refused: str, accepted: str, reason: str
) -> None:
    crystal = to_crystal(write(name, accepted))
    assert set(crystal.atomic_number.tolist()) == {55, 17}
    path = write(name, refused)
    with pytest.raises(StructureError, match=reason) as caught:
        to_crystal(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
