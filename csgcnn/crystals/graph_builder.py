"""Build the graphs of records in parallel processes; collect rejected records and warnings."""

import gc
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.checks import FormulaMismatch, check_distances
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import (
    CrystalGraphs,
    NeighborList,
    find_neighbors,
    search_together,
    to_graphs,
)
from csgcnn.crystals.limits import groups_within
from csgcnn.crystals.prototypes import PROTOTYPE, prototype
from csgcnn.crystals.records import Record
from csgcnn.crystals.site_features.compute import (
    best_device,
    check_elements,
    site_features,
    use_one_thread,
)
from csgcnn.crystals.site_features.potential import Array, Potential, pinned, potential_of
from csgcnn.crystals.structure_warnings import StructureNote, StructureWarning, priority
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.workers import GC_THRESHOLD, map_in_processes, rare_garbage_collection
from csgcnn.errors import StructureError, UserError, one_line
from csgcnn.hardware import cores

# Crystals per chunk: enough for vectorized work, few enough for the cache of a core.
CHUNK_SIZE = 256
# The same where site features are computed, which takes up to 0.1 s per crystal.
SITE_CHUNK_SIZE = 32
# Seconds of work in this process before worker processes start; starting them takes as long.
SERIAL_SECONDS = 2.0
# Chunks that wait for each worker, so that it has work while results are written to disk.
_QUEUED_CHUNKS = 8
# Sites and pairs that are turned into graphs at once, which bounds memory.
_MAX_SITES_AT_ONCE, _MAX_PAIRS_AT_ONCE = 50_000, 5_000_000
# Warnings that are kept of each record, so that a file cannot fill the memory.
MAX_NOTES = 20
# What pymatgen reports although the structure is right.
_HARMLESS = (
    r"(Issues encountered.*: )?\d+ fractional coordinates rounded to ideal values.*$"
    r"|Skipping relative stoichiometry check"
)


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
        records: The usable records in order, without their sources, or with the crystals.
        graphs: Their graphs; None if no record is usable.
        rejected: The other records.
        warnings: Warnings about the structures of the usable records, in their order.
    """

    records: list[Record]
    graphs: CrystalGraphs | None
    rejected: list[Rejected]
    warnings: list[StructureNote]

    def __len__(self) -> int:
        return len(self.records) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """How the graphs of records are built.

    Attributes:
        settings: Cutoff, shells, compression and descriptors.
        workers: Number of processes; None: one per core that this process may use.
        formula_mismatch: What happens to a crystal that differs from the formula in its file.
        site_cache: Folder of site features that are known; None: they are not stored.
        chunk_size: Records per chunk.
        serial_seconds: Seconds of work in this process before the workers start.
        potentials: Those of the settings; a worker that receives one imports its plugin.
        device: Device that computes site features.
        prototypes: Whether the records get the column `prototype`, unless they have one.
        keep_crystals: Whether the source of each usable record becomes its crystal.
    """

    settings: GraphSettings
    workers: int | None = None
    formula_mismatch: FormulaMismatch = "refuse"
    site_cache: Path | None = None
    chunk_size: int = CHUNK_SIZE
    serial_seconds: float = SERIAL_SECONDS
    potentials: tuple[Potential, ...] = ()
    device: str = "cpu"
    prototypes: bool = False
    keep_crystals: bool = False


class _ReadRecord(NamedTuple):
    """A record with its crystal, or the error, and the warnings of reading it."""

    record: Record
    crystal: Crystal | Exception
    caught: list[warnings.WarningMessage]


class _Connected(NamedTuple):
    """A crystal of a chunk with its neighbors and the warnings about it."""

    record: Record
    crystal: Crystal
    neighbors: NeighborList
    notes: list[StructureNote]


def build_graphs(records: Iterable[Record], plan: GraphPlan) -> Iterator[GraphChunk]:
    """Yield the graphs of records in chunks, in order; memory does not grow with their number.

    Args:
        records: The records; they are read as they are needed.
        plan: How their graphs are built.

    Raises:
        WorkerLostError: A worker process was killed.
    """
    n_workers, chunk_size = plan.workers or cores(), plan.chunk_size
    if plan.settings.site_features:
        chunk_size = min(chunk_size, SITE_CHUNK_SIZE)
        potentials = tuple(map(potential_of, pinned(plan.settings.site_features)))
        plan = replace(plan, potentials=potentials, device=best_device())
        # A GPU is kept busy by one process.
        n_workers = n_workers if plan.device == "cpu" else 1
    stream = iter(records)
    chunks = iter(lambda: list(islice(stream, chunk_size)), [])
    start = time.monotonic()
    for chunk in chunks:
        yield _build_chunk(chunk, plan)
        if n_workers > 1 and time.monotonic() - start > plan.serial_seconds:
            with rare_garbage_collection():
                yield from map_in_processes(
                    partial(_build_chunk, plan=plan),
                    chunks,
                    n_workers,
                    _QUEUED_CHUNKS * n_workers,
                    WorkerLostError(
                        "a graph-building process was killed, probably for lack of memory; "
                        "try fewer processes (trainer.workers=1)"
                    ),
                    partial(_start_worker, bool(plan.potentials)),
                )


def _start_worker(computes_features: bool) -> None:
    gc.set_threshold(GC_THRESHOLD)
    if computes_features:
        use_one_thread()


def _build_chunk(records: Sequence[Record], plan: GraphPlan) -> GraphChunk:
    kept: list[Record] = []
    notes: list[list[StructureNote]] = []
    parts: list[CrystalGraphs] = []
    rejected: list[Rejected] = []
    bounds = (
        (lambda one: len(one.crystal.atomic_number), _MAX_SITES_AT_ONCE),
        (lambda one: len(one.neighbors.center), _MAX_PAIRS_AT_ONCE),
    )
    for group in groups_within(_read(records, plan, rejected), *bounds):
        usable, features = _with_features(group, plan, rejected)
        if usable:
            sources = [one.crystal if plan.keep_crystals else None for one in usable]
            kept += [
                Record(one.record.id, source, one.record.columns)
                for one, source in zip(usable, sources, strict=True)
            ]
            notes += [one.notes for one in usable]
            crystals, found = [one.crystal for one in usable], [one.neighbors for one in usable]
            parts.append(to_graphs(crystals, found, plan.settings, features))
    graphs = CrystalGraphs.concatenate(parts) if len(parts) > 1 else next(iter(parts), None)
    if graphs is not None:
        for row, message in _isolated_atoms(graphs, plan.settings.cutoff):
            notes[row].append(StructureNote(kept[row].id, "isolated_atoms", message))
    return GraphChunk(kept, graphs, rejected, list(chain.from_iterable(notes)))


def _read(
    records: Iterable[Record], plan: GraphPlan, rejected: list[Rejected]
) -> Iterator[_Connected]:
    """Yield the crystals that can be used, with warnings, and add the others to `rejected`."""
    sites = (lambda one: np.size(getattr(one.crystal, "atomic_number", ())), _MAX_SITES_AT_ONCE)
    n_caught = (lambda one: len(one.caught), _MAX_SITES_AT_ONCE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", _HARMLESS)
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        for part in groups_within(_crystals(records, plan, caught), sites, n_caught):
            crystals = [one.crystal for one in part if isinstance(one.crystal, Crystal)]
            pairs = search_together(crystals, plan.settings)
            for record, crystal, about in part:
                caught.clear()
                try:
                    if isinstance(crystal, Exception):
                        raise crystal
                    neighbors = find_neighbors(crystal, plan.settings, next(pairs))
                    check_distances(crystal, *neighbors[:3])
                    check_elements(crystal, plan.settings)
                    if plan.prototypes and PROTOTYPE not in record.columns:
                        columns = {PROTOTYPE: prototype(crystal), **record.columns}
                        record = replace(record, columns=columns)
                except Exception as error:
                    # An unforeseen error concerns this record only, not the whole run.
                    rejected.append(Rejected(record.id, _reason(error)))
                    continue
                notes = [StructureNote(record.id, *note) for note in _notes([*about, *caught])]
                yield _Connected(record, crystal, neighbors, notes)


def _crystals(
    records: Iterable[Record], plan: GraphPlan, caught: list[warnings.WarningMessage]
) -> Iterator[_ReadRecord]:
    """Yield the records with their crystals, or with the errors that reading them raised."""
    for record in records:
        caught.clear()
        crystal: Crystal | Exception
        try:
            crystal = to_crystal(record.source, plan.formula_mismatch)
        except Exception as error:
            crystal = error
        yield _ReadRecord(record, crystal, [*caught])


def _with_features(
    group: list[_Connected], plan: GraphPlan, rejected: list[Rejected]
) -> tuple[list[_Connected], list[Array]]:
    """Return the crystals whose site features are finite, with these features."""
    crystals = [one.crystal for one in group]
    features = site_features(crystals, plan.settings, plan.site_cache, plan.device)
    usable, kept = [], []
    for one, values in zip(group, features, strict=True):
        if np.isfinite(values).all():
            usable.append(one)
            kept.append(values)
        else:
            reason = "its site features are not finite; are atoms too close?"
            rejected.append(Rejected(one.record.id, reason))
    return usable, kept


def _isolated_atoms(graphs: CrystalGraphs, cutoff: float) -> Iterator[tuple[int, str]]:
    """Yield the crystals with atoms without neighbors, and a warning about each."""
    n_isolated, n_sites = graphs.n_isolated, graphs.n_sites
    for row in np.flatnonzero(n_isolated).tolist():
        atoms = f"{n_isolated[row]} of {n_sites[row]} atoms"
        yield row, f"{atoms} without a neighbor within {cutoff:g} Å"


def _notes(caught: Iterable[warnings.WarningMessage]) -> list[tuple[str, str]]:
    """Return code and message of the distinct warnings; of many, the most serious ones."""
    about = (one.message for one in caught if issubclass(one.category, UserWarning))
    notes = sorted(dict.fromkeys(map(_note, about)), key=lambda note: priority(note[0]))
    kept, more = notes[:MAX_NOTES], notes[MAX_NOTES:]
    return [*kept, (more[0][0], f"{len(more)} more warnings are not listed")] if more else kept


def _note(warning: Warning | str) -> tuple[str, str]:
    if isinstance(warning, StructureWarning):
        return warning.code, _printable(str(warning))
    return "parser", _printable(str(warning).strip().partition("\n")[0])


def _reason(error: Exception) -> str:
    is_expected = isinstance(error, StructureError)
    reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
    return _printable(reason, longest=1000)


def _printable(message: str, longest: int = 300) -> str:
    return one_line(message.encode(errors="backslashreplace").decode(), longest)
