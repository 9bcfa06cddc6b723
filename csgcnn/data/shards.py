"""Build a store of any size in bounded memory: shard by shard, each whole or not there, so that a kill costs one."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.datasets import check_unique
from csgcnn.crystals.graph_builder import (
    GraphChunk,
    Rejected,
    Warnings,
    WorkerLostError,
    build_graphs,
    merge_warnings,
)
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.crystals.records import Record
from csgcnn.data.store import GraphStore, merge_stores
from csgcnn.data.store_files import naming, write_pieces
from csgcnn.errors import UserError
from csgcnn.io import flush_files, whole_folder

SHARD = 2**14  # records, or
MOST_BYTES = 2**28  # of graphs
REJECTED, WARNINGS = "rejected.json", "warnings.json"

Progress = Callable[[int], None]  # takes the number of records just done


def build_store(
    records: Iterable[Record],
    settings: GraphSettings,
    folder: Path,
    source: Path,
    workers: int | None = None,
    progress: Progress = lambda _: None,
) -> Warnings:
    """Build the store `folder` of all records; where this was begun before, go on after the last complete shard.

    The shards lie in `parts_of` it until all are there. The records must be the same in the same order each time;
    `source` is where they come from, for messages. Returns what the parser mended.

    Raises:
        UserError: no record can be used, or ids are repeated.
        OSError: the disk is full, or cannot be written.
    """
    place = parts_of(folder)
    place.mkdir(parents=True, exist_ok=True)
    for left in (*place.glob("*.tmp"), *folder.parent.glob(f"{folder.name}.*.tmp")):
        shutil.rmtree(left)  # half-written by a process that was killed
    shards = _usable(place)
    n_done = sum(len(_ids(shard)) for shard in shards)
    if n_done:
        progress(n_done)
    try:
        for parts in _groups(
            build_graphs(islice(records, n_done, None), settings, workers), progress
        ):
            shards.append(place / f"{len(shards):06}")
            _write(parts, settings, shards[-1])
        _check_ids(shards, source)
        warned = merge_warnings(_json(shard / WARNINGS) for shard in shards)
        _merge(shards, folder, source)
    except UserError as error:
        if not isinstance(error, WorkerLostError):  # the same would happen again
            shutil.rmtree(place)
        raise
    shutil.rmtree(place)
    return warned


def parts_of(folder: Path) -> Path:
    """Where the shards of an unfinished store lie."""
    return folder.with_name(f"{folder.name}.parts")


def store_of(
    parts: Sequence[GraphChunk], settings: GraphSettings, source: Path
) -> tuple[GraphStore, list[Rejected]]:
    """One store, in memory, of what was built, and what was rejected.

    Raises:
        UserError: no record can be used.
    """
    rejected = [entry for part in parts for entry in part.rejected]
    records = [record for part in parts for record in part.records]
    if not records:
        raise _none_usable(source, rejected)
    names = dict.fromkeys(name for record in records for name in record.columns)
    columns = {name: [record.columns.get(name) for record in records] for name in names}
    graphs = CrystalGraphs.concatenate([part.graphs for part in parts if part.graphs is not None])
    return GraphStore(graphs, [record.id for record in records], columns, settings), rejected


def read_rejected(folder: Path) -> list[Rejected]:
    """The records that were rejected when the store in `folder`, or a shard, was built.

    Raises:
        ValueError: the file is missing or damaged.
    """
    with naming(folder / REJECTED) as path:
        rejected = _json(path)
        if not isinstance(rejected, list) or any(
            list(map(type, entry)) != [str, str] for entry in rejected
        ):
            raise ValueError("expected pairs of an id and a reason")
    return [Rejected(*entry) for entry in rejected]


def _groups(built: Iterable[GraphChunk], progress: Progress) -> Iterator[list[GraphChunk]]:
    """Chunks of built records, together enough for a shard."""
    group: list[GraphChunk] = []
    n_records = n_bytes = 0
    for part in built:
        group.append(part)
        n_records += len(part.records) + len(part.rejected)
        n_bytes += (
            sum(getattr(part.graphs, field.name).nbytes for field in fields(CrystalGraphs))
            if part.graphs
            else 0
        )
        progress(len(part.records) + len(part.rejected))
        if n_records >= SHARD or n_bytes >= MOST_BYTES:
            yield group
            group, n_records, n_bytes = [], 0, 0
    if group:
        yield group


def _write(parts: Sequence[GraphChunk], settings: GraphSettings, folder: Path) -> None:
    """Write a shard; without any usable record it is no store, but says why.

    One that is damaged as the power failed is known by its checksums, so nothing waits for the disk.
    """
    with whole_folder(folder, flush=False) as temporary:
        rejected = [entry for part in parts for entry in part.rejected]
        write_pieces(temporary / REJECTED, [json.dumps(rejected).encode()])
        write_pieces(
            temporary / WARNINGS,
            [json.dumps(merge_warnings(part.warnings for part in parts)).encode()],
        )
        if any(part.records for part in parts):
            store_of(parts, settings, folder)[0].save(temporary)


def _usable(place: Path) -> list[Path]:
    """The complete shards of an earlier building, in order; those from a damaged one on are removed."""
    found = sorted(place.iterdir())
    for number, shard in enumerate(found):
        try:
            if shard.name != f"{number:06}":
                raise ValueError(f"{shard} is not the next shard")
            read_rejected(shard)
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
    """Ids of all records of a shard, used or not."""
    ids = [entry.id for entry in read_rejected(shard)]
    if _has_graphs(shard):
        with open(shard / "rows.jsonl", encoding="utf-8") as rows:
            ids += [id_ for line in rows for id_ in json.loads(line)["ids"]]
    return ids


def _check_ids(shards: Sequence[Path], source: Path) -> None:
    """Refuse repeated ids; only a hash of each is held in memory."""
    hashes = np.concatenate(
        [np.array([hash(id_) for id_ in _ids(shard)], dtype=np.int64) for shard in shards]
    )
    values, counts = np.unique(hashes, return_counts=True)
    suspicious = set(values[counts > 1].tolist())
    if suspicious:
        count = Counter(id_ for shard in shards for id_ in _ids(shard) if hash(id_) in suspicious)
        check_unique(source, count)


def _merge(shards: Sequence[Path], folder: Path, source: Path) -> None:
    stores = list(filter(_has_graphs, shards))
    rejected = [entry for shard in shards for entry in read_rejected(shard)]
    if not stores:
        raise _none_usable(source, rejected)
    if len(shards) == 1:
        flush_files(shards[0])
        shards[0].rename(folder)
        return
    with whole_folder(folder) as temporary:
        write_pieces(temporary / REJECTED, [json.dumps(rejected).encode()])
        merge_stores(stores, temporary)


def _none_usable(source: Path, rejected: Sequence[Rejected]) -> UserError:
    first = f"{rejected[0].id}: {rejected[0].reason}"
    return UserError(
        f"{source}: none of its {len(rejected)} structures can be used; the first, {first}"
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
