"""Intervals of mean errors, groups of crystals, and paired differences of models."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

N_RESAMPLES = 2000
# Values from which the interval of a mean is that of a normal distribution.
MANY = 5000


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Array) -> Interval:
    """Return the mean and its 95 % interval by the bootstrap over crystals (percentiles).

    Args:
        values: One value of each crystal [n_rows]; without any the mean is NaN.
    """
    if len(values) < 2:
        mean = float(values.mean()) if len(values) else np.nan
        return Interval(mean, mean, mean)
    mean = float(values.mean())
    if len(values) >= MANY:
        half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
        return Interval(mean, mean - half, mean + half)
    chosen = np.random.default_rng(0).integers(len(values), size=(N_RESAMPLES, len(values)))
    low, high = np.percentile(values[chosen].mean(1), [2.5, 97.5]).tolist()
    return Interval(mean, low, high)


def quantile_groups(position: Array, n_groups: int) -> dict[str, Array]:
    """Return the rows of groups of about equal size, by the range of their positions.

    Args:
        position: What orders the rows [n_rows]; rows without a number are in no group.
        n_groups: Number of groups; fewer where many positions are equal.
    """
    rows = np.flatnonzero(np.isfinite(position))
    if not len(rows):
        return {}
    known, lowest = position[rows], position[rows].min()
    groups = dict[str, Array]()
    if (known == lowest).sum() * n_groups >= len(rows):
        # as for distances, many of which are 0
        groups[f"{lowest:.3g}"] = rows[known == lowest]
        rows = rows[known > lowest]
    if len(rows):
        edges = np.unique(np.quantile(position[rows], np.linspace(0, 1, n_groups + 1)))
        place = np.searchsorted(edges[1:-1], position[rows], side="right")
        for i, (low, high) in enumerate(pairwise(edges)):
            groups[f"{low:.3g} to {high:.3g}"] = rows[place == i]
        if len(edges) == 1:
            groups[f"{edges[0]:.3g}"] = rows
    return {name: of_group for name, of_group in groups.items() if len(of_group)}


def label_groups(labels: Sequence[str], order: Sequence[str] = ()) -> dict[str, Array]:
    """Return the rows of each label but "".

    Args:
        labels: Labels of the rows.
        order: Labels that come first.
    """
    present = dict.fromkeys(label for label in (*order, *sorted(set(labels))) if label)
    array = np.array(labels)
    groups = {label: np.flatnonzero(array == label) for label in present}
    return {label: rows for label, rows in groups.items() if len(rows)}


def paired(ids: Sequence[str], others: Sequence[str]) -> tuple[Array, Array]:
    """Return the positions of common ids in two tables.

    Args:
        ids: Ids of one table.
        others: Ids of the other one.
    """
    own, theirs = ({id_: i for i, id_ in enumerate(of_table)} for of_table in (ids, others))
    common = [id_ for id_ in own if id_ in theirs]
    one, other = (np.array([of[id_] for id_ in common], dtype=int) for of in (own, theirs))
    return one, other
