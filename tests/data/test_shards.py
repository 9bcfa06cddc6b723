import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import GraphChunk, GraphPlan, Rejected, WorkerLostError
from csgcnn.crystals.records import Record
from csgcnn.data.shards import (
    ShardSize,
    StorePlan,
    build_store,
    pack_store,
    read_rejected,
    read_warnings,
    shards_folder,
)
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError

SETTINGS = GraphSettings()
SOURCE = Path("set.json")
BAD = {"species": ["H"]}
LONE = {"lattice": [[9, 0, 0], [0, 9, 0], [0, 0, 9]], "species": ["Xe"], "frac_coords": [[0] * 3]}


def plan_of(records: Iterable[Record], **options: Any) -> StorePlan:
    options = {"shard_size": ShardSize(8)} | options
    return StorePlan(lambda: records, SOURCE, GraphPlan(SETTINGS, 1, chunk_size=4), **options)


def build_small(records: Iterable[Record], folder: Path, **options: Any) -> None:
    build_store(plan_of(records, **options), folder)


@pytest.fixture
def records(dielectric_records: list[Record]) -> list[Record]:
    """30 records; number 5 and the second shard are unusable, and the third has a new column.

    Numbers 2 and 20 have an isolated atom.
    """
    good = [
        Record(record.id, record.source, {"gap": record.columns["band_gap"]})
        for record in dielectric_records[:30]
    ]
    other = {2: LONE, 20: LONE, **dict.fromkeys((5, *range(8, 16)), BAD)}
    return [
        Record(r.id, other.get(i, r.source), r.columns | ({"late": i} if i >= 16 else {}))
        for i, r in enumerate(good)
    ]  # type: ignore[list-item]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted_after(n_records: int, records: list[Record]) -> Iterator[Record]:
    yield from records[:n_records]
    raise KeyboardInterrupt


def test_shards_are_merged_into_one_store(records: list[Record], tmp_path: Path) -> None:
    done: list[int] = []
    build_small(records, folder=tmp_path / "store", progress=done.append)
    plan = plan_of(records)
    expected, rejected, warnings = pack_store(list(plan.chunks()), plan)
    store = GraphStore.load(tmp_path / "store")
    assert (store.ids, store.columns) == (expected.ids, expected.columns)
    assert read_rejected(tmp_path / "store") == rejected
    assert len(rejected) == 9
    assert read_warnings(tmp_path / "store") == warnings
    assert [(note.id, note.code) for note in warnings] == [
        (records[number].id, "isolated_atoms") for number in (2, 20)
    ]
    assert sum(done) == 30
    for name in type(store.graphs).__slots__:
        np.testing.assert_array_equal(
            getattr(store.graphs, name), getattr(expected.graphs, name), err_msg=name
        )
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("n_records", [0, 3, 12, 17, 30])
def test_an_interrupted_build_resumes(
    records: list[Record], tmp_path: Path, n_records: int
) -> None:
    build_small(records, folder=tmp_path / "whole")
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        build_small(interrupted_after(n_records, records), folder=store)
    assert not store.exists()
    done: list[int] = []
    build_small(records, folder=store, progress=done.append)
    assert contents(store) == contents(tmp_path / "whole")
    n_kept = n_records // 8 * 8
    assert done[0] == n_kept or not n_kept
    assert sum(done) == 30
    assert not shards_folder(store).exists()


def test_a_half_written_shard_is_built_again(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, store = GraphStore.save, tmp_path / "store"

    def interrupted(self: GraphStore, folder: Path) -> None:
        save(self, folder)
        (folder / "meta.json").write_text("{")
        raise KeyboardInterrupt

    build_small(records, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(GraphStore, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_small(records, folder=store)
        assert not list(shards_folder(store).iterdir())
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed: nothing is cleaned up
        with pytest.raises(KeyboardInterrupt):
            build_small(records, folder=store)
    assert [path.suffix for path in shards_folder(store).iterdir()] == [".tmp"]
    build_small(records, folder=store)
    assert contents(store) == contents(tmp_path / "whole")


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda parts: shutil.rmtree(parts / "000000"),
        lambda parts: shorten(parts / "000000" / "distance.npy"),
        lambda parts: shorten(parts / "000001" / "rejected.json"),
        lambda parts: shorten(parts / "000001" / "warnings.json"),
        lambda parts: shorten(parts / "000002" / "meta.json"),
    ],
)
def test_damaged_shards_are_built_again(
    records: list[Record], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    build_small(records, folder=tmp_path / "whole")
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        build_small(interrupted_after(28, records), folder=store)
    damage(shards_folder(store))
    build_small(records, folder=store)
    assert contents(store) == contents(tmp_path / "whole")


def test_one_shard_keeps_its_warnings(records: list[Record], tmp_path: Path) -> None:
    build_small(records[:8], folder=tmp_path / "store")
    assert [note.id for note in read_warnings(tmp_path / "store")] == [records[2].id]


def test_large_crystals_make_small_shards(records: list[Record], tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        build_small(interrupted_after(30, records), folder=store, shard_size=ShardSize(n_bytes=1))
    shards = sorted(shards_folder(store).iterdir())
    n_graphs = [
        len(GraphStore.load(shard)) if (shard / "meta.json").exists() else 0 for shard in shards
    ]
    n_rejected = [len(read_rejected(shard)) for shard in shards]
    # Unusable records take no memory.
    assert n_graphs == [4, 3, 4, 4, 4]
    assert n_rejected == [0, 1, 8, 0, 0]


def test_repeated_ids_are_rejected_across_shards(records: list[Record], tmp_path: Path) -> None:
    again = [*records, Record(records[0].id, records[1].source, {}), Record(records[9].id, BAD, {})]  # type: ignore[arg-type]
    build_small(again, folder=tmp_path / "store")
    store = GraphStore.load(tmp_path / "store")
    assert store.ids.count(records[0].id) == 1
    reason = "the id occurs more than once: record {} repeats that of record {}"
    assert read_rejected(tmp_path / "store")[-2:] == [
        Rejected(records[0].id, reason.format(31, 1)),
        Rejected(records[9].id, reason.format(32, 10)),
    ]


def test_without_a_usable_record_no_folder_remains(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"set\.json: none of its 8 structures .* the first, {records[8].id}: "
    ):
        build_small(records[8:16], folder=tmp_path / "store")
    assert not list(tmp_path.iterdir())


def test_shards_survive_the_loss_of_a_worker(records: list[Record], tmp_path: Path) -> None:
    def lost(*_: object) -> Iterator[GraphChunk]:
        yield from plan_of(records[:8]).chunks()
        raise WorkerLostError("killed")

    with pytest.raises(WorkerLostError):
        build_small(records, folder=tmp_path / "store", builder=lost)
    done: list[int] = []
    build_small(records, folder=tmp_path / "store", progress=done.append)
    assert done[0] == 8


def test_rejected_records_are_read_back(tmp_path: Path) -> None:
    rejected = [["a", "why"], ["b", "because"]]
    (tmp_path / "rejected.json").write_text(json.dumps(rejected))
    assert read_rejected(tmp_path) == [Rejected(*entry) for entry in rejected]
