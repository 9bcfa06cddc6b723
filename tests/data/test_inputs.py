import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from csgcnn.config.settings.dataset import DatasetSettings, SplitSettings
from csgcnn.data.dataset import Dataset
from csgcnn.data.given_inputs import given_values, points
from csgcnn.data.inputs import Input, describe_inputs, read_columns
from csgcnn.data.splits import split_dataset
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError, UserError

SOURCE = Path("data.json")
TEMPERATURE, FUNCTIONAL = Input("temperature"), Input("functional", ("hse", "pbe"))
StoreMaker = Callable[[dict[str, list[Scalar]]], GraphStore]


def test_columns_of_text_have_categories(store_with: StoreMaker) -> None:
    columns: dict[str, list[Scalar]] = {
        "temperature": [300, 10.5, None, "cold"],
        "functional": ["pbe", "hse", None, "pbe"],
        "magnetic": [True, False, True, True],
    }
    settings = DatasetSettings(inputs=[*columns])
    store = store_with(columns)
    found = describe_inputs(store, settings, SOURCE)
    assert found == [TEMPERATURE, FUNCTIONAL, Input("magnetic", ("false", "true"))]
    read_columns(store, [], found, SOURCE)
    expected = [[300, 1, 1], [10.5, 0, 0], [math.nan, math.nan, 1], [math.nan, 1, 1]]
    torch.testing.assert_close(store.inputs, torch.tensor(expected), equal_nan=True)
    assert store.lacking == {
        2: "temperature is missing, expected a number, an input of the model",
        3: "temperature is 'cold', expected a number, an input of the model",
    }


def test_a_column_of_one_text_is_refused(store_with: StoreMaker) -> None:
    store = store_with({"functional": ["pbe", "pbe"]})
    with pytest.raises(UserError, match="has 1 different values of it, expected 2 to 230"):
        describe_inputs(store, DatasetSettings(inputs=["functional"]), SOURCE)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("300", [300.0]),
        (300, [300.0]),
        (["100", 200], [100.0, 200.0]),
        ("100:300:100", [100.0, 200.0, 300.0]),
        ("0.1:0.3:0.1", [0.1, 0.2, 0.3]),
        ("100:299:100", [100.0, 200.0]),
        ("3:1:-1", [3.0, 2.0, 1.0]),
        ("5:5:1", [5.0]),
    ],
)
def test_numbers_are_given_as_values_lists_and_ranges(given: object, values: list[float]) -> None:
    assert given_values({"temperature": given}, [TEMPERATURE])["temperature"] == values


@pytest.mark.parametrize("given", ["warm", "100:1000", "1:2:0", "2:1:1", "1:9:1e-9", "1:x:1", []])
def test_other_numbers_are_refused(given: object) -> None:
    with pytest.raises(ConfigError, match=r"inputs.temperature=.*: expected"):
        given_values({"temperature": given}, [TEMPERATURE])


def test_every_combination_is_a_point() -> None:
    given = given_values({"functional": "all", "temperature": [1, 2]}, [TEMPERATURE, FUNCTIONAL])
    assert [(point["functional"], point["temperature"]) for point in points(given)] == [
        *(("hse", 1.0), ("hse", 2.0), ("pbe", 1.0), ("pbe", 2.0))
    ]
    assert points({}) == [{}]
    with pytest.raises(ConfigError, match=r"inputs.functional=scan: expected one of hse, pbe"):
        given_values({"functional": "scan"}, [FUNCTIONAL])
    with pytest.raises(ConfigError, match=r"no such input; did you mean temperature\?"):
        given_values({"temperatur": 1}, [TEMPERATURE])


@pytest.mark.parametrize("method", ["random", "kfold", "fold", "leave_composition", "target_tail"])
@pytest.mark.parametrize("seed", [0, 1])
def test_all_rows_of_a_crystal_are_in_one_part(store: GraphStore, method: str, seed: int) -> None:
    """Twenty crystals, each of them at three temperatures."""
    graphs = [store.graphs] * 3
    joined = type(store.graphs).concatenate(graphs)
    ids = [f"{id_}-{number}" for number in range(3) for id_ in store.ids]
    columns: dict[str, list[Scalar]] = {"fold": [row % 2 for row in range(180)]}
    columns["gap"] = [float(row % 60 + row // 60) for row in range(180)]
    repeated = GraphStore(joined, ids, columns, store.settings)
    rows, values = torch.arange(180), torch.zeros(180, 1)
    dataset = Dataset(repeated, [], values, rows, [], inputs=[TEMPERATURE])
    column = {"fold": "fold", "target_tail": "gap"}.get(method)
    split = split_dataset(dataset, SplitSettings(method, column=column, seed=seed, folds=2))
    parts = [set((part % 60).tolist()) for part in split.values()]
    assert len(parts) >= 3
    assert sum(map(len, parts)) == len(set.union(*parts))
    alone = split_dataset(Dataset(repeated, [], values, rows, []), SplitSettings(seed=seed))
    parts = [set((part % 60).tolist()) for part in alone.values()]
    assert sum(map(len, parts)) > len(set.union(*parts)), "without inputs, rows are independent"
