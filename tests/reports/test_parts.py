"""Numbers and drawings of a report."""

import numpy as np
import pytest

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import atomic_number
from csgcnn.reports.crystals import N_ELEMENTS, composition_distance, crystal_system, formula
from csgcnn.reports.intervals import mean_interval, quantile_groups
from csgcnn.reports.structure_view import structure_traces

HALVES = [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
NUMBERS = np.array([11] * 4 + [17] * 4, dtype=np.uint8)
SALT = Crystal(5.64 * np.eye(3), NUMBERS, np.array(HALVES) / 2)


def atoms(**count: int) -> np.ndarray:
    found = np.zeros((1, N_ELEMENTS))
    for symbol, n in count.items():
        found[0, atomic_number(symbol)] = n
    return found


def test_atoms_on_faces_are_repeated_and_neighbors_bonded() -> None:
    traces = {trace["name"]: trace for trace in structure_traces(SALT)}
    assert (len(traces["Na"]["x"]), len(traces["Cl"]["x"])) == (14, 13)
    assert len(traces["cell"]["x"]) == 3 * 12
    ends = np.array([traces["bonds"][axis] for axis in "xyz"], dtype=float).reshape(3, -1, 3)
    length = np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=0)
    assert np.allclose(length, 2.82)
    assert len(length) == 3 * 3 * 6


def test_contributions_color_the_atoms() -> None:
    traces = structure_traces(SALT, [0.5] * 4 + [-0.25] * 4)
    colors = {trace["name"]: trace["marker"].get("color") for trace in traces if "marker" in trace}
    assert set(colors["Na"]) == {0.5}
    assert set(colors["Cl"]) == {-0.25}


def test_compositions() -> None:
    assert formula(atoms(O=6, Ti=2, Sr=2)[0]) == "SrTiO3"
    assert crystal_system(SALT) == "cubic"
    train = np.concatenate([atoms(Sr=1, Ti=1, O=3), atoms(Na=1, Cl=1)])
    wanted = np.concatenate([atoms(Sr=2, Ti=2, O=6), atoms(Ba=1, Ti=1, O=3), atoms(Fe=1)])
    assert composition_distance(wanted, train) == pytest.approx([0, 0.2, 1])


def test_groups_cover_the_rows_with_a_position() -> None:
    position = np.array([0.0] * 50 + [np.nan] * 10 + [*np.linspace(1, 2, 40)])
    groups = quantile_groups(position, 4)
    assert [*groups] == ["0", "1 to 1.25", "1.25 to 1.5", "1.5 to 1.75", "1.75 to 2"]
    assert sorted(np.concatenate([*groups.values()])) == [*range(50), *range(60, 100)]
    assert quantile_groups(np.full(3, np.nan), 4) == {}


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    noise = np.random.default_rng(0).exponential(size=(200, 100))
    covered = [found.low <= 1 <= found.high for found in map(mean_interval, noise)]
    assert 0.88 <= np.mean(covered) <= 0.99
