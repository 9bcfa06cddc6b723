"""Records in, graphs out, in parallel processes, with every rejected record named."""

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
from csgcnn.crystals.crystal import Crystal, StructureSource, to_crystal
from csgcnn.crystals.graphs import CrystalGraphs, NeighborList, measure, to_graphs
from csgcnn.crystals.records import Record
from csgcnn.errors import StructureError, UserError, one_line
from csgcnn.hardware import cores

CHUNK = (
    256  # crystals per call: large enough for vectorised work, small enough for the cache of a core
)
MOST_SITES, MOST_PAIRS = 50_000, 5_000_000  # assembled at once, so that memory stays bounded
MOST_KINDS = 100  # of warnings that are told apart
PATIENCE = 2.0  # seconds of work in this process before others are started: starting them costs about as much
AHEAD = (
    8  # chunks that wait for each process, so that it has work while others are written to the disk
)
RARELY = 100_000  # new objects, instead of 700, after which Python looks for garbage that refers to itself
START = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"

Warnings = dict[
    str, tuple[int, str]
]  # kind of warning -> number of records that it concerns, id of the first


class WorkerLostError(UserError):
    """A process that built graphs was killed."""


class Rejected(NamedTuple):
    """A record that could not be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class GraphChunk:
    """The graphs of a chunk of records: `records` are those kept, in order, without their sources.

    `graphs` is None if none was kept. `warnings`: what the parser mended in the records kept.
    """

    records: list[Record]
    graphs: CrystalGraphs | None
    rejected: list[Rejected]
    warnings: Warnings


class _Result(NamedTuple):
    kept: list[int]  # positions
    graphs: CrystalGraphs | None
    reasons: dict[int, str]  # of the other positions
    warned: dict[str, list[int]]  # kind of warning -> positions


def build_graphs(
    records: Iterable[Record], settings: GraphSettings, workers: int | None = None
) -> Iterator[GraphChunk]:
    """Build graphs chunk by chunk, in order; memory does not grow with the number of records.

    `workers`: processes; None means one per core that this process may use.

    Raises:
        WorkerLostError: a worker process was killed.
    """
    stream = iter(records)
    chunks = iter(lambda: list(islice(stream, CHUNK)), [])
    n_workers = workers or cores()
    start = time.monotonic()
    for chunk in chunks:
        yield _built(chunk, _build([record.source for record in chunk], settings))
        if n_workers > 1 and time.monotonic() - start > PATIENCE:
            yield from _build_in_parallel(chunks, settings, n_workers)


def merge_warnings(parts: Iterable[Warnings]) -> Warnings:
    """The warnings of several chunks together."""
    merged: Warnings = {}
    for part in parts:
        for kind, (n_records, first) in part.items():
            kind = _told_apart(kind, merged)
            n_before, earlier = merged.get(kind, (0, first))
            merged[kind] = (n_before + n_records, earlier)
    return merged


def warning_lines(warned: Warnings, most: int = 5) -> list[str]:
    """A line per kind of warning, the most frequent first."""
    ranked = sorted(warned.items(), key=lambda item: -item[1][0])
    lines = [
        f"{n_records} structures: {kind} (first in {first})"
        for kind, (n_records, first) in ranked[:most]
    ]
    return lines + [f"and {len(ranked) - most} other kinds of warnings"] * (len(ranked) > most)


def _build_in_parallel(
    chunks: Iterator[list[Record]], settings: GraphSettings, n_workers: int
) -> Iterator[GraphChunk]:
    with (
        _collecting_rarely(),
        ProcessPoolExecutor(n_workers, get_context(START), gc.set_threshold, (RARELY,)) as pool,
    ):
        waiting: deque[tuple[list[Record], Future[_Result]]] = deque()
        try:
            for chunk in chunks:
                waiting.append(
                    (chunk, pool.submit(_build, [record.source for record in chunk], settings))
                )
                if len(waiting) > AHEAD * n_workers:
                    yield _finished(*waiting.popleft(), settings)
            while waiting:
                yield _finished(*waiting.popleft(), settings)
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "a graph-building process was killed, probably for want of memory; try fewer (trainer.workers=1)"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Have garbage looked for less often: structures are many small lists, of which none refers to itself."""
    before = gc.get_threshold()
    gc.set_threshold(RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _finished(
    records: list[Record], future: Future[_Result], settings: GraphSettings
) -> GraphChunk:
    try:
        result = future.result()
    except RecursionError:  # a source nested too deeply to be sent to another process
        result = _build([record.source for record in records], settings)
    return _built(records, result)


def _build(sources: list[StructureSource], settings: GraphSettings) -> _Result:
    """Graphs of what can be used, and the reason for each position that cannot; warnings are counted, not shown."""
    kept: list[int] = []
    parts: list[CrystalGraphs] = []
    reasons: dict[int, str] = {}
    warned: dict[str, list[int]] = {}
    crystals: list[Crystal] = []
    found: list[NeighborList] = []
    n_sites = n_pairs = 0
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        for position, source in enumerate(sources):
            heard.clear()
            try:
                crystal = to_crystal(source)
                measured = measure(crystal, settings)
            except Exception as error:  # a fault that no one foresaw costs this record, not the run
                reason = (
                    str(error)
                    if isinstance(error, StructureError)
                    else f"{type(error).__name__}: {error}"
                )
                reasons[position] = one_line(
                    reason.encode(errors="backslashreplace").decode(), longest=1000
                )
                continue
            for kind in {_kind(warning.message) for warning in heard}:
                warned.setdefault(_told_apart(kind, warned), []).append(position)
            n_sites, n_pairs = n_sites + len(crystal.atomic_number), n_pairs + len(measured.center)
            if crystals and (n_sites > MOST_SITES or n_pairs > MOST_PAIRS):
                parts.append(to_graphs(crystals, found, settings))
                crystals, found = [], []
                n_sites, n_pairs = len(crystal.atomic_number), len(measured.center)
            kept.append(position)
            crystals.append(crystal)
            found.append(measured)
    if crystals:
        parts.append(to_graphs(crystals, found, settings))
    graphs = CrystalGraphs.concatenate(parts) if len(parts) > 1 else next(iter(parts), None)
    return _Result(kept, graphs, reasons, warned)


def _kind(warning: Warning | str) -> str:
    """A warning without what differs from record to record: its first line, digits as #."""
    return re.sub(r"\d+(\.\d+)?", "#", one_line(str(warning).strip().partition("\n")[0]))[:120]


def _told_apart(kind: str, kinds: Collection[str]) -> str:
    return kind if kind in kinds or len(kinds) < MOST_KINDS else "other warnings"


def _built(records: list[Record], result: _Result) -> GraphChunk:
    rejected = [
        Rejected(records[position].id, reason) for position, reason in result.reasons.items()
    ]
    warned = {
        kind: (len(positions), records[positions[0]].id)
        for kind, positions in result.warned.items()
    }
    kept = (records[position] for position in result.kept)
    return GraphChunk(
        [Record(record.id, None, record.columns) for record in kept],
        result.graphs,
        rejected,
        warned,
    )
