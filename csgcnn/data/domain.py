"""Domain of applicability: what occurs in the training rows, and what a crystal has beyond it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore

# A range of the training rows is widened at both ends by this fraction of its width.
MARGIN = 0.1
# Relative: 90.00001° and 90° are the same angle.
ROUNDING = 1e-5
# Crystals that are examined at once, which bounds memory.
CRYSTALS_AT_ONCE = 4096
VOLUME, NEAREST, COORDINATION = "volume_per_atom [Å3]", "nearest_neighbor [Å]", "coordination"
MEASURES = (VOLUME, NEAREST, COORDINATION)
# Codes of reasons, with their meaning.
MEANINGS = {
    "unseen_element": "elements that are not in the training set",
    "unseen_pair": "neighboring elements that are not neighbors in the training set",
    "isolated_atoms": "atoms without a neighbor within the cutoff, as in no training crystal",
    "volume_per_atom": "a volume per atom outside the training range",
    "nearest_neighbor": "a distance of nearest neighbors outside the training range",
    "coordination": "a number of neighbors outside the training range",
    "global_features": "global features outside the training range",
}

Bound = TypeVar("Bound", float, Tensor)
Pair = tuple[int, int]
Range = tuple[float, float]


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
        ranges: Lowest and highest value by name: the `MEASURES`, and the global features.
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
        elements, pairs = set[int](), set[Pair]()
        lows, highs, has_isolated = list[Tensor](), list[Tensor](), False
        for batch, measured in _batches(store, rows):
            elements.update(batch.atomic_number.unique().tolist())
            pairs.update(map(_pair, _pair_keys(batch).unique().tolist()))
            lows.append(measured.low.amin(0).cpu())
            highs.append(measured.high.amax(0).cpu())
            has_isolated |= bool(measured.n_isolated.any())
        names = _names(store.settings)
        low = torch.stack([torch.full((len(names),), torch.inf), *lows]).amin(0)
        high = torch.stack([torch.full((len(names),), -torch.inf), *highs]).amax(0)
        ranges = {
            name: (lowest, highest)
            for name, lowest, highest in zip(names, low.tolist(), high.tolist(), strict=True)
            # Infinite, if no atom has a neighbor.
            if lowest <= highest
        }
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
        names, found = _names(store.settings), list[list[str]]()
        for batch, measured in _batches(store, rows):
            of_batch: list[list[str]] = [[] for _ in range(batch.n_graphs)]
            for graph, reason in self._reasons(batch, measured, names):
                of_batch[graph].append(reason)
            found += of_batch
        return found

    def _reasons(
        self, batch: GraphBatch, measured: "_Measured", names: Sequence[str]
    ) -> Iterator[tuple[int, str]]:
        """Yield crystal and reason; those of a crystal in the order of `MEANINGS`."""
        for graph, z in self._unseen_elements(batch):
            yield graph, f"unseen_element:{SYMBOLS[z]}"
        if self.pairs is None:
            return
        for graph, (first, second) in self._unseen_pairs(batch, self.pairs):
            yield graph, f"unseen_pair:{SYMBOLS[first]}-{SYMBOLS[second]}"
        if not self.isolated_atoms:
            for graph in measured.n_isolated.nonzero().flatten().tolist():
                yield graph, f"isolated_atoms:{int(measured.n_isolated[graph])}"
        features: dict[int, list[str]] = {}
        for graph, name, value in self._out_of_range(measured, names):
            if name in MEASURES:
                yield graph, _range_reason(name, value, self.ranges[name])
            else:
                features.setdefault(graph, []).append(name)
        for graph, listed in features.items():
            yield graph, f"global_features:{', '.join(listed)}"

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

    def _out_of_range(
        self, measured: "_Measured", names: Sequence[str]
    ) -> Iterator[tuple[int, str, float]]:
        """Yield crystal, name and value of each quantity outside its range."""
        low, high = measured.low.cpu(), measured.high.cpu()
        for column, name in enumerate(names):
            if name not in self.ranges or name in names[:column]:
                continue
            lowest, highest = widened(*self.ranges[name])
            for values, is_outside in (
                (low[:, column], low[:, column] < lowest),
                (high[:, column], high[:, column] > highest),
            ):
                for graph in is_outside.nonzero().flatten().tolist():
                    yield graph, name, values[graph].item()


def unseen_elements(reasons: Iterable[str]) -> list[str]:
    """Return the symbols of the unseen elements among the reasons of a crystal."""
    return [
        detail
        for code, _, detail in (reason.partition(":") for reason in reasons)
        if code == "unseen_element"
    ]


class _Measured(NamedTuple):
    """Measured values of the crystals of a batch.

    Attributes:
        low, high: Lowest and highest value of each quantity over the atoms of a crystal
            [n_graphs, n_quantities]. Of distances and numbers of neighbors, isolated atoms have
            none, so that low may be infinite.
        n_isolated: Number of sites without neighbors [n_graphs].
    """

    low: Tensor
    high: Tensor
    n_isolated: Tensor


def _names(settings: GraphSettings) -> list[str]:
    """Return the names of the measured quantities, in the order of the columns of `_Measured`."""
    return [*MEASURES, *descriptor_names(settings.global_features)]


def _batches(store: GraphStore, rows: Tensor) -> Iterator[tuple[GraphBatch, _Measured]]:
    for part in rows.split(CRYSTALS_AT_ONCE):
        if not len(part):
            continue
        batch = store.batch(part)
        lattice = torch.from_numpy(store.graphs.lattice[part.numpy()])
        yield batch, _measure(batch, lattice.double().det().abs())


def _measure(batch: GraphBatch, volume: Tensor) -> _Measured:
    center, n_atoms = batch.edge_index[1], len(batch.atomic_number)
    nearest = batch.distance.new_full((n_atoms,), torch.inf)
    nearest.scatter_reduce_(0, center, batch.distance, "amin")
    n_neighbors = batch.distance.new_zeros(n_atoms).index_add(0, center, batch.edge_multiplicity)
    is_isolated = n_neighbors == 0
    n_isolated = torch.zeros_like(batch.n_sites).index_add(
        0, batch.graph_index, batch.atom_multiplicity * is_isolated
    )
    volume_per_atom = volume.to(batch.n_sites) / batch.n_sites

    def over_atoms(kind: str) -> Tensor:
        of_atoms = [
            _over_atoms(batch, values, is_isolated, kind) for values in (nearest, n_neighbors)
        ]
        measures = torch.stack([volume_per_atom, *of_atoms], dim=1)
        return torch.cat([measures, batch.global_features], dim=1)

    return _Measured(over_atoms("amin"), over_atoms("amax"), n_isolated)


def _over_atoms(batch: GraphBatch, values: Tensor, without: Tensor, kind: str) -> Tensor:
    """Return the lowest or highest value over the atoms of each crystal, some left out."""
    worst = torch.inf if kind == "amin" else -torch.inf
    result = values.new_full((batch.n_graphs,), worst)
    return result.scatter_reduce(0, batch.graph_index, values.masked_fill(without, worst), kind)


def _pair_keys(batch: GraphBatch) -> Tensor:
    """Return one number for the unordered pair of elements of each edge."""
    ends = batch.atomic_number[batch.edge_index]
    return ends.amin(0) * len(SYMBOLS) + ends.amax(0)


def _pair(key: int) -> Pair:
    return divmod(key, len(SYMBOLS))


def _range_reason(name: str, value: float, ends: Range) -> str:
    code, _, unit = name.removesuffix("]").partition(" [")
    low, high = (f"{end:.3g}" for end in ends)
    return f"{code}:{value:.4g}{' ' * bool(unit)}{unit} ({low} to {high})"
