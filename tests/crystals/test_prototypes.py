"""Labels of structure types."""

import numpy as np
import pytest

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.prototypes import prototype
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.errors import StructureError

CORNER, CENTER, QUARTER = [0.0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
FACES = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
EDGES = [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
CUBIC, FCC = np.eye(3) * 4.0, np.array([[0, 2.5, 2.5], [2.5, 0, 2.5], [2.5, 2.5, 0]])


def crystal(lattice: np.ndarray, numbers: list[int], sites: list[list[float]]) -> Crystal:
    return Crystal(lattice, np.array(numbers, dtype=np.uint8), np.array(sites))


def quartz() -> Crystal:
    """P3_221, which is the mirror image of P3_121."""
    lattice = np.array([[4.91, 0, 0], [-4.91 / 2, 4.91 * np.sqrt(0.75), 0], [0, 0, 5.4]])
    x, y, z = 0.413, 0.266, 0.786
    oxygen = [[x, y, z], [-y, x - y, z + 2 / 3], [y - x, -x, z + 1 / 3]]
    oxygen += [[y, x, -z], [x - y, -y, 1 / 3 - z], [-x, y - x, 2 / 3 - z]]
    silicon = [[0.47, 0, 2 / 3], [0, 0.47, 1 / 3], [-0.47, -0.47, 0]]
    return crystal(lattice, [8] * 6 + [14] * 3, oxygen + silicon)


RUTILE = [CORNER, CENTER, [0.3, 0.3, 0], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]]
ROCK_SALT = "AB_225_4(m-3m)_4(m-3m)"
PEROVSKITE = "ABC3_221_1(m-3m)_1(m-3m)_3(4/mmm)"
FLUORITE = [CORNER, QUARTER, [0.75, 0.75, 0.75]]
TYPES = {
    ROCK_SALT: crystal(FCC, [11, 17], [CORNER, CENTER]),
    "AB_216_4(-43m)_4(-43m)": crystal(FCC, [30, 16], [CORNER, QUARTER]),
    "AB2_225_4(m-3m)_8(-43m)": crystal(FCC, [20, 9, 9], FLUORITE),
    "AB2_136_2(mmm)_4(mm2)": crystal(np.diag([4.6, 4.6, 3]), [22, 22, 8, 8, 8, 8], RUTILE),
    "AB2_152_3(2)_6(1)": quartz(),
    PEROVSKITE: crystal(CUBIC, [38, 22, 8, 8, 8], [CORNER, CENTER, *FACES]),
}
NAMES = ("rock salt", "sphalerite", "fluorite", "rutile", "quartz", "perovskite")


@pytest.mark.parametrize(("expected", "of_type"), TYPES.items(), ids=NAMES)
def test_structure_types_have_their_labels_in_any_description(
    expected: str, of_type: Crystal
) -> None:
    rng = np.random.default_rng(0)
    assert prototype(of_type) == expected
    for name, change in SAME_CRYSTAL.items():
        if name != "2x2x2 supercell":
            assert prototype(change(of_type, rng) or of_type) == expected
    assert prototype(of_type._replace(lattice=of_type.lattice * [1, 1, -1])) == expected


def test_neither_elements_nor_the_origin_of_the_positions_matter() -> None:
    assert prototype(crystal(FCC * 0.9, [8, 12], [CORNER, CENTER])) == ROCK_SALT
    other = crystal(CUBIC, [8, 56, 40, 8, 8], [EDGES[0], CENTER, CORNER, *EDGES[1:]])
    assert prototype(other) == PEROVSKITE


def test_equal_positions_are_counted() -> None:
    sites = np.random.default_rng(0).random((4, 3)).tolist()
    assert prototype(crystal(np.eye(3) * 9, [8, 8, 8, 14], sites)) == "AB3_1_1(1)_3x1(1)"


def test_too_many_sites_are_refused() -> None:
    large = crystal(np.eye(3), [1] * 2501, [CORNER] * 2501)
    with pytest.raises(StructureError, match="it has 2501 sites; prototypes are found for up to"):
        prototype(large)
