from collections.abc import Callable

import numpy as np
import pytest
import spglib
from pymatgen.core import Lattice, Structure

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.descriptors import (
    NAMES,
    SYMMETRY_TOLERANCE,
    Symmetry,
    descriptor_names,
    descriptors,
    find_symmetry,
)
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER, masses, properties, radii
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL

Change = Callable[[Crystal, np.random.Generator], Crystal]


def other_basis(crystal: Crystal, basis: np.ndarray) -> Crystal:
    """The same atoms with the lattice vectors basis @ lattice."""
    return crystal._replace(
        lattice=basis @ crystal.lattice, frac_coords=crystal.frac_coords @ np.linalg.inv(basis)
    )


def idealized_primitive(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    cell = (crystal.lattice, crystal.frac_coords, crystal.atomic_number)
    lattice, frac_coords, numbers = spglib.standardize_cell(cell, True, False, SYMMETRY_TOLERANCE)
    return Crystal(lattice, np.array(numbers, dtype=np.uint8), frac_coords)


CHANGES: dict[str, Change] = {
    **SAME_CRYSTAL,
    "mirrored": lambda crystal, rng: crystal._replace(lattice=crystal.lattice * [1, 1, -1]),
    "left-handed": lambda crystal, rng: other_basis(crystal, np.eye(3)[[1, 0, 2]]),
    "sheared": lambda crystal, rng: other_basis(
        crystal, np.array([[1, 2, 0], [0, 1, -1], [1, 2, 1]])
    ),
    "idealized primitive": idealized_primitive,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_descriptors_do_not_depend_on_the_description_of_the_crystal(
    change: Change, real_crystals: dict[str, Crystal]
) -> None:
    rng = np.random.default_rng(3)
    for id_, crystal in list(real_crystals.items())[::4]:
        for names in NAMES:
            expected = descriptors(crystal, [names])
            found = descriptors(change(crystal, rng), [names])
            np.testing.assert_allclose(
                found, expected, rtol=1e-4, atol=1e-6, err_msg=f"{id_} {names}"
            )


def named(crystal: Crystal) -> dict[str, float]:
    return dict(
        zip(descriptor_names(list(NAMES)), descriptors(crystal, list(NAMES)).tolist(), strict=True)
    )


def test_rock_salt_in_closed_form(ideal_crystals: dict[str, Crystal]) -> None:
    for name in ("rock_salt", "rock_salt_conventional"):
        found = named(ideal_crystals[name])
        assert [found[f"{length} [Å]"] for length in "abc"] == pytest.approx([5.64 / 2**0.5] * 3)
        assert [
            found[f"{angle} [degree]"] for angle in ("alpha", "beta", "gamma")
        ] == pytest.approx([60] * 3)
        assert found["volume_per_atom [Å3]"] == pytest.approx(5.64**3 / 8)
        assert found["density [g/cm3]"] == pytest.approx(2.16, rel=0.01)
        assert [system for system in ("cubic", "trigonal", "triclinic") if found[system]] == [
            "cubic"
        ]
        assert found["space_group_number / 230"] * 230 == pytest.approx(225)
        assert found["point_group_order / 48"] == found["centrosymmetric"] == 1
        assert found["n_elements"] == 2
        assert found["mean atomic_number [1]"] == 14
        assert found["deviation atomic_number [1]"] == 3
        assert (found["min valence_electrons [1]"], found["max valence_electrons [1]"]) == (1, 7)


@pytest.mark.parametrize(
    ("group", "lattice", "system", "order", "centrosymmetric"),
    [
        ("P1", Lattice.from_parameters(4, 5, 6, 80, 85, 95), "triclinic", 1, False),
        ("P2_1/c", Lattice.monoclinic(4, 5, 6, 100), "monoclinic", 4, True),
        ("Pnma", Lattice.orthorhombic(4, 5, 6), "orthorhombic", 8, True),
        ("P4_3", Lattice.tetragonal(4, 6), "tetragonal", 4, False),
        ("R3c", Lattice.hexagonal(4, 9), "trigonal", 6, False),
        ("P6_3/mmc", Lattice.hexagonal(4, 9), "hexagonal", 24, True),
        ("F-43m", Lattice.cubic(6), "cubic", 24, False),
    ],
)
def test_every_crystal_system(
    group: str, lattice: Lattice, system: str, order: int, centrosymmetric: bool
) -> None:
    sites = [[0.11, 0.23, 0.37], [0.05, 0.4, 0.31]]
    found = named(to_crystal(Structure.from_spacegroup(group, lattice, ["Si", "O"], sites)))
    assert [name for name in NAMES["symmetry"][:7] if found[name]] == [system]
    assert found["point_group_order / 48"] * 48 == pytest.approx(order)
    assert found["centrosymmetric"] == centrosymmetric


def test_mean_and_deviation_of_water_in_closed_form() -> None:
    water_ice = Crystal(
        np.eye(3) * 4, np.array([1, 1, 8], dtype=np.uint8), np.diag([0.1, 0.5, 0.8])
    )
    found = named(water_ice)
    assert found["mean electronegativity [Pauling]"] == pytest.approx((2 * 2.20 + 3.44) / 3)
    assert found["deviation electronegativity [Pauling]"] == pytest.approx(2**0.5 / 3 * 1.24)
    assert found["density [g/cm3]"] == pytest.approx(18.015 / 64 * 1.66054, rel=1e-4)


def test_the_density_is_divided_in_double_precision(dielectric_records: list[Record]) -> None:
    for record in dielectric_records[:300]:
        crystal = to_crystal(record.source)
        volume = abs(np.linalg.det(crystal.lattice))
        mass = float(masses()[crystal.atomic_number].sum())
        exact = [volume / len(crystal.atomic_number), mass / volume * 1.66053906660]
        found = descriptors(crystal, ["density"])
        np.testing.assert_allclose(found, exact, rtol=2**-24 + 1e-12)


@pytest.mark.slow
def test_every_element_and_data_set_gives_finite_numbers(
    dielectric_records: list[Record],
    elastic_records: list[Record],
    formation_energy_records: list[Record],
) -> None:
    for number in range(1, MAX_ATOMIC_NUMBER + 1):
        lone = Crystal(np.eye(3) * 4, np.array([number], dtype=np.uint8), np.zeros((1, 3)))
        assert np.isfinite(descriptors(lone, list(NAMES))).all(), number
    for records in (dielectric_records, elastic_records, formation_energy_records):
        for number, record in enumerate(records):
            names = list(NAMES) if number % 20 == 0 else ["composition"]
            assert np.isfinite(descriptors(to_crystal(record.source), names)).all(), record.id


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_extreme_cells_give_finite_numbers(scale: float) -> None:
    rng = np.random.default_rng(0)
    for flatness in (1, 1e-2, 1e-5):
        lattice = scale * rng.normal(size=(3, 3))
        lattice[2] = lattice[0] - lattice[1] + flatness * lattice[2]
        crystal = Crystal(lattice, np.array([26, 8, 26], dtype=np.uint8), rng.random((3, 3)))
        assert np.isfinite(descriptors(crystal, list(NAMES))).all()


@pytest.mark.parametrize("failure", [None, RuntimeError("too close distance between atoms")])
def test_a_crystal_for_which_spglib_fails_is_p1(
    failure: Exception | None, ideal_crystals: dict[str, Crystal], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        if failure is not None:
            raise failure

    monkeypatch.setattr(spglib, "get_symmetry_dataset", fail)
    found = named(ideal_crystals["rock_salt"])
    assert found["triclinic"] == 1
    assert found["space_group_number / 230"] == pytest.approx(1 / 230)
    assert found["a [Å]"] == pytest.approx(5.64 / 2**0.5), "the reduced form of the cell as given"


def test_nothing_is_printed_about_a_cell_close_to_a_higher_symmetry(
    capfd: pytest.CaptureFixture[str],
) -> None:
    lattice = np.array(
        [
            [-0.00217981, 2.01774326, 1.99267377],
            [1.99860104, 0.00454838, 2.00974269],
            [2.00531257, 2.0042316, 0.00283863],
        ]
    )
    found = named(Crystal(lattice, np.array([17], dtype=np.uint8), np.full((1, 3), 0.25)))
    assert (found["monoclinic"], capfd.readouterr().err) == (1, "")


def test_distortions_below_the_tolerance_do_not_break_the_symmetry(
    ideal_crystals: dict[str, Crystal],
) -> None:
    crystal = ideal_crystals["perovskite"]
    shifted = crystal._replace(
        frac_coords=crystal.frac_coords + np.random.default_rng(0).normal(0, 2e-4, (5, 3))
    )
    symmetry = find_symmetry(shifted)
    assert isinstance(symmetry, Symmetry)
    assert (symmetry.space_group, len(symmetry.rotations)) == (221, 48)
    np.testing.assert_allclose(
        descriptors(shifted, ["lattice"]), descriptors(crystal, ["lattice"]), rtol=1e-6
    )


def test_names_and_numbers_have_the_requested_order(
    ideal_crystals: dict[str, Crystal],
) -> None:
    crystal = ideal_crystals["diamond"]
    assert descriptor_names([]) == []
    assert descriptors(crystal, []).shape == (0,)
    requested = ["composition", "lattice"]
    found = descriptors(crystal, requested)
    assert found.dtype == np.float32
    assert len(found) == len(descriptor_names(requested)) == len(set(descriptor_names(requested)))
    np.testing.assert_array_equal(found[-8:], descriptors(crystal, ["lattice"]))


def test_tables() -> None:
    assert masses()[[0, 1, 8, 26]] == pytest.approx([0, 1.008, 15.999, 55.845], rel=1e-3)
    assert (masses()[1:] > 0).all()
    assert all(
        np.isfinite(table).all() and table.shape == (101,) for table in properties().values()
    )
    assert radii()[[6, 26]] == pytest.approx([0.7, 1.4])
    assert radii()[2] == pytest.approx(radii()[10]), "unknown ones are the mean"


def test_density_does_not_need_the_symmetry(
    ideal_crystals: dict[str, Crystal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spglib, "get_symmetry_dataset", lambda *_: pytest.fail("spglib is called"))
    found = descriptors(ideal_crystals["rock_salt"], ["density"])
    assert found == pytest.approx([5.64**3 / 8, 2.16], rel=0.01)
