from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from csgcnn.crystals.elements import (
    MAX_ATOMIC_NUMBER,
    SYMBOLS,
    atom_init,
    atomic_number,
    bits,
    elemental,
    onehot,
)
from csgcnn.errors import StructureError

TABLES = {atom_init: 92, onehot: 100, bits: 7, elemental: 8}


@pytest.mark.parametrize(("table", "n_features"), TABLES.items())
def test_tables_have_one_finite_row_per_element_and_a_zero_row(
    table: Callable[[], Any], n_features: int
) -> None:
    values = table()
    assert values.shape == (MAX_ATOMIC_NUMBER + 1, n_features)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert not values[0].any()


@pytest.mark.parametrize("table", [onehot, bits, elemental])
def test_no_two_elements_share_their_features(table: Callable[[], Any]) -> None:
    assert len(np.unique(table(), axis=0)) == MAX_ATOMIC_NUMBER + 1


def test_atom_init_is_the_published_table() -> None:
    values = atom_init()
    assert set(np.unique(values)) == {0, 1}
    assert np.flatnonzero(values[1]).tolist() == [1, 19, 30, 36, 46, 64, 73, 78, 86]
    # the group is one-hot in columns 1-18, the period in columns 19-27
    for z, group, period in [(6, 14, 2), (26, 8, 4), (17, 17, 3)]:
        assert np.flatnonzero(values[z, :19]).tolist() == [group]
        assert np.flatnonzero(values[z, 19:28]).tolist() == [period - 1]


def test_onehot_and_bits_in_closed_form() -> None:
    assert onehot()[1:].tolist() == np.eye(100).tolist()
    weights = 2 ** np.arange(7)
    assert (bits() @ weights).tolist() == list(range(101))
    assert bits()[26].tolist() == [0, 1, 0, 1, 1, 0, 0]


def test_elemental_is_standardized_over_the_known_values_and_flags_the_others() -> None:
    values = elemental()[1:].astype(float)
    known = np.ones((100, 6), dtype=bool)
    known[:, 1:3] = values[:, 6:] == 0
    for column in range(6):
        assert values[known[:, column], column].mean() == pytest.approx(0, abs=1e-6)
        assert values[known[:, column], column].std() == pytest.approx(1, abs=1e-6)
    assert not values[:, :6][~known].any()
    no_electronegativity = [SYMBOLS[z + 1] for z in np.flatnonzero(values[:, 6])]
    assert no_electronegativity == ["He", "Ne", "Ar"]
    no_radius = [SYMBOLS[z + 1] for z in np.flatnonzero(values[:, 7])]
    assert no_radius == ["He", "Ne", "Kr", "Xe", "At", "Rn", "Fr", "Cm", "Bk", "Cf", "Es", "Fm"]


@pytest.mark.parametrize(
    ("column", "low", "high", "ratio"),
    [
        (1, ("Cs", 0.79), ("F", 3.98), ("O", 3.44)),
        (2, ("H", 0.25), ("Cs", 2.60), ("Si", 1.10)),
        (3, ("Cs", 3.893906), ("He", 24.587389), ("H", 13.598434)),
        (4, ("I", 3.059047), ("Cl", 3.612725), ("F", 3.401190)),
        (5, ("H", 1), ("Yb", 16), ("Cu", 11)),
        (5, ("He", 2), ("Ne", 8), ("Ce", 4)),
        (5, ("Lu", 3), ("Zn", 12), ("Pb", 4)),
        (5, ("La", 3), ("Fm", 14), ("U", 6)),
    ],
)
def test_elemental_holds_known_values_up_to_the_standardization(
    column: int, low: tuple[str, float], high: tuple[str, float], ratio: tuple[str, float]
) -> None:
    (x, at_x), (y, at_y), (z, at_z) = low, high, ratio
    values = elemental()[:, column].astype(float)
    found = (values[atomic_number(z)] - values[atomic_number(x)]) / (
        values[atomic_number(y)] - values[atomic_number(x)]
    )
    assert found == pytest.approx((at_z - at_x) / (at_y - at_x), abs=1e-5)


def test_tables_agree_with_pymatgen() -> None:
    from pymatgen.core import Element

    assert SYMBOLS[1:] == tuple(Element.from_Z(z).symbol for z in range(1, 119))
    assert all(atomic_number(symbol) == z for z, symbol in enumerate(SYMBOLS) if z)
    electron_affinity = np.array([Element.from_Z(z).electron_affinity for z in range(1, 101)])
    expected = (electron_affinity - electron_affinity.mean()) / electron_affinity.std()
    np.testing.assert_allclose(elemental()[1:, 4], expected, atol=1e-4)


def test_hydrogen_isotopes_are_hydrogen() -> None:
    assert atomic_number("D") == atomic_number("T") == 1


@pytest.mark.parametrize("symbol", ["Xx", "", "fe", "FE", None])
def test_an_unknown_symbol_is_named(symbol: str | None) -> None:
    with pytest.raises(StructureError, match=f"unknown element {symbol!r}"):
        atomic_number(symbol)


def test_callers_cannot_change_a_table() -> None:
    with pytest.raises(ValueError, match="read-only"):
        onehot()[1, 0] = 5
