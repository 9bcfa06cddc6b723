"""What to check in a data set: outliers, duplicates, and contradicting labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.data.composition_model import fit_ridge
from csgcnn.data.compositions import compositions
from csgcnn.data.dataset import Dataset
from csgcnn.data.duplicates import group_duplicates
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target

# Robust standard deviations beyond which a value is an outlier.
OUTLIER = 5.0
# Rows that a fit to compositions needs, and rows that it uses at most.
MIN_ROWS, MAX_ROWS = 50, 100_000
# Similar crystals: relative differences of the volume per atom and of sums over neighbors.
SIMILAR_VOLUME, SIMILAR_GEOMETRY = 0.02, 0.01
# Å: lengths over which the sums over the neighbors decay.
DECAYS = (2.0, 3.0, 4.0, 5.0)
# Crystals of one composition, in the order of their volumes, to which each is compared.
N_COMPARED = 10

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Outlier:
    """A value far from where it is expected.

    Attributes:
        id: Id of the record.
        value: The value.
        expected: Median of all values, or the value that the composition suggests.
        z: Difference in robust standard deviations.
    """

    id: str
    value: float
    expected: float
    z: float


@dataclass(frozen=True, slots=True)
class CompositionFit:
    """How well compositions alone predict a target, each row from all others.

    Attributes:
        n: Number of rows.
        mae: Mean absolute error.
        r2: Explained fraction of the variance.
        outliers: Rows with the largest errors, the largest first.
    """

    n: int
    mae: float
    r2: float
    outliers: list[Outlier]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two equal or similar crystals with different labels.

    Attributes:
        ids: Their ids.
        kind: "equal" or "similar".
        target: Name of the target.
        values: Their values or classes.
    """

    ids: tuple[str, str]
    kind: str
    target: str
    values: tuple[float | str, float | str]


def outliers(
    values: Tensor, expected: Tensor, ids: Sequence[str], weight: Tensor | None = None
) -> list[Outlier]:
    """Return the values that are far from where they are expected, the farthest first.

    A difference is measured in robust standard deviations: 1.4826 times the median absolute
    difference or, where more than half of the differences are zero, 1.2533 times the mean one
    (Iglewicz & Hoaglin, How to Detect and Handle Outliers, 1993).

    Args:
        values: Known values [n_rows].
        expected: Expected values [n_rows].
        ids: Ids of the rows.
        weight: Factors of the differences [n_rows], where some values are less certain.
    """
    difference = (values - expected).double() * (1 if weight is None else weight)
    scale = 1.4826 * difference.abs().median()
    if not scale:
        scale = 1.2533 * difference.abs().mean()
    z = difference / scale if scale else torch.zeros_like(difference)
    order = z.abs().argsort(descending=True, stable=True)
    far = order[z.abs()[order] > OUTLIER].tolist()
    return [Outlier(ids[i], values[i].item(), expected[i].item(), z[i].item()) for i in far]


def fit_compositions(
    store: GraphStore, rows: Tensor, values: Tensor, features: Tensor
) -> CompositionFit | None:
    """Predict each value from the compositions and values of all other rows.

    Args:
        store: The crystals.
        rows: [n_rows] int64, rows with a known value.
        values: Their values [n_rows] float64.
        features: Features of the compositions of all crystals, see `composition_features`.

    Returns:
        None if there are too few rows or all values are equal.
    """
    if len(rows) > MAX_ROWS:
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:MAX_ROWS]
        rows, values = rows[chosen], values[chosen]
    variance = values.var(correction=0).item() if len(rows) else 0.0
    if len(rows) < MIN_ROWS or not variance:
        return None
    fit = fit_ridge(features[rows], values)
    expected = fit.left_out
    error = expected - values
    ids = [store.ids[row] for row in rows.tolist()]
    r2 = 1 - error.square().mean().item() / variance
    # Studentized: rows with a high leverage, such as those of a rare element, are less certain.
    found = outliers(values, expected, ids, (1 - fit.leverage).sqrt())
    return CompositionFit(len(rows), error.abs().mean().item(), r2, found)


def duplicate_groups(store: GraphStore) -> list[list[int]]:
    """Return the rows of crystals that occur more than once, group by group."""
    first = group_duplicates(store.graphs.fingerprint)
    order = np.argsort(first, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(first[order])) + 1)
    return [group.tolist() for group in groups if len(group) > 1]


def similar_pairs(store: GraphStore) -> list[tuple[int, int]]:
    """Return pairs of rows with the same composition and nearly the same, but not equal geometry.

    Volumes per atom differ by less than 2 %, and four sums of exp(-d / length) over the neighbors,
    with random weights of the pairs of elements, by less than 1 %. Of many crystals of one
    composition, each is compared with those of the next larger volumes only.
    """
    geometry = np.concatenate([_geometry(block) for block in store.blocks()])
    _, formula = np.unique(compositions(store), return_inverse=True)
    order = np.lexsort((geometry[:, 0], formula))
    formula, geometry = formula[order], geometry[order]
    tolerance = np.array([SIMILAR_VOLUME, *[SIMILAR_GEOMETRY] * (geometry.shape[1] - 1)])
    found = list[tuple[int, int]]()
    for lag in range(1, min(N_COMPARED, len(order) - 1) + 1):
        one, other = geometry[:-lag], geometry[lag:]
        is_near = (np.abs(one - other) <= tolerance * np.maximum(one, other)).all(axis=1)
        near = np.flatnonzero(is_near & (formula[:-lag] == formula[lag:]))
        found += zip(order[near].tolist(), order[near + lag].tolist(), strict=True)
    first = group_duplicates(store.graphs.fingerprint)
    return sorted((min(pair), max(pair)) for pair in found if first[pair[0]] != first[pair[1]])


def conflicts(
    dataset: Dataset,
    groups: Sequence[Sequence[int]],
    similar: Sequence[tuple[int, int]],
    max_difference: float,
) -> list[Conflict]:
    """Return equal and similar crystals whose labels differ, target by target.

    The largest difference comes first. Of a group, the two crystals that differ most are named.

    Args:
        dataset: The data set.
        groups: Rows of equal crystals.
        similar: Pairs of rows of similar crystals.
        max_difference: Allowed difference, in standard deviations of a target.
    """
    ids, found = dataset.store.ids, list[Conflict]()
    candidates = [*(("equal", rows) for rows in groups), *(("similar", pair) for pair in similar)]
    for target, column in zip(dataset.targets, dataset.values.double().unbind(1), strict=True):
        known = column[column.isfinite()]
        limit = 0.0 if target.classes else max_difference * known.std(correction=0).item()
        values, of_target = column.tolist(), list[tuple[float, Conflict]]()
        for kind, rows in candidates:
            labeled = [row for row in rows if values[row] == values[row]]
            low = min(labeled, key=values.__getitem__, default=rows[0])
            high = max(labeled, key=values.__getitem__, default=rows[0])
            if (difference := values[high] - values[low]) > limit:
                labels = (_label(target, values[low]), _label(target, values[high]))
                conflict = Conflict((ids[low], ids[high]), kind, target.name, labels)
                of_target.append((difference, conflict))
        of_target.sort(key=lambda entry: -entry[0])
        found += [conflict for _, conflict in of_target]
    return found


def _label(target: Target, value: float) -> float | str:
    return target.classes[int(value)] if target.classes else value


def _geometry(graphs: CrystalGraphs) -> Array:
    """Return the volume per atom and sums over the neighbors of each crystal: [n_graphs, 5]."""
    n_elements = MAX_ATOMIC_NUMBER + 1
    # The third power makes a few pairs of elements decide on each sum.
    weights = np.random.default_rng(0).random((len(DECAYS), n_elements, n_elements)) ** 3
    graph = np.repeat(np.arange(len(graphs)), graphs.n_edges)
    first = (np.cumsum(graphs.n_atoms) - graphs.n_atoms)[graph]
    neighbor, center = graphs.edge_index + first
    n_pairs = graphs.edge_multiplicity * graphs.atom_multiplicity[center]
    pair = (graphs.atomic_number[center], graphs.atomic_number[neighbor])
    sums = [
        np.bincount(graph, weight[pair] * n_pairs * np.exp(-graphs.distance / decay), len(graphs))
        for weight, decay in zip(weights, DECAYS, strict=True)
    ]
    volume = np.abs(np.linalg.det(graphs.lattice.astype(np.float64))) / graphs.n_sites
    return np.stack([volume, *(of_pairs / graphs.n_sites for of_pairs in sums)], axis=1)
