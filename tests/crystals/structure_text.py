"""Structure files of CsCl in several formats, as text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

# The fixture `write`: write a file of this name with text, bytes or what JSON can hold.
Write = Callable[..., Path]

_AXES = [("a", "alpha"), ("b", "beta"), ("c", "gamma")]
CELL = "".join(f"_cell_length_{edge} 4\n_cell_angle_{angle} 90\n" for edge, angle in _AXES)
CIF = f"data_CsCl\n{CELL}loop_\n_atom_site_label\n_atom_site_type_symbol\n" + (
    "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nCs1 Cs 0 0 0\nCl1 Cl 0.5 0.5 0.5\n"
)
POSCAR = "CsCl\n1.0\n4 0 0\n0 4 0\n0 0 4\nCs Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
CSCL: dict[str, Any] = {
    "lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
    "species": ["Cs", "Cl"],
    "frac_coords": [[0] * 3, [0.5] * 3],
}
ROW = {"id": "a", "structure": CSCL}
_STRUCTURE = Structure(CSCL["lattice"], CSCL["species"], CSCL["frac_coords"])
XSF, CSSR = _STRUCTURE.to(fmt="xsf"), _STRUCTURE.to(fmt="cssr")
XSF_GRID = (
    "BEGIN_BLOCK_DATAGRID_3D\nx\nBEGIN_DATAGRID_3D_x\n9000 9000 9000\n"
    "0 0 0\n1 0 0\n0 1 0\n0 0 1\n0.5\n"
)


def cif_with(item: str = "", end: str = "") -> str:
    """The CIF with another item before the atoms and another end."""
    return CIF.replace("loop_", item + "\nloop_") + end


def magnetic_cif(setting: str) -> str:
    """The CIF with a magnetic space group in a setting."""
    number = "_space_group_magn.number_BNS 1.1\n"
    return cif_with(f"{number}_space_group_magn.transform_BNS_Pp_abc '{setting}'")
