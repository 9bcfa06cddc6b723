"""A store whose graphs stay in their files."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.data import store as store_module
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore


@pytest.fixture
def in_memory(dielectric_records: list[Record]) -> GraphStore:
    records = dielectric_records[:100]
    graphs = connect([to_crystal(record.source) for record in records], GraphSettings())
    return GraphStore(graphs, [record.id for record in records], {}, GraphSettings())


@pytest.fixture
def mapped(in_memory: GraphStore, tmp_path: Path) -> GraphStore:
    in_memory.save(tmp_path)
    return GraphStore.load(tmp_path).to("cpu", resident=False)


def assert_equal(one: GraphBatch, other: GraphBatch) -> None:
    for field in fields(GraphBatch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(a, b) if torch.is_tensor(a) else a == b, field.name


def test_batches_are_those_of_memory(
    in_memory: GraphStore, mapped: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "HELD", 1000)  # memory is given back after each batch
    parts = torch.randperm(100).split(7)
    for part, batch in zip(parts, mapped.batches(parts), strict=True):
        assert_equal(batch, in_memory.batch(part))
    assert mapped.n_bytes == in_memory.n_bytes


def test_memory_is_given_back(mapped: GraphStore, monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[int] = []
    monkeypatch.setattr(store_module, "release", lambda array: released.append(array.nbytes))
    mapped.batch(torch.arange(100))
    assert not released
    monkeypatch.setattr(store_module, "HELD", 2 * 16 * int(mapped.graphs.n_edges.sum()))
    mapped.batch(torch.arange(100))
    mapped.batch(torch.arange(100))
    assert len(released) == len(fields(type(mapped.graphs)))
    mapped.to("cpu")
    mapped.batch(torch.arange(100))
    assert len(released) == len(fields(type(mapped.graphs)))


def test_resident_graphs_do_not_need_their_files(
    in_memory: GraphStore, mapped: GraphStore, tmp_path: Path
) -> None:
    mapped.to("cpu")
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.write_bytes(bytes(len(content)))
    assert_equal(mapped.batch(torch.arange(100)), in_memory.batch(torch.arange(100)))


def test_batches_are_read_ahead_for_a_device(mapped: GraphStore) -> None:
    """The device `meta` stands in for an accelerator."""
    parts = torch.randperm(100).split(9)
    mapped.to("meta", resident=False)
    done = 0
    for part, batch in zip(parts, mapped.batches(parts), strict=True):
        assert batch.distance.device.type == "meta"
        assert len(batch.distance) == mapped.graphs.n_edges[part.numpy()].sum()
        done += 1
    assert done == len(parts)
    with pytest.raises(IndexError):
        list(mapped.batches([torch.tensor([3]), torch.tensor([100])]))


def test_shuffling_stays_within_windows_and_mixes_them(
    mapped: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BLOCK", 4)
    monkeypatch.setattr(store_module, "WINDOW", 5)
    torch.manual_seed(0)
    rows = torch.arange(0, 100, 2)
    orders = [mapped.shuffled(rows) for _ in range(300)]
    for order in orders:
        assert sorted(order.tolist()) == rows.tolist()
        for window in order.split(5 * 2):  # every other row of five blocks
            assert len((window // 4).unique()) == 5
    place = torch.stack(orders).argsort()  # of each row in each order
    assert (
        place.double().mean(0) - 24.5
    ).abs().max() < 4  # any place: the deviation of the mean is 0.83
    apart = (place[:, :1] - place[:, 1:]).abs()
    assert apart[:, 0].float().mean() < 6  # rows of one block meet in a window
    assert apart[:, 10].float().mean() > 12  # others do now and then


def test_resident_graphs_are_shuffled_all_together(in_memory: GraphStore) -> None:
    torch.manual_seed(3)
    order = in_memory.shuffled(torch.arange(100))
    torch.manual_seed(3)
    assert torch.equal(order, torch.randperm(100))


def test_blocks_and_elements(in_memory: GraphStore, mapped: GraphStore) -> None:
    for size in (1, 7, 100, 1000):
        blocks = list(mapped.graphs.blocks(size))
        assert sum(map(len, blocks)) == 100
        together = type(mapped.graphs).concatenate(blocks)
        for field in fields(together):
            np.testing.assert_array_equal(
                getattr(together, field.name), getattr(in_memory.graphs, field.name)
            )
    rows = torch.tensor([3, 50, 99])
    assert mapped.elements_of(rows) == set().union(
        *(in_memory.elements[row] for row in rows.tolist())
    )
    assert mapped.elements_of(rows[:0]) == set()
