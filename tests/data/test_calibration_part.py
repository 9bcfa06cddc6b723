"""The calibration part of a split: training rows that are not trained on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.data.dataset import Dataset
from csgcnn.data.inputs import Input
from csgcnn.data.splits import Split, split_dataset, split_ids
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError

N = 60
ROWS = torch.arange(N)


@pytest.fixture(scope="module")
def store(store_with: Callable[..., GraphStore]) -> GraphStore:
    parts = ["train", "train", "train", "val", "test"]
    return store_with(
        {
            "family": [f"family {row % 12}" for row in range(N)],
            "part": [parts[row % 5] for row in range(N)],
            "fold": [float(row % 5) for row in range(N)],
            "year": [float(row) for row in range(N)],
        }
    )


def split_of(
    store: GraphStore, settings: SplitSettings, inputs: list[Input] | None = None
) -> Split:
    rows = torch.arange(len(store))
    dataset = Dataset(store, [], torch.zeros(len(store), 1), rows, [], inputs=inputs or [])
    return split_dataset(dataset, settings)


@pytest.mark.parametrize(
    ("method", "column"),
    [
        *(("random", None), ("group", "family"), ("column", "part"), ("fold", "fold")),
        *(("kfold", None), ("time", "year")),
    ],
)
def test_it_is_taken_from_the_training_rows_alone(
    store: GraphStore, method: str, column: str | None
) -> None:
    settings = SplitSettings(method, column=column)
    without = split_of(store, settings)
    split = split_of(store, replace(settings, calibration=0.25))
    assert "calibration" not in without
    others = without.keys() - {"train"}
    assert all(torch.equal(split[part], without[part]) for part in others)
    train, calibration = (set(split[part].tolist()) for part in ("train", "calibration"))
    assert not train & calibration
    assert train | calibration == set(without["train"].tolist())
    assert len(calibration) == pytest.approx(len(without["train"]) / 4, abs=3)
    if method == "group":
        assert not {row % 12 for row in train} & {row % 12 for row in calibration}


@pytest.mark.parametrize("n_folds", [2, 3, 7])
def test_folds_divide_the_training_rows(store: GraphStore, n_folds: int) -> None:
    folds = [
        split_of(store, SplitSettings(calibration=1 / n_folds, calibration_fold=fold))[
            "calibration"
        ]
        for fold in range(n_folds)
    ]
    assert sorted(torch.cat(folds).tolist()) == sorted(split_of(store, SplitSettings())["train"])
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


@pytest.mark.parametrize("method", ["random", "column"])
def test_equal_crystals_calibrate_together(store: GraphStore, method: str) -> None:
    joined = type(store.graphs).concatenate([store.graphs] * 3)
    ids = [f"{id_}-{number}" for number in range(3) for id_ in store.ids]
    repeated = GraphStore(joined, ids, {"part": store.columns["part"] * 3}, store.settings)
    settings = SplitSettings(method, column="part", calibration=0.3)
    split = split_of(repeated, settings, [Input("temperature")])
    crystals = [set((part % N).tolist()) for part in split.values()]
    assert sum(map(len, crystals)) == len(set.union(*crystals))
    assert len(split["calibration"])


def test_a_split_file_names_it(store: GraphStore, tmp_path: Path) -> None:
    split = split_of(store, SplitSettings(calibration=0.2))
    file = tmp_path / "splits.json"
    file.write_text(json.dumps(split_ids(store, split)))
    settings = SplitSettings("file", file=str(file))
    again = split_of(store, settings)
    assert all(torch.equal(again[part], split[part]) for part in split)
    with pytest.raises(ConfigError, match="names calibration rows, which excludes"):
        split_of(store, replace(settings, calibration=0.1))
