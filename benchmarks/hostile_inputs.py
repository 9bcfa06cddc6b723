"""Whole structures and data sets, which the fuzzer changes."""

import json
from pathlib import Path

import ase.db
import pyarrow
from common import INCLUDED, records, to_structure
from pyarrow import parquet
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from csgcnn.crystals.structures import to_crystal


def small_structures(n: int) -> list[Structure]:
    """Return about `n` structures of the included data sets with at most 12 atoms."""
    chosen = []
    for name in INCLUDED:
        rows = records(name)
        crystals = [to_crystal(record.source) for record in rows[:: len(rows) * 3 // n]]
        chosen += [to_structure(each) for each in crystals if len(each.atomic_number) <= 12]
    return chosen


def extended_xyz(structure: Structure) -> str:
    """Return a structure as two frames of an extended xyz file."""
    lattice = " ".join(map(str, structure.lattice.matrix.ravel()))
    rows = [f"{site.specie} {' '.join(map(str, site.coords))}\n" for site in structure]
    properties = 'Properties=species:S:1:pos:R:3 gap=1.5 pbc="T T T"'
    return f'{len(rows)}\nLattice="{lattice}" {properties}\n{"".join(rows)}' * 2


def binary_tables(structures: list[Structure], folder: Path) -> dict[str, bytes]:
    """Return data sets of structures with a target, by the suffix of their format."""
    with ase.db.connect(folder / "set.db") as database:
        for structure in structures:
            database.write(AseAtomsAdaptor.get_atoms(structure), gap=1.5, data={"x": 1.5})
    rows = [{"structure": json.dumps(structure.as_dict()), "gap": 1.5} for structure in structures]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "set.parquet")
    return {suffix: (folder / f"set{suffix}").read_bytes() for suffix in (".db", ".parquet")}
