"""Build the graphs of records in parallel processes; collect rejected records and warnings."""

import gc
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import NamedTuple

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.checks import FormulaMismatch
from csgcnn.crystals.chunk_graphs import Building, ChunkGraphs, build_chunk
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.crystals.records import Record
from csgcnn.crystals.site_features.compute import best_device, use_one_thread
from csgcnn.crystals.site_features.potential import pinned, potential_of
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.errors import UserError
from csgcnn.hardware import cores

# Crystals per chunk: enough for vectorized work, few enough for the cache of a core.
CHUNK_SIZE = 256
# The same where site features are computed, which takes up to 0.1 s per crystal.
SITE_CHUNK_SIZE = 32
# Seconds of work in this process before worker processes start; starting them takes as long.
SERIAL_SECONDS = 2.0
# Chunks that wait for each worker, so that it has work while results are written to disk.
_QUEUED_CHUNKS = 8
# New objects between garbage collections, instead of 700. Structures are many small lists without
# reference cycles, which the garbage collector would search again and again.
_GC_THRESHOLD = 100_000
START_METHOD = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"


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
        warnings: Warnings about the structures of the usable records, in their order.
    """

    records: list[Record]
    graphs: CrystalGraphs | None
    rejected: list[Rejected]
    warnings: list[StructureNote]


def build_graphs(
    records: Iterable[Record],
    settings: GraphSettings,
    workers: int | None = None,
    chunk_size: int = CHUNK_SIZE,
    serial_seconds: float = SERIAL_SECONDS,
    formula_mismatch: FormulaMismatch = "refuse",
    site_cache: Path | None = None,
) -> Iterator[GraphChunk]:
    """Yield the graphs of records in chunks, in order; memory does not grow with their number.

    Args:
        records: The records; they are read as they are needed.
        settings: Cutoff, shells, compression and descriptors.
        workers: Number of processes; None: one per core that this process may use.
        chunk_size: Records per chunk.
        serial_seconds: Seconds of work in this process before the workers start.
        formula_mismatch: What happens to a crystal that differs from the formula in its file.
        site_cache: Folder of site features that are known; None: they are not stored.

    Raises:
        WorkerLostError: A worker process was killed.
    """
    how = Building(settings, formula_mismatch, site_cache)
    n_workers = workers or cores()
    if settings.site_features:
        chunk_size = min(chunk_size, SITE_CHUNK_SIZE)
        potentials = tuple(map(potential_of, pinned(settings.site_features)))
        how = how._replace(potentials=potentials, device=best_device())
        # A GPU is kept busy by one process.
        n_workers = n_workers if how.device == "cpu" else 1
    stream = iter(records)
    chunks = iter(lambda: list(islice(stream, chunk_size)), [])
    start = time.monotonic()
    for chunk in chunks:
        yield _graph_chunk(chunk, build_chunk([record.source for record in chunk], how))
        if n_workers > 1 and time.monotonic() - start > serial_seconds:
            yield from _in_parallel(chunks, how, n_workers)


def _in_parallel(
    chunks: Iterator[list[Record]], how: Building, n_workers: int
) -> Iterator[GraphChunk]:
    computes = bool(how.potentials)
    with (
        _rare_garbage_collection(),
        ProcessPoolExecutor(
            n_workers, get_context(START_METHOD), _start_worker, (computes,)
        ) as pool,
    ):
        queue: deque[tuple[list[Record], Future[ChunkGraphs]]] = deque()
        try:
            for chunk in chunks:
                sources = [record.source for record in chunk]
                queue.append((chunk, pool.submit(build_chunk, sources, how)))
                if len(queue) > _QUEUED_CHUNKS * n_workers:
                    yield _collect(*queue.popleft(), how)
            while queue:
                yield _collect(*queue.popleft(), how)
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "a graph-building process was killed, probably for lack of memory; "
                "try fewer processes (trainer.workers=1)"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker(computes_features: bool) -> None:
    gc.set_threshold(_GC_THRESHOLD)
    if computes_features:
        use_one_thread()


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _collect(records: list[Record], future: Future[ChunkGraphs], how: Building) -> GraphChunk:
    try:
        result = future.result()
    except RecursionError:
        # A source is nested too deeply to be sent to another process.
        result = build_chunk([record.source for record in records], how)
    return _graph_chunk(records, result)


def _graph_chunk(records: list[Record], result: ChunkGraphs) -> GraphChunk:
    rejected = [
        Rejected(records[position].id, reason) for position, reason in result.reasons.items()
    ]
    notes = [
        StructureNote(records[position].id, *note)
        for position in result.kept
        for note in result.notes[position]
    ]
    kept = (records[position] for position in result.kept)
    without_sources = [Record(record.id, None, record.columns) for record in kept]
    return GraphChunk(without_sources, result.graphs, rejected, notes)
