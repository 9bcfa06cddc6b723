"""CIFs of random crystals in all settings of all space groups are read as they were written."""

from collections import Counter

import gemmi
import numpy as np
import pytest
import spglib
from cif_styles import matches, random_crystal, spglib_atoms, write

from csgcnn.crystals.cif import read_cif
from csgcnn.errors import StructureError

SETTINGS = list(gemmi.spacegroup_table())
STYLES = ("plain", "icsd", "shelx", "vesta", "cod")
SYMMETRIES = ("listed", "hall", "name", "icsd", "all")
REFERENCE = {n: gemmi.find_spacegroup_by_number(n).xhm() for n in range(1, 231)}
HALL_NUMBERS = {spglib.get_spacegroup_type(n).hall_symbol: n for n in range(1, 531)}


def test_operations_of_gemmi_and_spglib_give_the_same_atoms() -> None:
    rng = np.random.default_rng(1)
    n_compared = 0
    for group in SETTINGS[::7]:
        if group.hall not in HALL_NUMBERS:
            continue
        truth = random_crystal(group, rng)
        atoms = spglib_atoms(truth, HALL_NUMBERS[group.hall])
        numbers = np.array([gemmi.Element(symbol).atomic_number for symbol in truth.symbols])
        assert matches(truth, numbers, atoms, 1e-3), group.xhm()
        n_compared += 1
    assert n_compared > 50


@pytest.mark.parametrize(
    "style", [STYLES[0], *(pytest.param(style, marks=pytest.mark.slow) for style in STYLES[1:])]
)
def test_every_setting_is_read_as_it_was_written(style: str) -> None:
    rng = np.random.default_rng(STYLES.index(style))
    wrong, refused, read = [], list[str](), Counter[str]()
    for number, group in enumerate(SETTINGS[STYLES.index(style) % 2 :: 2]):
        symmetry = SYMMETRIES[(number + STYLES.index(style)) % len(SYMMETRIES)]
        decimals = 3 + number % 3
        truth = random_crystal(group, rng)
        text = write(truth, symmetry, style, decimals)
        case = f"{group.xhm()} {symmetry} {decimals}"
        try:
            crystal = read_cif(text)
        except StructureError as error:
            refused.append(f"{case}: {error}")
            continue
        tolerance = 2.5 * 10.0**-decimals * max(truth.parameters[:3])
        if not matches(truth, crystal.atomic_number, crystal.frac_coords, tolerance):
            wrong.append(case)
        read[symmetry] += 1
    assert not wrong
    assert not refused
    assert read.total() == -(-len(SETTINGS) // 2)


def test_the_number_alone_means_the_standard_setting() -> None:
    rng = np.random.default_rng(9)
    for group in SETTINGS:
        # A cell of rhombohedral axes means these axes.
        if group.xhm() != REFERENCE[group.number] and group.ext != "R":
            continue
        truth = random_crystal(group, rng)
        crystal = read_cif(write(truth, "number", "cod", 5))
        tolerance = 2.5e-5 * max(truth.parameters[:3])
        assert matches(truth, crystal.atomic_number, crystal.frac_coords, tolerance), group.xhm()
