"""Tables of contributions."""

import numpy as np
import pytest

from csgcnn.crystals.crystal import Crystal
from csgcnn.data.targets import Target
from csgcnn.runs.explanations import Explanation, Explanations

TARGETS = [
    Target("K (x)", "GPa", transform="log10"),
    Target("is_metal", task="classification", classes=("no", "yes")),
]


@pytest.fixture
def explanation() -> Explanation:
    """Two members explain Na Cl Na with three outputs."""
    crystal = Crystal(np.eye(3) * 5, np.array([11, 17, 11], np.uint8), np.eye(3) / 3)
    values = np.arange(30.0).reshape(2, 5, 3)
    return Explanation(
        "x",
        crystal,
        ["site", "site", "site", "crystal", "reference"],
        values,
        np.array([[0, 1], [1, 0]]),
        np.array([2.0, 2.5]),
        np.ones((2, 2, 3)),
        None,
    )


def test_numbers_are_on_the_scale_that_is_trained_and_say_so(explanation: Explanation) -> None:
    tables = Explanations.of([explanation], TARGETS)
    names = [
        *("log10(K (x)) [log10(GPa)]", "log10(K (x))_std [log10(GPa)]"),
        *("is_metal_probability_no", "is_metal_probability_no_std"),
        *("is_metal_probability_yes", "is_metal_probability_yes_std"),
    ]
    assert list(tables.contributions) == ["id", "part", "site", "element", *names]
    assert list(tables.elements) == ["id", "element", "n_sites", *names]
    column = tables.contributions[names[0]]
    assert column.tolist() == [7.5, 10.5, 13.5, 16.5, 19.5]
    assert tables.contributions[names[1]].tolist() == pytest.approx([15 / 2**0.5] * 5)
    (line, *_) = explanation.lines(TARGETS)
    assert line == (
        "x: log10(K (x)) 67.5 log10(GPa) = 19.5 (reference) + 21 (Na) + 10.5 (Cl) + 16.5 (crystal)"
    )


def test_sums_of_elements(explanation: Explanation) -> None:
    elements = Explanations.of([explanation], TARGETS).elements
    assert elements[["element", "n_sites"]].values.tolist() == [["Na", 2], ["Cl", 1]]
    assert elements["log10(K (x)) [log10(GPa)]"].tolist() == [21, 10.5]
    assert elements["log10(K (x))_std [log10(GPa)]"].tolist() == pytest.approx(
        [30 / 2**0.5, 15 / 2**0.5]
    )


def test_crystals_carry_the_contributions_of_their_sites(explanation: Explanation) -> None:
    (atoms,) = Explanations.of([explanation], TARGETS).atoms
    assert atoms.get_chemical_symbols() == ["Na", "Cl", "Na"]
    np.testing.assert_allclose(atoms.get_scaled_positions(), np.eye(3) / 3)
    assert atoms.arrays["log10_K_x_contribution"].tolist() == [7.5, 10.5, 13.5]
    assert atoms.info["log10_K_x_prediction"] == 67.5
    assert atoms.info["log10_K_x_unit"] == "log10(GPa)"
