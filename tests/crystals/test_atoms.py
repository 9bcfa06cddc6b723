"""Atoms of ASE, structures of OPTIMADE and entries of pymatgen as sources of crystals."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.spacegroup import crystal as symmetric_crystal
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from structure_text import CIF, CSCL, POSCAR

from csgcnn.crystals.crystal import Unusable
from csgcnn.crystals.structures import StructureText, to_crystal
from csgcnn.errors import StructureError

EDGE = CSCL["lattice"]
OPTIMADE: dict[str, Any] = {
    "lattice_vectors": EDGE,
    "cartesian_site_positions": [[0, 0, 0], [2, 2, 2]],
    "species_at_sites": ["Cs1", "Cl"],
    "species": [
        {"name": "Cs1", "chemical_symbols": ["Cs"], "concentration": [1.0]},
        {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1.0]},
    ],
    "dimension_types": [1, 1, 1],
}
ROW = {"numbers": [55, 17], "positions": [[0] * 3, [2] * 3], "cell": EDGE, "pbc": [1, 1, 1]}


def atoms(symbols: str = "CsCl", **others: Any) -> Atoms:
    settings: dict[str, Any] = {"cell": [4, 4, 4], "pbc": True, **others}
    return Atoms(symbols, positions=[[0, 0, 0], [2, 2, 2]], **settings)


def _cubic(species: list[Any], **pbc: Any) -> Structure:
    return Structure(Lattice.cubic(4, **pbc), species, CSCL["frac_coords"])


@pytest.mark.parametrize(
    "source",
    [
        atoms(),
        OPTIMADE,
        {"id": "x", "type": "structures", "attributes": OPTIMADE},
        {key: value for key, value in OPTIMADE.items() if key != "species"}
        | {"species_at_sites": ["Cs", "Cl"]},
        ComputedStructureEntry(_cubic(["Cs", "Cl"]), -3.0).as_dict(),
        {"data": [{"id": "x", "attributes": OPTIMADE}]},
        {**OPTIMADE, "chemical_formula_reduced": "ClCs", "structure_features": []},
        {"numbers": [55, 17], "positions": [[0, 0, 0], [2, 2, 2]], "cell": EDGE, "pbc": [1, 1, 1]},
        {"1": {**ROW, "unique_id": "f"}, "ids": [1], "nextid": 2},
        _cubic(["Cs", {"Cl-": 0.25, "Cl2+": 0.7499}]),
        _cubic(["Cs", {"Cl-": 0.25, "Cl2+": 0.75}]).as_dict(),
        StructureText(POSCAR),
        StructureText(CIF),
    ],
    ids=lambda source: type(source).__name__,
)
def test_sources_of_the_same_crystal(source: Any) -> None:
    crystal = to_crystal(source)
    assert crystal.atomic_number.tolist() == [55, 17]
    np.testing.assert_allclose(crystal.lattice, EDGE, atol=1e-12)
    np.testing.assert_allclose(crystal.frac_coords, CSCL["frac_coords"], atol=1e-12)


def test_isotopes_on_one_site_are_hydrogen() -> None:
    assert to_crystal(_cubic(["Li", {"H": 0.5, "D": 0.5}])).atomic_number.tolist() == [3, 1]


@pytest.mark.parametrize(
    "source",
    [
        atoms(pbc=[True, True, False]),
        {**OPTIMADE, "dimension_types": [1, 1, 0], "nperiodic_dimensions": 2},
        _cubic(["Cs", "Cl"], pbc=(True, True, False)),
        _cubic(["Cs", "Cl"], pbc=(True, True, False)).as_dict(),
        {**CSCL, "pbc": [True, True, False]},
    ],
    ids=lambda source: type(source).__name__,
)
def test_structures_that_are_not_periodic_are_refused(source: Any) -> None:
    with pytest.raises(StructureError, match=r"not periodic along c .* 10 Å of vacuum"):
        to_crystal(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (atoms(cell=None, pbc=False), "no cell; put it into a cell with 10 Å of vacuum"),
        (atoms("CsX"), r"site 2 \(X\) is a ghost or dummy atom"),
        (atoms("CsCl", info={"occupancy": {"0": {"Cs": 0.5}}}), r"kind 0 is disordered \(Cs 0.5\)"),
        (
            {"numbers": [55, 0], "positions": [[0] * 3] * 2, "cell": EDGE, "pbc": [1, 1, 1]},
            r"site 2 \(X\) is a ghost",
        ),
        (
            {"numbers": [55, 999], "positions": [[0] * 3] * 2, "cell": EDGE, "pbc": [1, 1, 1]},
            "site 2 has the atomic number 999",
        ),
        (
            {**OPTIMADE, "species_at_sites": ["Cs1", "Cs1"]}
            | {
                "species": [
                    {
                        "name": "Cs1",
                        "chemical_symbols": ["Cs", "vacancy"],
                        "concentration": [0.9, 0.1],
                    }
                ]
            },
            r"site 1 is disordered \(Cs 0.9, vacancy 0.1\)",
        ),
        (
            {**OPTIMADE, "species_at_sites": ["Cl", "Cl"]}
            | {
                "species": [
                    {
                        "name": "Cl",
                        "chemical_symbols": ["Cl"],
                        "concentration": [1],
                        "attached": ["H"],
                        "nattached": [1],
                    }
                ]
            },
            r"site 1 \(Cl\) has attached atoms without coordinates \(H\)",
        ),
        (
            {**OPTIMADE, "structure_features": ["implicit_atoms"]},
            "structure_features holds implicit_atoms: not all atoms",
        ),
        ({**OPTIMADE, "structure_features": ["assemblies", "disorder"]}, "holds assemblies"),
        ({**OPTIMADE, "chemical_formula_reduced": "Cl2Cs"}, "declares Cl2Cs, but its atoms are Cl"),
        ({**OPTIMADE, "cartesian_site_positions": None}, "cartesian_site_positions is null"),
        ({"data": [OPTIMADE, OPTIMADE]}, "the structure has no 'lattice'; it has data"),
        ({**CSCL, "pbc": False}, "not periodic along a and b and c"),
        (_cubic(["Cs", {"Cl-": 0.25, "Cl2+": 0.7}]), "site 2 is disordered"),
        (Unusable("for this reason"), "for this reason"),
    ],
)
def test_what_is_no_ordered_crystal_is_refused_by_name(source: Any, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        to_crystal(source)


def test_partial_occupancies_of_ase_are_refused() -> None:
    mixed = symmetric_crystal(
        ["Na"], [(0, 0, 0)], spacegroup=221, cellpar=[4] * 3 + [90] * 3, occupancies=[0.5]
    )
    with pytest.raises(StructureError, match=r"is disordered \(Na 0.5\)"):
        to_crystal(mixed)
