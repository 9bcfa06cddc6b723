"""Build the graphs of one chunk of structures; collect the reasons for rejections and warnings."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.checks import FormulaMismatch, check_distances
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import CrystalGraphs, NeighborList, find_neighbors, to_graphs
from csgcnn.crystals.site_features.compute import check_elements, site_features
from csgcnn.crystals.site_features.potential import Array, Potential
from csgcnn.crystals.structure_warnings import StructureWarning, priority
from csgcnn.crystals.structures import StructureSource, to_crystal
from csgcnn.errors import StructureError, one_line

# Sites and pairs that are turned into graphs at once, which bounds memory.
_MAX_SITES_AT_ONCE, _MAX_PAIRS_AT_ONCE = 50_000, 5_000_000
# Warnings that are kept of each record, so that a file cannot fill the memory.
MAX_NOTES = 20
# What pymatgen reports although the structure is right.
_HARMLESS = (
    r"(Issues encountered.*: )?\d+ fractional coordinates rounded to ideal values.*$"
    r"|Skipping relative stoichiometry check"
)

# Code and message of a warning.
Note = tuple[str, str]


class Building(NamedTuple):
    """What worker processes need to know beside the records.

    Attributes:
        settings: How the graphs are made.
        formula_mismatch: What happens to a crystal that differs from the formula in its file.
        site_cache: Folder of site features that are known.
        potentials: Those of the settings; a worker that receives one imports its plugin.
        device: Device that computes site features.
    """

    settings: GraphSettings
    formula_mismatch: FormulaMismatch
    site_cache: Path | None
    potentials: tuple[Potential, ...] = ()
    device: str = "cpu"


class _Connected(NamedTuple):
    """A crystal of a chunk with its neighbors."""

    position: int
    crystal: Crystal
    neighbors: NeighborList


class ChunkGraphs(NamedTuple):
    """Graphs of a chunk; records are named by their positions in it."""

    kept: list[int]
    graphs: CrystalGraphs | None
    reasons: dict[int, str]
    notes: dict[int, list[Note]]


def build_chunk(sources: Sequence[StructureSource], how: Building) -> ChunkGraphs:
    """Return the graphs of usable sources with their warnings, and the reasons for the others.

    Args:
        sources: The structures.
        how: How their graphs are made.
    """
    kept: list[int] = []
    parts: list[CrystalGraphs] = []
    reasons: dict[int, str] = {}
    notes: dict[int, list[Note]] = {}
    for group in _groups(_read(sources, how, reasons, notes)):
        usable, features = _with_features(group, how, reasons)
        if usable:
            positions, crystals, found = map(list, zip(*usable, strict=True))
            kept += positions
            parts.append(to_graphs(crystals, found, how.settings, features))
    graphs = CrystalGraphs.concatenate(parts) if len(parts) > 1 else next(iter(parts), None)
    if graphs is not None:
        for row, note in _isolated_atoms(graphs, how.settings.cutoff):
            notes[kept[row]].append(note)
    return ChunkGraphs(kept, graphs, reasons, notes)


def _read(
    sources: Sequence[StructureSource],
    how: Building,
    reasons: dict[int, str],
    notes: dict[int, list[Note]],
) -> Iterator[_Connected]:
    """Yield the crystals that can be used, and note warnings and reasons for the others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", _HARMLESS)
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        for position, source in enumerate(sources):
            caught.clear()
            try:
                crystal = to_crystal(source, how.formula_mismatch)
                neighbors = find_neighbors(crystal, how.settings)
                check_distances(crystal, *neighbors[:3])
                check_elements(crystal, how.settings)
            except Exception as error:
                # An unforeseen error concerns this record only, not the whole run.
                reasons[position] = _reason(error)
                continue
            notes[position] = _notes(caught)
            yield _Connected(position, crystal, neighbors)


def _groups(connected: Iterable[_Connected]) -> Iterator[list[_Connected]]:
    """Group crystals so that what is turned into graphs at once bounds memory."""
    group: list[_Connected] = []
    n_sites = n_pairs = 0
    for one in connected:
        n_sites += len(one.crystal.atomic_number)
        n_pairs += len(one.neighbors.center)
        if group and (n_sites > _MAX_SITES_AT_ONCE or n_pairs > _MAX_PAIRS_AT_ONCE):
            yield group
            group = []
            n_sites, n_pairs = len(one.crystal.atomic_number), len(one.neighbors.center)
        group.append(one)
    if group:
        yield group


def _with_features(
    group: list[_Connected], how: Building, reasons: dict[int, str]
) -> tuple[list[_Connected], list[Array]]:
    """Return the crystals whose site features are finite, with these features."""
    features = site_features(
        [one.crystal for one in group], how.settings, how.site_cache, how.device
    )
    usable, kept = [], []
    for one, values in zip(group, features, strict=True):
        if np.isfinite(values).all():
            usable.append(one)
            kept.append(values)
        else:
            reasons[one.position] = "its site features are not finite; are atoms too close?"
    return usable, kept


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
