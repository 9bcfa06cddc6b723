import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError

ROOT = Path(__file__).parents[2]
ROCKSALT = {
    "lattice": [[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]],
    "species": ["Na", "Cl"],
    "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
}


def embedded_structures(name: str, step: int) -> list[dict[str, Any]]:
    with gzip.open(ROOT / "data" / f"{name}.json.gz") as file:
        return [record["crystal_structure"] for record in json.load(file)[::step]]


REAL = [
    structure
    for name, step in [("dielectric", 50), ("elastic", 60), ("formation_energy", 150)]
    for structure in embedded_structures(name, step)
]


def assert_equals_pymatgen(crystal: Crystal, structure: Structure, atol: float = 1e-12) -> None:
    assert crystal.lattice.dtype == crystal.frac_coords.dtype == np.float64
    assert crystal.atomic_number.dtype == np.uint8
    np.testing.assert_allclose(crystal.lattice, structure.lattice.matrix, rtol=0, atol=atol)
    np.testing.assert_allclose(crystal.frac_coords, structure.frac_coords, rtol=0, atol=atol)
    assert crystal.atomic_number.tolist() == list(structure.atomic_numbers)


@pytest.mark.parametrize("compact", REAL)
def test_every_form_of_a_real_record_equals_pymatgen(compact: dict[str, Any]) -> None:
    structure = Structure(Lattice(compact["lattice"]), compact["species"], compact["frac_coords"])
    assert_equals_pymatgen(to_crystal(compact), structure)
    assert_equals_pymatgen(to_crystal(structure), structure)
    assert_equals_pymatgen(to_crystal(json.loads(json.dumps(structure.as_dict()))), structure)

    parameters = dict(compact, lattice_parameters=list(structure.lattice.parameters))
    del parameters["lattice"]
    standard = Structure(
        Lattice.from_parameters(*structure.lattice.parameters),
        compact["species"],
        compact["frac_coords"],
    )
    assert_equals_pymatgen(to_crystal(parameters), standard)

    jarvis = {"lattice_mat": compact["lattice"], "elements": compact["species"], "cartesian": False}
    assert_equals_pymatgen(to_crystal(jarvis | {"coords": compact["frac_coords"]}), structure)
    cartesian = jarvis | {"coords": structure.cart_coords.tolist(), "cartesian": True}
    assert_equals_pymatgen(to_crystal(cartesian), structure, atol=1e-10)


@pytest.mark.parametrize("name", ["perovskites_halide_hoip", "mp_gap_10k"])
def test_shared_records_equal_pymatgen(name: str) -> None:
    path = ROOT.parent / "shared" / "data" / f"{name}.json.gz"
    if not path.exists():
        pytest.skip("shared data not there")
    with gzip.open(path) as file:
        records = json.load(file)
    for record in records[:: len(records) // 20]:
        source = record["crystal_structure"]
        if "@class" in source:
            expected = Structure.from_dict(source)
        else:
            lattice = Lattice.from_parameters(*source["lattice_parameters"])
            expected = Structure(lattice, source["species"], source["frac_coords"])
        assert_equals_pymatgen(to_crystal(source), expected)


def test_dicts_are_read_without_pymatgen() -> None:
    code = (
        f"import sys; from csgcnn.crystals.structures import to_crystal; to_crystal({ROCKSALT!r})"
    )
    subprocess.run(
        [sys.executable, "-c", code + "; assert 'pymatgen' not in sys.modules"], check=True
    )


@pytest.mark.parametrize(
    ("species", "numbers"),
    [
        (["Fe3+", "O2-"], [26, 8]),
        (["Fe2.5+", "O0+"], [26, 8]),
        (["Na+", "Cl-"], [11, 17]),
        (["Fe3+,spin=5", "D"], [26, 1]),
        (["T", "Fm"], [1, 100]),
    ],
)
def test_charges_and_spins_of_species_are_ignored(species: list[str], numbers: list[int]) -> None:
    assert to_crystal(ROCKSALT | {"species": species}).atomic_number.tolist() == numbers


def test_oxidation_states_of_pymatgen_structures_are_left_out() -> None:
    structure = Structure(ROCKSALT["lattice"], ["Na+", "Cl-"], ROCKSALT["frac_coords"])
    assert to_crystal(structure).atomic_number.tolist() == [11, 17]
    assert to_crystal(structure.as_dict()).atomic_number.tolist() == [11, 17]


NAN, INF = float("nan"), float("inf")
PARAMETERS = {key: ROCKSALT[key] for key in ("species", "frac_coords")}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (ROCKSALT | {"species": ["Na", "Qq"]}, "site 2: unknown element 'Qq'"),
        (ROCKSALT | {"species": ["Na", 17]}, "site 2: unknown element 17"),
        (
            ROCKSALT | {"species": ["Md", "Cl"]},
            "site 1: Md has atomic number 101; elements up to 100",
        ),
        (ROCKSALT | {"species": ["Na"]}, r"1 species but coordinates of shape \[2, 3\]"),
        (ROCKSALT | {"species": [], "frac_coords": []}, "no atoms"),
        (
            ROCKSALT | {"frac_coords": [[0, 0, 0], [0.5, NAN, 0]]},
            r"site 2 \(Cl\): coordinates .*nan.* not finite",
        ),
        (ROCKSALT | {"frac_coords": [[0, INF, 0], [0.5, 0, 0]]}, r"site 1 \(Na\): .* not finite"),
        (ROCKSALT | {"frac_coords": [[0, 0, None], [0, 0, 0]]}, r"site 1 \(Na\): .* not finite"),
        (
            ROCKSALT | {"frac_coords": [[0, 0, 0], [0.5, 0.5]]},
            "site 2: frac_coords is .0.5, 0.5., expected 3 numbers",
        ),
        (ROCKSALT | {"frac_coords": [[0, 0], [0.5, 0.5]]}, r"coordinates of shape \[2, 2\]"),
        (
            ROCKSALT | {"frac_coords": [["a", 0, 0], [0, 0, 0]]},
            "frac_coords does not hold numbers only",
        ),
        (
            ROCKSALT | {"lattice": [[1, 0, 0], [0, 1, 0]]},
            r"lattice has shape \[2, 3\], expected \[3, 3\]",
        ),
        (ROCKSALT | {"lattice": [[1, 0, 0], [0, 1, 0], [1, 1, 0]]}, "lattice is singular"),
        (ROCKSALT | {"lattice": [[0, 0, 0]] * 3}, "lattice is singular"),
        (
            ROCKSALT | {"lattice": [[1, 0, 0], [0, NAN, 0], [0, 0, 1]]},
            "lattice holds NaN or infinite",
        ),
        (
            ROCKSALT | {"lattice": [[1, 0, 0], [0, INF, 0], [0, 0, 1]]},
            "lattice holds NaN or infinite",
        ),
        (ROCKSALT | {"lattice": "cubic"}, "lattice is not 3x3 numbers"),
        (ROCKSALT | {"species": None}, "malformed"),
        (PARAMETERS, "no 'lattice'; it has species, frac_coords"),
        (
            PARAMETERS | {"lattice_parameters": [4, 4, 4, 90, 90]},
            "expected a, b, c, alpha, beta, gamma",
        ),
        (PARAMETERS | {"lattice_parameters": [4, 4, 4, 90, 90, 180]}, "angles between 0 and 180"),
        (PARAMETERS | {"lattice_parameters": [4, -4, 4, 90, 90, 90]}, "lengths > 0"),
        (PARAMETERS | {"lattice_parameters": [4, 4, 4, 20, 20, 100]}, "lattice is singular"),
        (
            PARAMETERS | {"lattice_parameters": [4, 4, "x", 90, 90, 90]},
            "malformed: could not convert string",
        ),
        (
            {
                "lattice_mat": ROCKSALT["lattice"],
                "elements": ["Na"],
                "cartesian": True,
                "coords": [[0, 0]],
            },
            "shape",
        ),
        ({"sites": [], "lattice": {"matrix": ROCKSALT["lattice"]}}, "no atoms"),
        ({}, "no 'lattice'"),
        (None, "expected a structure .* found NoneType"),
        ("Si.cif", "expected a structure .* found str 'Si.cif'"),
    ],
)
def test_invalid_structures_are_refused_with_the_reason(source: Any, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        to_crystal(source)


@pytest.mark.parametrize("species", [{"Na": 0.5}, {"Na": 0.5, "K": 0.5}])
def test_disorder_is_refused_with_the_site(species: dict[str, float]) -> None:
    structure = Structure(ROCKSALT["lattice"], ["Cl", species], ROCKSALT["frac_coords"])
    for source in (structure, structure.as_dict()):
        with pytest.raises(
            StructureError, match=r"site 2 is disordered \(Na\S* 0.5.*expected one species"
        ):
            to_crystal(source)


def test_dummy_species_of_pymatgen_are_unknown_elements() -> None:
    from pymatgen.core import DummySpecies

    structure = Structure(ROCKSALT["lattice"], ["Na", DummySpecies("X")], ROCKSALT["frac_coords"])
    with pytest.raises(StructureError, match="site 2: unknown element 'X'"):
        to_crystal(structure)
