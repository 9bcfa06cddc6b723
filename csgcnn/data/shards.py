"""Build a store of any size in bounded memory, shard by shard; an interrupted build resumes."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from csgcnn.crystals.datasets import mark_repeated
from csgcnn.crystals.graph_builder import (
    GraphChunk,
    GraphPlan,
    Rejected,
    WorkerLostError,
    build_graphs,
)
from csgcnn.crystals.graphs import LAYOUT, CrystalGraphs
from csgcnn.crystals.records import Record
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.data.store import GraphStore
from csgcnn.data.store_files import merge_stores, reading, write_pieces
from csgcnn.errors import UserError
from csgcnn.io import flush_files, read_json, whole_folder

REJECTED, WARNINGS = "rejected.json", "warnings.json"

# Builds chunks of graphs of records.
Builder = Callable[[Iterable[Record], GraphPlan], Iterable[GraphChunk]]


class ShardSize(NamedTuple):
    """When a shard is complete: at a number of records, or of bytes of graphs.

    Attributes:
        n_records: Number of records.
        n_bytes: Size of their graphs in memory.
    """

    n_records: int = 2**14
    n_bytes: int = 2**28


SHARD_SIZE = ShardSize()


class OpenedDataset(NamedTuple):
    """The graphs of a data set, and what is known of its records.

    Attributes:
        store: The graphs of the usable records.
        rejected: The other records.
        warnings: Warnings about the structures of the usable records.
    """

    store: GraphStore
    rejected: list[Rejected]
    warnings: list[StructureNote]


@dataclass(frozen=True, slots=True)
class StorePlan:
    """What a store is built from, and how.

    Attributes:
        records: Returns the records, each time the same in the same order. Those that repeat an id
            are rejected.
        source: Path of the data, for messages.
        graphs: How the graphs are made.
        progress: Called with the number of records that were just finished.
        builder: Builds the graphs.
        shard_size: When a shard is complete.
    """

    records: Callable[[], Iterable[Record]]
    source: Path
    graphs: GraphPlan
    progress: Callable[[int], object] = lambda _: None
    builder: Builder = build_graphs
    shard_size: ShardSize = SHARD_SIZE

    def chunks(self, n_done: int = 0) -> Iterator[GraphChunk]:
        """Yield the graphs of the records behind the first ones, and report the progress."""
        records = islice(mark_repeated(self.records()), n_done, None)
        for chunk in self.builder(records, self.graphs):
            self.progress(len(chunk))
            yield chunk


def build_store(plan: StorePlan, folder: Path) -> None:
    """Build a store of all records, and resume after the last complete shard of an earlier call.

    The shards are kept in `shards_folder(folder)` until the last one is complete.

    Args:
        plan: What to build, and how.
        folder: The store to make.

    Raises:
        UserError: No record can be used.
        OSError: The disk is full, or the folder cannot be written.
    """
    parent = shards_folder(folder)
    parent.mkdir(parents=True, exist_ok=True)
    # Folders that a killed process has not finished.
    for unfinished in (*parent.glob("*.tmp"), *folder.parent.glob(f"{folder.name}.*.tmp")):
        shutil.rmtree(unfinished)
    shards = _complete_shards(parent)
    n_done = sum(len(_ids(shard)) for shard in shards)
    if n_done:
        plan.progress(n_done)
    try:
        for group in _groups(plan.chunks(n_done), plan.shard_size):
            shards.append(parent / f"{len(shards):06}")
            _write_shard(group, plan, shards[-1])
        _merge(shards, folder, plan.source)
    except UserError as error:
        # Any other error would occur again with the same shards.
        if not isinstance(error, WorkerLostError):
            shutil.rmtree(parent)
        raise
    shutil.rmtree(parent)


def shards_folder(folder: Path) -> Path:
    """Return the folder of the shards of an unfinished store."""
    return folder.with_name(f"{folder.name}.parts")


def pack_store(chunks: Sequence[GraphChunk], plan: StorePlan) -> OpenedDataset:
    """Pack chunks of graphs into a store in memory.

    Args:
        chunks: The graphs.
        plan: How they were made.

    Raises:
        UserError: No record can be used.
    """
    rejected = [entry for chunk in chunks for entry in chunk.rejected]
    records = [record for chunk in chunks for record in chunk.records]
    if not records:
        raise _none_usable(plan.source, rejected)
    names = dict.fromkeys(name for record in records for name in record.columns)
    columns = {name: [record.columns.get(name) for record in records] for name in names}
    parts = [chunk.graphs for chunk in chunks if chunk.graphs is not None]
    graphs = CrystalGraphs.concatenate(parts)
    store = GraphStore(graphs, [record.id for record in records], columns, plan.graphs.settings)
    return OpenedDataset(store, rejected, [note for chunk in chunks for note in chunk.warnings])


def read_rejected(folder: Path) -> list[Rejected]:
    """Read the records that were rejected when a store or a shard was built.

    Args:
        folder: Folder of the store.

    Raises:
        ValueError: The file is missing or damaged.
    """
    return [Rejected(*entry) for entry in _read_rows(folder / REJECTED, Rejected._fields)]


def read_warnings(folder: Path) -> list[StructureNote]:
    """Read the warnings about the structures of a store or a shard.

    Args:
        folder: Folder of the store.

    Raises:
        ValueError: The file is missing or damaged.
    """
    rows = _read_rows(folder / WARNINGS, StructureNote._fields)
    return [StructureNote(*entry) for entry in rows]


def _groups(chunks: Iterable[GraphChunk], size: ShardSize) -> Iterator[list[GraphChunk]]:
    """Group chunks into shards."""
    group: list[GraphChunk] = []
    n_records = n_bytes = 0
    for chunk in chunks:
        group.append(chunk)
        n_records += len(chunk)
        n_bytes += _n_bytes(chunk.graphs)
        if n_records >= size.n_records or n_bytes >= size.n_bytes:
            yield group
            group, n_records, n_bytes = [], 0, 0
    if group:
        yield group


def _n_bytes(graphs: CrystalGraphs | None) -> int:
    if graphs is None:
        return 0
    return sum(getattr(graphs, name).nbytes for name in LAYOUT)


def _write_shard(chunks: Sequence[GraphChunk], plan: StorePlan, folder: Path) -> None:
    """Write a shard; without a usable record it contains rejected records and warnings only.

    Nothing is flushed to the disk: after a power failure, the checksums show which shards are
    damaged.
    """
    with whole_folder(folder, flush=False) as temporary:
        rejected = [entry for chunk in chunks for entry in chunk.rejected]
        _write_rows(temporary / REJECTED, rejected)
        _write_rows(temporary / WARNINGS, [note for chunk in chunks for note in chunk.warnings])
        if any(chunk.records for chunk in chunks):
            pack_store(chunks, plan).store.save(temporary)


def _complete_shards(parent: Path) -> list[Path]:
    """Return the complete shards in order; the first damaged one and those after it are removed."""
    found = sorted(parent.iterdir())
    for number, shard in enumerate(found):
        try:
            if shard.name != f"{number:06}":
                raise ValueError(f"{shard} is not the next shard")
            read_rejected(shard)
            read_warnings(shard)
            if _has_graphs(shard):
                GraphStore.load(shard)
        except ValueError:
            for useless in found[number:]:
                shutil.rmtree(useless)
            return found[:number]
    return found


def _has_graphs(shard: Path) -> bool:
    return (shard / "meta.json").exists()


def _ids(shard: Path) -> list[str]:
    """Return the ids of all records of a shard, usable or not."""
    ids = [entry.id for entry in read_rejected(shard)]
    if _has_graphs(shard):
        with open(shard / "rows.jsonl", encoding="utf-8") as rows:
            ids += [id_ for line in rows for id_ in json.loads(line)["ids"]]
    return ids


def _merge(shards: Sequence[Path], folder: Path, source: Path) -> None:
    stores = list(filter(_has_graphs, shards))
    rejected = [entry for shard in shards for entry in read_rejected(shard)]
    if not stores:
        raise _none_usable(source, rejected)
    if len(shards) == 1:
        flush_files(shards[0])
        try:
            shards[0].rename(folder)
        except OSError:
            # Where locks do not work, another process may have finished first.
            if not folder.exists():
                raise
        return
    with whole_folder(folder) as temporary:
        _write_rows(temporary / REJECTED, rejected)
        found = [note for shard in shards for note in read_warnings(shard)]
        _write_rows(temporary / WARNINGS, found)
        merge_stores(stores, temporary)


def _none_usable(source: Path, rejected: Sequence[Rejected]) -> UserError:
    first = f"{rejected[0].id}: {rejected[0].reason}"
    return UserError(
        f"{source}: none of its {len(rejected)} structures can be used; the first, {first}"
    )


def _read_rows(path: Path, fields: Sequence[str]) -> list[list[str]]:
    with reading(path):
        rows = read_json(path)
        expected = [str] * len(fields)
        if not isinstance(rows, list) or any(list(map(type, row)) != expected for row in rows):
            raise ValueError(f"expected a list of [{', '.join(fields)}]")
    return rows


def _write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    write_pieces(path, [json.dumps(rows).encode()])
