"""Domain of applicability: what occurs in the training rows, and what a crystal has beyond it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from csgcnn.crystals.elements import SYMBOLS
from csgcnn.data.batch import GraphBatch
from csgcnn.data.embeddings import FAR
from csgcnn.data.measures import (
    SITE_MEASURES,
    VOLUME,
    Ends,
    Measured,
    Range,
    crystal_measures,
    measured_batches,
)
from csgcnn.data.store import GraphStore

# A range of the training rows is widened at both ends by this fraction of its width.
MARGIN = 0.1
# Relative: 90.00001° and 90° are the same angle.
ROUNDING = 1e-5
# The range of an element's atoms is also widened by this fraction of its ends, as some elements
# occur in one training row.
SITE_MARGIN = 0.05
# Codes of reasons, with their meaning.
MEANINGS = {
    "unseen_element": "elements that are not in the training set",
    "unseen_pair": "neighboring elements that are not neighbors in the training set",
    "isolated_atoms": "atoms without a neighbor within the cutoff, as in no training crystal",
    "volume_per_atom": "a volume per atom outside the training range",
    "global_features": "global features outside the training range",
    "nearest_neighbor": "a nearest neighbor at a distance unlike that of the element in training",
    "farthest_neighbor": "a last shell at a distance unlike that of the element in training",
    "coordination": "a number of neighbors unlike that of the element in training",
    FAR: "farther from the training crystals than 99 % of the validation crystals",
}

Bound = TypeVar("Bound", float, Tensor)
Pair = tuple[int, int]


def widened(low: Bound, high: Bound) -> tuple[Bound, Bound]:
    """Widen a range by 10 % of its width at both ends, and by the rounding of its values.

    Args:
        low: Lowest value, or several.
        high: Highest value, or several.
    """
    margin = MARGIN * (high - low) + ROUNDING * (1 + abs(low) + abs(high))
    return low - margin, high + margin


@dataclass(frozen=True, slots=True)
class Domain:
    """What occurs in the training rows of a model.

    Attributes:
        elements: Atomic numbers.
        pairs: Atomic numbers of neighbors in the graphs, the lower one first. None for a
            checkpoint that was written before domains were stored: only `elements` is known.
        ranges: Lowest and highest value by name: volume per atom, global features, and the
            `SITE_MEASURES` of each element, such as "coordination of Si".
        isolated_atoms: Whether atoms without a neighbor within the cutoff occur.
    """

    elements: frozenset[int]
    pairs: frozenset[Pair] | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    isolated_atoms: bool = True

    @property
    def is_known(self) -> bool:
        """Whether more than the elements is known."""
        return self.pairs is not None

    @classmethod
    def of(cls, store: GraphStore, rows: Tensor) -> "Domain":
        """Return the domain of a model that is trained on these rows.

        Args:
            store: Graphs.
            rows: Training rows [n_rows] int64, on the host.
        """
        pairs, names = set[Pair](), crystal_measures(store.settings)
        of_crystals = Ends.empty(1, len(names))
        of_sites = Ends.empty(len(SYMBOLS), len(SITE_MEASURES))
        elements, has_isolated = set[int](), False
        for batch, measured in measured_batches(store, rows):
            elements.update(batch.atomic_number.unique().tolist())
            pairs.update(map(_pair, _pair_keys(batch).unique().tolist()))
            of_crystals.add(measured.crystals, torch.zeros_like(batch.n_sites).long())
            has_neighbors = ~measured.is_isolated
            of_sites.add(measured.sites[has_neighbors], batch.atomic_number[has_neighbors])
            has_isolated |= bool(measured.is_isolated.any())
        ranges = {name: ends for name, ends in zip(names, of_crystals.of(0), strict=True) if ends}
        for z in sorted(elements):
            for measure, ends in zip(SITE_MEASURES, of_sites.of(z), strict=True):
                ranges |= {_site_name(measure, z): ends} if ends else {}
        return cls(frozenset(elements), frozenset(pairs), ranges, has_isolated)

    @classmethod
    def shared(cls, domains: Sequence["Domain"]) -> "Domain":
        """Return the domain of an ensemble: what occurs in the training rows of every member."""
        known = [domain.pairs for domain in domains if domain.pairs is not None]
        names = dict.fromkeys(name for domain in domains for name in domain.ranges)
        ends = {
            name: [domain.ranges[name] for domain in domains if name in domain.ranges]
            for name in names
        }
        return cls(
            frozenset.intersection(*(domain.elements for domain in domains)),
            frozenset.intersection(*known) if len(known) == len(domains) else None,
            {
                name: (max(low for low, _ in each), min(high for _, high in each))
                for name, each in ends.items()
            },
            all(domain.isolated_atoms for domain in domains),
        )

    @classmethod
    def from_plain(cls, elements: Collection[int], plain: Mapping[str, Any] | None) -> "Domain":
        """Return the domain that a checkpoint describes.

        Args:
            elements: Its field `elements`.
            plain: Its field `domain`, as `plain` returned it; None if there is none.
        """
        if plain is None:
            return cls(frozenset(elements))
        pairs = frozenset((first, second) for first, second in plain["pairs"])
        ranges = {name: (low, high) for name, (low, high) in plain["ranges"].items()}
        return cls(frozenset(elements), pairs, ranges, plain["isolated_atoms"])

    def plain(self) -> dict[str, Any]:
        """Return all but the elements as plain data, for a checkpoint."""
        return {
            "pairs": [list(pair) for pair in sorted(self.pairs or ())],
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "isolated_atoms": self.isolated_atoms,
        }

    def reasons(self, store: GraphStore, rows: Tensor) -> list[list[str]]:
        """Return why crystals are outside the domain; no reason: they are inside.

        A reason is a code of `MEANINGS` and a detail, such as `unseen_pair:H-Cs`.

        Args:
            store: Graphs with the settings of the model.
            rows: Rows [n_rows] int64, on the host.
        """
        names, found = crystal_measures(store.settings), list[list[str]]()
        for batch, measured in measured_batches(store, rows):
            of_batch: list[list[str]] = [[] for _ in range(batch.n_graphs)]
            for graph, reason in self._reasons(batch, measured, names):
                of_batch[graph].append(reason)
            found += of_batch
        return found

    def _reasons(
        self, batch: GraphBatch, measured: Measured, names: Sequence[str]
    ) -> Iterator[tuple[int, str]]:
        """Yield crystal and reason; those of a crystal in the order of `MEANINGS`."""
        for graph, z in self._unseen_elements(batch):
            yield graph, f"unseen_element:{SYMBOLS[z]}"
        if self.pairs is None:
            return
        for graph, (first, second) in self._unseen_pairs(batch, self.pairs):
            yield graph, f"unseen_pair:{SYMBOLS[first]}-{SYMBOLS[second]}"
        if not self.isolated_atoms:
            yield from _isolated_reasons(batch, measured)
        yield from self._crystal_reasons(measured, names)
        for column, measure in enumerate(SITE_MEASURES):
            yield from self._site_reasons(batch, measured, column, measure)

    def _unseen_elements(self, batch: GraphBatch) -> Iterator[Pair]:
        """Yield crystal and atomic number, sorted."""
        is_seen = torch.zeros(len(SYMBOLS), dtype=torch.bool)
        is_seen[list(self.elements)] = True
        unseen = ~is_seen.to(batch.atomic_number.device)[batch.atomic_number]
        keys = batch.graph_index[unseen] * len(SYMBOLS) + batch.atomic_number[unseen]
        return (divmod(key, len(SYMBOLS)) for key in keys.unique().tolist())

    def _unseen_pairs(
        self, batch: GraphBatch, pairs: Collection[Pair]
    ) -> Iterator[tuple[int, Pair]]:
        """Yield crystal and pair, sorted, without pairs of unseen elements."""
        n_pairs = len(SYMBOLS) ** 2
        elements = torch.tensor(sorted(self.elements), dtype=torch.long)
        is_unseen = torch.zeros(len(SYMBOLS), len(SYMBOLS), dtype=torch.bool)
        is_unseen[elements[:, None], elements] = True
        first, second = torch.tensor(sorted(pairs), dtype=torch.long).reshape(-1, 2).unbind(1)
        is_unseen[first, second] = False
        pair = _pair_keys(batch)
        unseen = is_unseen.flatten().to(pair.device)[pair]
        graph = batch.graph_index[batch.edge_index[1][unseen]]
        for key in (graph * n_pairs + pair[unseen]).unique().tolist():
            yield key // n_pairs, _pair(key % n_pairs)

    def _crystal_reasons(
        self, measured: Measured, names: Sequence[str]
    ) -> Iterator[tuple[int, str]]:
        values, features = measured.crystals.cpu(), dict[int, list[str]]()
        for column, name in enumerate(names):
            if name not in self.ranges or name in names[:column]:
                continue
            low, high = widened(*self.ranges[name])
            is_outside = (values[:, column] < low) | (values[:, column] > high)
            for graph in is_outside.nonzero().flatten().tolist():
                if name == VOLUME:
                    value = _with_range(name, values[graph, column].item(), self.ranges[name])
                    yield graph, f"volume_per_atom:{value}"
                else:
                    features.setdefault(graph, []).append(name)
        for graph, listed in features.items():
            yield graph, f"global_features:{', '.join(listed)}"

    def _site_reasons(
        self, batch: GraphBatch, measured: Measured, column: int, measure: str
    ) -> Iterator[tuple[int, str]]:
        """Yield crystal and reason, one for each element of a crystal."""
        unlimited = (-torch.inf, torch.inf)
        ranges = [self.ranges.get(_site_name(measure, z), unlimited) for z in range(len(SYMBOLS))]
        low, high = torch.tensor([_widened_of_site(*ends) for ends in ranges]).unbind(1)
        values, z = measured.sites[:, column].cpu(), batch.atomic_number.cpu()
        is_outside = ((values < low[z]) | (values > high[z])) & ~measured.is_isolated.cpu()
        atoms = is_outside.nonzero().flatten()
        graphs = batch.graph_index.cpu()[atoms]
        keys = graphs * len(SYMBOLS) + z[atoms]
        atom_of_key = dict(zip(keys.tolist(), atoms.tolist(), strict=True))
        for key, atom in sorted(atom_of_key.items()):
            graph, element = divmod(key, len(SYMBOLS))
            value = _with_range(measure, values[atom].item(), ranges[element])
            yield graph, f"{measure.partition(' ')[0]}:{SYMBOLS[element]} {value}"


def unseen_elements(reasons: Iterable[str]) -> list[str]:
    """Return the symbols of the unseen elements among the reasons of a crystal."""
    return [
        detail
        for code, _, detail in (reason.partition(":") for reason in reasons)
        if code == "unseen_element"
    ]


def _site_name(measure: str, z: int) -> str:
    name, bracket, unit = measure.partition(" [")
    return f"{name} of {SYMBOLS[z]}{bracket}{unit}"


def _widened_of_site(low: float, high: float) -> Range:
    low, high = widened(low, high)
    return low * (1 - SITE_MARGIN), high * (1 + SITE_MARGIN)


def _isolated_reasons(batch: GraphBatch, measured: Measured) -> Iterator[tuple[int, str]]:
    n_isolated = torch.zeros_like(batch.n_sites).index_add(
        0, batch.graph_index, batch.atom_multiplicity * measured.is_isolated
    )
    for graph in n_isolated.nonzero().flatten().tolist():
        yield graph, f"isolated_atoms:{int(n_isolated[graph])}"


def _pair_keys(batch: GraphBatch) -> Tensor:
    """Return one number for the unordered pair of elements of each edge."""
    ends = batch.atomic_number[batch.edge_index]
    return ends.amin(0) * len(SYMBOLS) + ends.amax(0)


def _pair(key: int) -> Pair:
    return divmod(key, len(SYMBOLS))


def _with_range(name: str, value: float, ends: Range) -> str:
    """Return a value with its unit and the training range: "67.3 Å3 (22.4 to 35)"."""
    unit = name.partition(" [")[2].removesuffix("]")
    low, high = (f"{end:.4g}" for end in ends)
    return f"{value:.4g}{' ' * bool(unit)}{unit} ({low} to {high})"
