"""Test how lists of numbers become the values of a target with a grid."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from record_lists import read_records

from csgcnn.commands.frames import write_frame
from csgcnn.crystals.records import ReadOptions
from csgcnn.data.dataset import Dataset, select_targets
from csgcnn.data.label_checks import check_labels
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target
from csgcnn.errors import UserError

StoreMaker = Callable[[dict[str, list[Scalar]]], GraphStore]
DOS = Target("dos", grid=(0.0, 0.5, 1.0))
CUBE = {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "species": ["Fe"], "frac_coords": [[0, 0, 0]]}
NAN = float("nan")


def selected(store_with: StoreMaker, *lists: Any, target: Target = DOS) -> Dataset:
    column = [None if item is None else json.dumps(item) for item in lists]
    return select_targets(store_with({"dos": column}), [target], [], Path("set.json"))


def test_null_is_a_missing_point_and_a_row_needs_one_point(store_with: StoreMaker) -> None:
    dataset = selected(store_with, [1, None, 3], None, [None, None, None])
    expected = torch.tensor([[1.0, NAN, 3.0], *[[NAN] * 3] * 2])
    torch.testing.assert_close(dataset.values, expected, equal_nan=True)
    assert dataset.rows.tolist() == [0]
    assert [reason for _, reason in dataset.rejected] == ["dos missing"] * 2


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, 2], "expected a list of 3 numbers, one for each point of the grid, not 2"),
        (1.5, "dos is '1.5', expected a list of 3 numbers"),
        ([1, "x", 2], "dos at 0.5 is 'x': expected a finite number"),
        ([1, NAN, 2], "dos at 0.5 is nan: expected a finite number, at most 1e+37, or null"),
        ([1, 2, float("inf")], "dos at 1 is inf: expected a finite number"),
        ([1, [2], 3], "dos at 0.5 is [2]: expected a finite number"),
    ],
)
def test_a_wrong_list_is_rejected_with_the_key_and_the_point(
    value: Any, reason: str, store_with: StoreMaker
) -> None:
    [(id_, found)] = selected(store_with, [1, 2, 3], value).rejected
    assert id_ == "c1"
    assert reason in found


def test_a_transform_applies_to_each_point(store_with: StoreMaker) -> None:
    root = Target("dos", transform="sqrt", grid=DOS.grid)
    dataset = selected(store_with, [1, 4, None], [1, -1, 4], target=root)
    torch.testing.assert_close(dataset.values[0], torch.tensor([1, 2, NAN]), equal_nan=True)
    assert "dos at 0.5 is -1: expected a number of at least 0" in dataset.rejected[0].reason


def test_lists_without_any_variation_cannot_be_learned(store_with: StoreMaker) -> None:
    with pytest.raises(UserError, match="nothing to learn"):
        check_labels(selected(store_with, [1, 1, 1], [1, None, 1]).values, [DOS])


def written(path: Path, values: list[float]) -> Path:
    """A data set of one crystal with a list, in the format of the suffix."""
    record = {"id": "a", "structure": CUBE, "dos": values}
    if path.suffix == ".json":
        path.write_text(json.dumps([record]))
    elif path.suffix == ".jsonl":
        path.write_text(json.dumps(record))
    elif path.suffix == ".parquet":
        pd.DataFrame([record | {"structure": json.dumps(CUBE)}]).to_parquet(path)
    elif path.suffix == ".csv":
        path.write_text(f'id,file,dos\na,a.cif,"{values}"\n')
    else:
        lattice, text = 'Lattice="4 0 0 0 4 0 0 0 4"', " ".join(map(str, values))
        path.write_text(f'1\n{lattice} id=a dos="{text}"\nFe 0 0 0\n')
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet", ".extxyz"])
def test_every_format_holds_lists(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"x{suffix}", [1.5, 2.0, 3.25])
    [record] = read_records(path, ReadOptions(vectors=("dos",)))
    assert DOS.encode_all(record.columns["dos"]) == [1.5, 2.0, 3.25]
    if suffix != ".csv":
        assert "dos" not in read_records(path)[0].columns, "lists are kept where they are named"


def test_a_data_frame_holds_lists_and_arrays(tmp_path: Path) -> None:
    frame = pd.DataFrame({"structure": [CUBE] * 2, "dos": [[1, 2, 3], torch.ones(3).numpy()]})
    frame.loc[0, "dos"][1] = NAN
    write_frame(frame, tmp_path / "x.jsonl.gz")
    first, second = read_records(tmp_path / "x.jsonl.gz", ReadOptions(vectors=("dos",)))
    assert first.columns["dos"] == "[1, null, 3]"
    assert DOS.encode_all(second.columns["dos"]) == [1, 1, 1]
