"""Records in, graphs out, in parallel processes, with every rejected record named."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_all_start_methods, get_context
from typing import NamedTuple

from csgcnn.crystals.datasets import Record
from csgcnn.crystals.graphs import CrystalGraphs, GraphSettings, assemble, neighbors
from csgcnn.crystals.structures import StructureSource, to_crystal
from csgcnn.errors import StructureError, UserError

CHUNK = 256  # crystals per call: large enough for vectorised work, small enough for the cache of a core
PATIENCE = 2.0  # seconds of work in this process before others are started: starting them costs about as much
START = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"


class Rejected(NamedTuple):
    """A record that could not be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Built:
    """The graphs of a chunk of records: `records` are those kept, in order; `graphs` is None if none was."""

    records: list[Record]
    graphs: CrystalGraphs | None
    rejected: list[Rejected]


_Result = tuple[list[int], CrystalGraphs | None, dict[int, str]]  # positions kept, their graphs, reasons of the others


def build_graphs(records: Iterable[Record], settings: GraphSettings, workers: int | None = None) -> Iterator[Built]:
    """Build graphs chunk by chunk, in order; memory does not grow with the number of records.

    `workers`: processes; None means one per core that this process may use.

    Raises:
        UserError: a worker process was killed.
    """
    stream = iter(records)
    chunks = iter(lambda: list(islice(stream, CHUNK)), [])
    n_workers = workers or _usable_cores()
    start = time.monotonic()
    for chunk in chunks:
        yield _built(chunk, _build([record.source for record in chunk], settings))
        if n_workers > 1 and time.monotonic() - start > PATIENCE:
            yield from _build_in_parallel(chunks, settings, n_workers)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _build_in_parallel(chunks: Iterator[list[Record]], settings: GraphSettings, n_workers: int) -> Iterator[Built]:
    with ProcessPoolExecutor(n_workers, mp_context=get_context(START)) as pool:
        waiting: deque[tuple[list[Record], Future[_Result]]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(_build, [record.source for record in chunk], settings)))
                if len(waiting) > 2 * n_workers:
                    done, future = waiting.popleft()
                    yield _built(done, future.result())
            while waiting:
                done, future = waiting.popleft()
                yield _built(done, future.result())
        except BrokenProcessPool as error:
            raise UserError(
                "a graph-building process was killed, probably for want of memory; try fewer (trainer.workers=1)"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _build(sources: list[StructureSource], settings: GraphSettings) -> _Result:
    """Graphs of what can be used, with its positions, and the reason for each position that cannot."""
    kept, crystals, found, reasons = [], [], [], {}
    for position, source in enumerate(sources):
        try:
            crystal = to_crystal(source)
            found.append(neighbors(crystal, settings))
        except StructureError as error:
            reasons[position] = str(error)
        else:
            kept.append(position)
            crystals.append(crystal)
    return kept, assemble(crystals, found, settings) if crystals else None, reasons


def _built(records: list[Record], result: _Result) -> Built:
    kept, graphs, reasons = result
    rejected = [Rejected(records[position].id, reason) for position, reason in reasons.items()]
    return Built([records[position] for position in kept], graphs, rejected)
