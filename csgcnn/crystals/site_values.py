"""Crystals with values of their sites, as `Atoms` of ASE and as extended xyz files."""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csgcnn.crystals.crystal import Crystal
from csgcnn.io import write_text

if TYPE_CHECKING:
    from ase import Atoms


def atoms_with_values(
    crystal: Crystal, values: Mapping[str, Any] = {}, info: Mapping[str, Any] = {}
) -> "Atoms":
    """Return a crystal with values of its sites, in the order of its sites.

    Args:
        crystal: The crystal.
        values: Values [n_sites] by name; characters that no xyz file can hold become _.
        info: Further values of the whole crystal, by name.
    """
    from ase import Atoms

    atoms = Atoms(
        numbers=crystal.atomic_number.astype(int),
        scaled_positions=crystal.frac_coords,
        cell=crystal.lattice,
        pbc=True,
    )
    for name, column in values.items():
        atoms.set_array(_xyz_name(name), column)
    atoms.info.update({_xyz_name(name): value for name, value in info.items()})
    return atoms


def write_extxyz(path: Path, frames: Sequence["Atoms"]) -> None:
    """Write an extended xyz file with a frame for each crystal, whole or not at all.

    Args:
        path: The file.
        frames: The crystals.

    Raises:
        UserError: The file cannot be written.
    """
    from ase.io import write

    text = StringIO()
    write(text, list(frames), format="extxyz")
    write_text(path, text.getvalue())


def _xyz_name(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name, flags=re.ASCII).strip("_")
