"""Build the graphs of records in parallel processes; collect rejected records and warnings."""

import gc
import re
import time
import warnings
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_all_start_methods, get_context
from typing import NamedTuple

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import CrystalGraphs, NeighborList, find_neighbors, to_graphs
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import StructureSource, to_crystal
from csgcnn.errors import StructureError, UserError, one_line
from csgcnn.hardware import cores

# Crystals per chunk: enough for vectorized work, few enough for the cache of a core.
CHUNK_SIZE = 256
# Sites and pairs that are turned into graphs at once, which bounds memory.
_MAX_SITES_AT_ONCE, _MAX_PAIRS_AT_ONCE = 50_000, 5_000_000
MAX_WARNING_KINDS = 100
_OTHER_WARNINGS = "other warnings"
# Seconds of work in this process before worker processes start; starting them takes as long.
SERIAL_SECONDS = 2.0
# Chunks that wait for each worker, so that it has work while results are written to disk.
_QUEUED_CHUNKS = 8
# New objects between garbage collections, instead of 700. Structures are many small lists without
# reference cycles, which the garbage collector would search again and again.
_GC_THRESHOLD = 100_000
START_METHOD = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"

# Number of records and first id, by kind of warning.
Warnings = dict[str, tuple[int, str]]


class WorkerLostError(UserError):
    """A worker process that built graphs was killed."""


class Rejected(NamedTuple):
    """An unusable record and the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class GraphChunk:
    """Graphs of consecutive records.

    Attributes:
        records: The usable records in order, without their sources.
        graphs: Their graphs; None if no record is usable.
        rejected: The other records.
        warnings: What the parser corrected in the usable records.
    """

    records: list[Record]
    graphs: CrystalGraphs | None
    rejected: list[Rejected]
    warnings: Warnings


class _Result(NamedTuple):
    """Graphs of a chunk; records are named by their positions in it."""

    kept: list[int]
    graphs: CrystalGraphs | None
    reasons: dict[int, str]
    warned: dict[str, list[int]]


def build_graphs(
    records: Iterable[Record],
    settings: GraphSettings,
    workers: int | None = None,
    chunk_size: int = CHUNK_SIZE,
    serial_seconds: float = SERIAL_SECONDS,
) -> Iterator[GraphChunk]:
    """Yield the graphs of records in chunks, in order; memory does not grow with their number.

    Args:
        records: The records; they are read as they are needed.
        settings: Cutoff, shells, compression and descriptors.
        workers: Number of processes; None: one per core that this process may use.
        chunk_size: Records per chunk.
        serial_seconds: Seconds of work in this process before the workers start.

    Raises:
        WorkerLostError: A worker process was killed.
    """
    stream = iter(records)
    chunks = iter(lambda: list(islice(stream, chunk_size)), [])
    n_workers = workers or cores()
    start = time.monotonic()
    for chunk in chunks:
        yield _graph_chunk(chunk, _build([record.source for record in chunk], settings))
        if n_workers > 1 and time.monotonic() - start > serial_seconds:
            yield from _build_in_parallel(chunks, settings, n_workers)


def merge_warnings(parts: Iterable[Warnings], max_kinds: int = MAX_WARNING_KINDS) -> Warnings:
    """Merge the warnings of several chunks.

    Args:
        parts: Warnings of each chunk, in order.
        max_kinds: Number of kinds that are listed separately.
    """
    merged: Warnings = {}
    for part in parts:
        for kind, (n_records, first) in part.items():
            listed = _listed_kind(kind, merged, max_kinds)
            n_before, earlier = merged.get(listed, (0, first))
            merged[listed] = (n_before + n_records, earlier)
    return merged


def warning_lines(warned: Warnings, max_lines: int = 5) -> list[str]:
    """Return one line per kind of warning, the most frequent first.

    Args:
        warned: The warnings.
        max_lines: Number of kinds that get a line; one more line counts the others.
    """
    ranked = sorted(warned.items(), key=lambda item: -item[1][0])
    lines = [
        f"{n_records} {'structure' if n_records == 1 else 'structures'}: {kind} (first in {first})"
        for kind, (n_records, first) in ranked[:max_lines]
    ]
    if len(ranked) > max_lines:
        lines.append(f"and {len(ranked) - max_lines} other kinds of warnings")
    return lines


def _build_in_parallel(
    chunks: Iterator[list[Record]], settings: GraphSettings, n_workers: int
) -> Iterator[GraphChunk]:
    context, set_threshold = get_context(START_METHOD), gc.set_threshold
    with (
        _rare_garbage_collection(),
        ProcessPoolExecutor(n_workers, context, set_threshold, (_GC_THRESHOLD,)) as pool,
    ):
        queue: deque[tuple[list[Record], Future[_Result]]] = deque()
        try:
            for chunk in chunks:
                sources = [record.source for record in chunk]
                queue.append((chunk, pool.submit(_build, sources, settings)))
                if len(queue) > _QUEUED_CHUNKS * n_workers:
                    yield _collect(*queue.popleft(), settings)
            while queue:
                yield _collect(*queue.popleft(), settings)
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "a graph-building process was killed, probably for lack of memory; "
                "try fewer processes (trainer.workers=1)"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _collect(records: list[Record], future: Future[_Result], settings: GraphSettings) -> GraphChunk:
    try:
        result = future.result()
    except RecursionError:
        # A source is nested too deeply to be sent to another process.
        result = _build([record.source for record in records], settings)
    return _graph_chunk(records, result)


def _build(sources: list[StructureSource], settings: GraphSettings) -> _Result:
    """Return the graphs of usable sources and the reasons for the others; count warnings."""
    kept: list[int] = []
    parts: list[CrystalGraphs] = []
    reasons: dict[int, str] = {}
    warned: dict[str, list[int]] = {}
    crystals: list[Crystal] = []
    found: list[NeighborList] = []
    n_sites = n_pairs = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for position, source in enumerate(sources):
            caught.clear()
            try:
                crystal = to_crystal(source)
                neighbors = find_neighbors(crystal, settings)
            except Exception as error:
                # An unforeseen error concerns this record only, not the whole run.
                reasons[position] = _reason(error)
                continue
            for kind in {_kind(warning.message) for warning in caught}:
                listed = _listed_kind(kind, warned, MAX_WARNING_KINDS)
                warned.setdefault(listed, []).append(position)
            n_sites += len(crystal.atomic_number)
            n_pairs += len(neighbors.center)
            if crystals and (n_sites > _MAX_SITES_AT_ONCE or n_pairs > _MAX_PAIRS_AT_ONCE):
                parts.append(to_graphs(crystals, found, settings))
                crystals, found = [], []
                n_sites, n_pairs = len(crystal.atomic_number), len(neighbors.center)
            kept.append(position)
            crystals.append(crystal)
            found.append(neighbors)
    if crystals:
        parts.append(to_graphs(crystals, found, settings))
    graphs = CrystalGraphs.concatenate(parts) if len(parts) > 1 else next(iter(parts), None)
    return _Result(kept, graphs, reasons, warned)


def _reason(error: Exception) -> str:
    is_expected = isinstance(error, StructureError)
    reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
    return one_line(reason.encode(errors="backslashreplace").decode(), longest=1000)


def _kind(warning: Warning | str) -> str:
    """Return what a warning has in common for all records: its first line with digits as #."""
    return re.sub(r"\d+(\.\d+)?", "#", one_line(str(warning).strip().partition("\n")[0]))[:120]


def _listed_kind(kind: str, listed: Collection[str], max_kinds: int) -> str:
    return kind if kind in listed or len(listed) < max_kinds else _OTHER_WARNINGS


def _graph_chunk(records: list[Record], result: _Result) -> GraphChunk:
    rejected = [
        Rejected(records[position].id, reason) for position, reason in result.reasons.items()
    ]
    warned = {
        kind: (len(positions), records[positions[0]].id)
        for kind, positions in result.warned.items()
    }
    kept = (records[position] for position in result.kept)
    without_sources = [Record(record.id, None, record.columns) for record in kept]
    return GraphChunk(without_sources, result.graphs, rejected, warned)
