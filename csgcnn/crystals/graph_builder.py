"""Build the graphs of records in parallel processes; collect rejected records and warnings."""

import gc
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_all_start_methods, get_context
from typing import NamedTuple

import numpy as np

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.checks import FormulaMismatch, check_distances
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import CrystalGraphs, NeighborList, find_neighbors, to_graphs
from csgcnn.crystals.records import Record
from csgcnn.crystals.structure_warnings import StructureNote, StructureWarning, priority
from csgcnn.crystals.structures import StructureSource, to_crystal
from csgcnn.errors import StructureError, UserError, one_line
from csgcnn.hardware import cores

# Crystals per chunk: enough for vectorized work, few enough for the cache of a core.
CHUNK_SIZE = 256
# Sites and pairs that are turned into graphs at once, which bounds memory.
_MAX_SITES_AT_ONCE, _MAX_PAIRS_AT_ONCE = 50_000, 5_000_000
# Warnings that are kept of each record, so that a file cannot fill the memory.
MAX_NOTES = 20
# What pymatgen reports although the structure is right.
_HARMLESS = (
    r"(Issues encountered.*: )?\d+ fractional coordinates rounded to ideal values.*$"
    r"|Skipping relative stoichiometry check"
)
# Seconds of work in this process before worker processes start; starting them takes as long.
SERIAL_SECONDS = 2.0
# Chunks that wait for each worker, so that it has work while results are written to disk.
_QUEUED_CHUNKS = 8
# New objects between garbage collections, instead of 700. Structures are many small lists without
# reference cycles, which the garbage collector would search again and again.
_GC_THRESHOLD = 100_000
START_METHOD = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"

# Code and message of a warning.
Note = tuple[str, str]


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


class _Result(NamedTuple):
    """Graphs of a chunk; records are named by their positions in it."""

    kept: list[int]
    graphs: CrystalGraphs | None
    reasons: dict[int, str]
    notes: dict[int, list[Note]]


def build_graphs(
    records: Iterable[Record],
    settings: GraphSettings,
    workers: int | None = None,
    chunk_size: int = CHUNK_SIZE,
    serial_seconds: float = SERIAL_SECONDS,
    formula_mismatch: FormulaMismatch = "refuse",
) -> Iterator[GraphChunk]:
    """Yield the graphs of records in chunks, in order; memory does not grow with their number.

    Args:
        records: The records; they are read as they are needed.
        settings: Cutoff, shells, compression and descriptors.
        workers: Number of processes; None: one per core that this process may use.
        chunk_size: Records per chunk.
        serial_seconds: Seconds of work in this process before the workers start.
        formula_mismatch: What happens to a crystal that differs from the formula in its file.

    Raises:
        WorkerLostError: A worker process was killed.
    """
    stream = iter(records)
    chunks = iter(lambda: list(islice(stream, chunk_size)), [])
    n_workers = workers or cores()
    start = time.monotonic()
    for chunk in chunks:
        sources = [record.source for record in chunk]
        yield _graph_chunk(chunk, _build(sources, settings, formula_mismatch))
        if n_workers > 1 and time.monotonic() - start > serial_seconds:
            yield from _build_in_parallel(chunks, settings, n_workers, formula_mismatch)


def _build_in_parallel(
    chunks: Iterator[list[Record]],
    settings: GraphSettings,
    n_workers: int,
    formula_mismatch: FormulaMismatch,
) -> Iterator[GraphChunk]:
    context, set_threshold = get_context(START_METHOD), gc.set_threshold
    with (
        _rare_garbage_collection(),
        ProcessPoolExecutor(n_workers, context, set_threshold, (_GC_THRESHOLD,)) as pool,
    ):
        queue: deque[tuple[list[Record], Future[_Result]]] = deque()
        how = (settings, formula_mismatch)
        try:
            for chunk in chunks:
                sources = [record.source for record in chunk]
                queue.append((chunk, pool.submit(_build, sources, *how)))
                if len(queue) > _QUEUED_CHUNKS * n_workers:
                    yield _collect(*queue.popleft(), *how)
            while queue:
                yield _collect(*queue.popleft(), *how)
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


def _collect(
    records: list[Record],
    future: Future[_Result],
    settings: GraphSettings,
    formula_mismatch: FormulaMismatch,
) -> GraphChunk:
    try:
        result = future.result()
    except RecursionError:
        # A source is nested too deeply to be sent to another process.
        result = _build([record.source for record in records], settings, formula_mismatch)
    return _graph_chunk(records, result)


def _build(
    sources: Sequence[StructureSource], settings: GraphSettings, formula_mismatch: FormulaMismatch
) -> _Result:
    """Return the graphs of usable sources with their warnings, and the reasons for the others."""
    kept: list[int] = []
    parts: list[CrystalGraphs] = []
    reasons: dict[int, str] = {}
    notes: dict[int, list[Note]] = {}
    crystals: list[Crystal] = []
    found: list[NeighborList] = []
    n_sites = n_pairs = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", _HARMLESS)
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        for position, source in enumerate(sources):
            caught.clear()
            try:
                crystal = to_crystal(source, formula_mismatch)
                neighbors = find_neighbors(crystal, settings)
                check_distances(crystal, *neighbors[:3])
            except Exception as error:
                # An unforeseen error concerns this record only, not the whole run.
                reasons[position] = _reason(error)
                continue
            notes[position] = _notes(caught)
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
    if graphs is not None:
        for row, note in _isolated_atoms(graphs, settings.cutoff):
            notes[kept[row]].append(note)
    return _Result(kept, graphs, reasons, notes)


def _isolated_atoms(graphs: CrystalGraphs, cutoff: float) -> Iterator[tuple[int, Note]]:
    """Yield the crystals with atoms without neighbors, and a warning about each."""
    n_isolated, n_sites = graphs.n_isolated, graphs.n_sites
    for row in np.flatnonzero(n_isolated).tolist():
        atoms = f"{n_isolated[row]} of {n_sites[row]} atoms"
        yield row, ("isolated_atoms", f"{atoms} without a neighbor within {cutoff:g} Å")


def _notes(caught: Iterable[warnings.WarningMessage]) -> list[Note]:
    """Return the distinct warnings about a structure; of many, the most serious ones."""
    about = (one.message for one in caught if issubclass(one.category, UserWarning))
    notes = sorted(dict.fromkeys(map(_note, about)), key=lambda note: priority(note[0]))
    kept, more = notes[:MAX_NOTES], notes[MAX_NOTES:]
    return [*kept, (more[0][0], f"{len(more)} more warnings are not listed")] if more else kept


def _note(warning: Warning | str) -> Note:
    if isinstance(warning, StructureWarning):
        return warning.code, _printable(str(warning))
    return "parser", _printable(str(warning).strip().partition("\n")[0])


def _reason(error: Exception) -> str:
    is_expected = isinstance(error, StructureError)
    reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
    return _printable(reason, longest=1000)


def _printable(message: str, longest: int = 300) -> str:
    return one_line(message.encode(errors="backslashreplace").decode(), longest)


def _graph_chunk(records: list[Record], result: _Result) -> GraphChunk:
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
