import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore

BatchCheck = Callable[[GraphBatch, GraphBatch], None]


def _assert_equal_batches(one: GraphBatch, other: GraphBatch) -> None:
    for field in fields(GraphBatch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
            assert torch.equal(a, b), field.name
        else:
            assert a == b, field.name


@pytest.fixture(scope="session")
def assert_equal_batches() -> BatchCheck:
    return _assert_equal_batches


@pytest.fixture(params=[True, False], ids=["compressed", "full"])
def mixed_store(request: pytest.FixtureRequest, dielectric_records: list[Record]) -> GraphStore:
    """24 crystals, and crystals without edges at 0, 11, 12 and 27."""
    settings = GraphSettings(compress=request.param)
    crystals = [to_crystal(record.source) for record in dielectric_records[::44]]
    lone = Crystal(np.eye(3) * 30, np.array([54], dtype=np.uint8), np.zeros((1, 3)))
    crystals = [lone, *crystals[:10], lone, lone, *crystals[10:], lone]
    ids = [f"crystal-{number}" for number in range(len(crystals))]
    columns = {"gap": list(map(float, range(len(ids)))), "name": [f"n{id_}" for id_ in ids]}
    return GraphStore(connect(crystals, settings), ids, columns, settings)


@pytest.fixture
def store_in_memory(dielectric_records: list[Record]) -> GraphStore:
    records, settings = dielectric_records[:100], GraphSettings()
    graphs = connect([to_crystal(record.source) for record in records], settings)
    return GraphStore(graphs, [record.id for record in records], {}, settings)


@pytest.fixture
def rows(dielectric_records: list[Record]) -> list[dict[str, Any]]:
    """Return twelve records of a user's file, one of them unusable."""
    named = [
        {"material_id": record.id, "structure": record.source, "name": f"row {record.id}"}
        | record.columns
        for record in dielectric_records[:11]
    ]
    bad = {"material_id": 'bad, "one"', "structure": {"species": ["H"]}, "name": "bad"}
    return [*named, bad | {"band_gap": 1.0}]


@pytest.fixture
def data(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "mine" / "set.json"
    path.parent.mkdir()
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CSGCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
