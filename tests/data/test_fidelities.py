from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.data.fidelities import known_fidelities, spread_fidelities
from csgcnn.data.inputs import Input, describe_inputs
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError, UserError

SOURCE = Path("gaps.json")
COLUMNS = {"gga": "gap_gga", "hse": "gap"}
StoreMaker = Callable[[dict[str, list[Scalar]]], GraphStore]


@pytest.fixture
def gaps(store_with: StoreMaker) -> GraphStore:
    columns: dict[str, list[Scalar]] = {
        "gap_gga": [1.0, 2.0, None],
        "gap": [1.5, "-", None],
        "year": [1990, 2000, 2010],
    }
    return store_with(columns)


def test_each_known_value_is_a_row(gaps: GraphStore) -> None:
    spread = spread_fidelities(gaps, COLUMNS, ["gap"], SOURCE)
    assert spread.ids == ["c0:gga", "c0:hse", "c1:gga", "c2:hse"], "c2 has no value"
    assert spread.columns["gap"] == [1.0, 1.5, 2.0, None]
    assert spread.columns["fidelity"] == ["gga", "hse", "gga", "hse"]
    assert spread.columns["year"] == [1990, 1990, 2000, 2010]
    np.testing.assert_array_equal(spread.graphs.fingerprint, gaps.graphs.fingerprint[[0, 0, 1, 2]])
    settings = DatasetSettings(fidelities=COLUMNS)
    (found,) = describe_inputs(spread, settings, SOURCE)
    assert found == Input("fidelity", ("gga", "hse"), is_fidelity=True, columns=("gap_gga", "gap"))
    assert known_fidelities(gaps, [found]) == COLUMNS
    assert known_fidelities(spread, [found]) == {}, "these data have a row for each already"
    one = spread_fidelities(gaps, {"hse": "gap"}, ["gap"], SOURCE)
    with pytest.raises(UserError, match="has 1 different values of it, expected 2"):
        describe_inputs(one, settings, SOURCE)
    del gaps.columns["gap_gga"]
    assert known_fidelities(gaps, [found]) == {"hse": "gap"}


def test_rows_of_a_crystal_have_its_graph(store: GraphStore) -> None:
    rows = np.array([7, 3, 7])
    taken = GraphStore(store.graphs.take(rows), ["a", "b", "c"], {}, store.settings)
    one, other = taken.batch(torch.arange(3)), store.batch(torch.from_numpy(rows))
    for name in ("atomic_number", "edge_index", "distance", "edge_multiplicity", "graph_index"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert len(taken.site_values(torch.zeros(int(taken.graphs.n_atoms[1])), 1)) == int(
        store.graphs.n_sites[3]
    )


@pytest.mark.parametrize("values", [["pbe", "hse", None], [1, 2, 2]])
def test_a_column_of_fidelities_has_categories(
    store_with: StoreMaker, values: list[Scalar]
) -> None:
    (found,) = describe_inputs(
        store_with({"method": values}), DatasetSettings(fidelity="method"), SOURCE
    )
    labels = sorted({str(value) for value in values if value is not None})
    assert found == Input("method", tuple(labels), is_fidelity=True)


@pytest.mark.parametrize(
    ("fidelities", "targets", "message"),
    [
        (COLUMNS, ["year"], r"dataset.targets=\[year\]: expected one of the columns"),
        (COLUMNS, ["gap", "gap_gga"], "expected one of the columns of dataset.fidelities, gap_gga"),
        ({**COLUMNS, "scan": "gap_scan"}, ["gap"], "dataset.fidelities.scan=gap_scan: gaps.json"),
    ],
)
def test_other_fidelities_are_refused(
    gaps: GraphStore, fidelities: dict[str, str], targets: list[str], message: str
) -> None:
    with pytest.raises((ConfigError, UserError), match=message):
        spread_fidelities(gaps, fidelities, targets, SOURCE)


def test_data_with_a_column_of_that_name_are_refused(gaps: GraphStore) -> None:
    gaps.columns["fidelity"] = ["a", "b", "a"]
    with pytest.raises(UserError, match=r"give dataset.fidelity=fidelity, or rename it"):
        spread_fidelities(gaps, COLUMNS, ["gap"], SOURCE)
