import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import Rejected, WorkerLostError, build_graphs
from csgcnn.crystals.records import Record
from csgcnn.data import shards
from csgcnn.data.shards import build_store, parts_of, read_rejected, store_of
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError

SETTINGS = GraphSettings()
SOURCE = Path("set.json")
BAD = {"species": ["H"]}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of eight records."""
    monkeypatch.setattr(shards, "build_graphs", partial(build_graphs, chunk_size=4))
    monkeypatch.setattr(shards, "SHARD", 8)


@pytest.fixture
def records(dielectric_records: list[Record]) -> list[Record]:
    """Thirty records, of which number 5 and all of the second shard are of no use; a column is new in the third."""
    good = [
        Record(record.id, record.source, {"gap": record.columns["band_gap"]})
        for record in dielectric_records[:30]
    ]
    bad = {5, *range(8, 16)}
    return [
        Record(r.id, BAD if i in bad else r.source, r.columns | ({"late": i} if i >= 16 else {}))
        for i, r in enumerate(good)
    ]  # type: ignore[list-item]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted_after(n_records: int, records: list[Record]) -> Iterator[Record]:
    yield from records[:n_records]
    raise KeyboardInterrupt


def test_shards_end_as_one_store(records: list[Record], tmp_path: Path) -> None:
    done: list[int] = []
    build_store(records, SETTINGS, tmp_path / "store", SOURCE, 1, done.append)
    expected, rejected = store_of(list(build_graphs(records, SETTINGS, 1)), SETTINGS, SOURCE)
    store = GraphStore.load(tmp_path / "store")
    assert (store.ids, store.columns) == (expected.ids, expected.columns)
    assert read_rejected(tmp_path / "store") == rejected
    assert len(rejected) == 9
    assert sum(done) == 30
    for name in type(store.graphs).__slots__:
        np.testing.assert_array_equal(
            getattr(store.graphs, name), getattr(expected.graphs, name), err_msg=name
        )
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("n_records", [0, 3, 12, 17, 30])
def test_a_building_that_was_stopped_goes_on(
    records: list[Record], tmp_path: Path, n_records: int
) -> None:
    build_store(records, SETTINGS, tmp_path / "whole", SOURCE, 1)
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        build_store(interrupted_after(n_records, records), SETTINGS, store, SOURCE, 1)
    assert not store.exists()
    done: list[int] = []
    build_store(records, SETTINGS, store, SOURCE, 1, done.append)
    assert contents(store) == contents(tmp_path / "whole")
    n_kept = n_records // 8 * 8
    assert done[0] == n_kept or not n_kept
    assert sum(done) == 30
    assert not parts_of(store).exists()


def test_a_half_written_shard_is_never_seen(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, store = GraphStore.save, tmp_path / "store"

    def interrupted(self: GraphStore, folder: Path) -> None:
        save(self, folder)
        (folder / "meta.json").write_text("{")
        raise KeyboardInterrupt

    build_store(records, SETTINGS, tmp_path / "whole", SOURCE, 1)
    with monkeypatch.context() as patch:
        patch.setattr(GraphStore, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_store(records, SETTINGS, store, SOURCE, 1)
        assert not list(parts_of(store).iterdir())
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed: nothing is cleaned up
        with pytest.raises(KeyboardInterrupt):
            build_store(records, SETTINGS, store, SOURCE, 1)
    assert [path.suffix for path in parts_of(store).iterdir()] == [".tmp"]
    build_store(records, SETTINGS, store, SOURCE, 1)
    assert contents(store) == contents(tmp_path / "whole")


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda parts: shutil.rmtree(parts / "000000"),
        lambda parts: shorten(parts / "000000" / "distance.npy"),
        lambda parts: shorten(parts / "000001" / "rejected.json"),
        lambda parts: shorten(parts / "000002" / "meta.json"),
    ],
)
def test_damaged_shards_are_built_again(
    records: list[Record], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    build_store(records, SETTINGS, tmp_path / "whole", SOURCE, 1)
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        build_store(interrupted_after(28, records), SETTINGS, store, SOURCE, 1)
    damage(parts_of(store))
    build_store(records, SETTINGS, store, SOURCE, 1)
    assert contents(store) == contents(tmp_path / "whole")


def test_large_crystals_make_small_shards(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MOST_BYTES", 1)
    with pytest.raises(KeyboardInterrupt):
        build_store(interrupted_after(30, records), SETTINGS, tmp_path / "store", SOURCE, 1)
    n_records = [
        len(shards._ids(shard)) for shard in sorted(parts_of(tmp_path / "store").iterdir())
    ]
    assert n_records == [4, 4, 8, 4, 4, 4]  # records of no use take no memory


def test_repeated_ids_are_found_across_shards(records: list[Record], tmp_path: Path) -> None:
    again = [*records, Record(records[0].id, records[1].source, {}), Record(records[9].id, BAD, {})]  # type: ignore[arg-type]
    with pytest.raises(
        UserError,
        match=rf"set\.json: 2 ids occur more than once \({records[0].id}, {records[9].id}\)",
    ):
        build_store(again, SETTINGS, tmp_path / "store", SOURCE, 1)
    assert not list(tmp_path.iterdir())


def test_without_a_usable_record_nothing_is_left(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"set\.json: none of its 8 structures .* the first, {records[8].id}: "
    ):
        build_store(records[8:16], SETTINGS, tmp_path / "store", SOURCE, 1)
    assert not list(tmp_path.iterdir())


def test_shards_survive_the_loss_of_a_worker(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Iterator[Any]:
        yield from list(build_graphs(records[:9], SETTINGS, 1, chunk_size=4))[:2]
        raise WorkerLostError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "build_graphs", lost)
        with pytest.raises(WorkerLostError):
            build_store(records, SETTINGS, tmp_path / "store", SOURCE, 1)
    done: list[int] = []
    build_store(records, SETTINGS, tmp_path / "store", SOURCE, 1, done.append)
    assert done[0] == 8


def test_rejected_records_are_read_back(tmp_path: Path) -> None:
    rejected = [["a", "why"], ["b", "because"]]
    (tmp_path / "rejected.json").write_text(json.dumps(rejected))
    assert read_rejected(tmp_path) == [Rejected(*entry) for entry in rejected]
