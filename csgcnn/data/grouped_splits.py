"""Assign groups of rows to the parts or folds of a split, so that no group is divided."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.data.columns import column_values
from csgcnn.data.duplicates import group_duplicates
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError

T = TypeVar("T")

# Fraction of the rows by which a part may exceed its size to keep a group together.
TOLERANCE = 0.01


def indivisible(store: GraphStore, rows: Tensor, settings: SplitSettings) -> list[list[int]]:
    """Return the rows in groups that stay together: equal crystals, or each row on its own.

    With method=group, rows with the same value of `column` stay together, too.

    Args:
        store: The data set.
        rows: [n_rows] int64.
        settings: How the rows are divided.
    """
    by_column, together = settings.method == "group", settings.duplicates == "together"
    if not (by_column or together):
        return [[row] for row in rows.tolist()]
    values = column_values(store, rows, settings.column) if by_column else []
    if together:
        equal = group_duplicates(store.graphs.fingerprint[rows.numpy()])
        _, code = np.unique(list(map(str, values)) or equal, return_inverse=True)
        values = group_duplicates(np.stack([code, equal], axis=1)).tolist()
    members = grouped(rows.tolist(), values)
    return [members[name] for name in (sorted(members, key=str) if by_column else members)]


def grouped(items: Sequence[T], values: Sequence[Scalar]) -> dict[Scalar, list[T]]:
    """Return the items by their values, in order.

    Args:
        items: The items.
        values: A value for each item.
    """
    groups: dict[Scalar, list[T]] = {}
    for item, value in zip(items, values, strict=True):
        groups.setdefault(value, []).append(item)
    return groups


def assign_groups(
    groups: Sequence[Sequence[int]], sizes: Mapping[str, float], generator: torch.Generator
) -> dict[str, Tensor]:
    """Assign groups to parts, in random order; those too large for the smallest part come first.

    Args:
        groups: Rows of each group.
        sizes: Wanted number of rows of each part, all above 0.
        generator: Draws the order of the groups.

    Returns:
        Rows of each part, sorted, int64.
    """
    order = torch.randperm(len(groups), generator=generator).tolist()
    smallest = min(sizes.values())
    # The sort is stable, so that the other groups stay in random order.
    order.sort(key=lambda i: -len(groups[i]) if len(groups[i]) > smallest else 0)
    parts: dict[str, list[int]] = {part: [] for part in sizes}
    for n_left, number in zip(range(len(order), 0, -1), order, strict=True):
        parts[_part_for(len(groups[number]), parts, sizes, n_left)] += groups[number]
    return {part: torch.tensor(sorted(rows), dtype=torch.long) for part, rows in parts.items()}


def take_fold(
    groups: Sequence[Sequence[int]], fraction: float, fold: int, generator: torch.Generator
) -> Tensor:
    """Return the rows of one of 1 / fraction folds, which divide groups in random order.

    Args:
        groups: Rows of each group.
        fraction: Fraction of the rows in a fold.
        fold: Number of the fold, from 0.
        generator: Draws the order of the groups.

    Returns:
        Sorted rows, int64.
    """
    order = torch.randperm(len(groups), generator=generator).tolist()
    sizes = np.array([len(groups[number]) for number in order])
    middle, size = sizes.cumsum() - sizes / 2, fraction * sizes.sum()
    is_in_fold = (middle > fold * size) & (middle <= (fold + 1) * size)
    chosen = [row for place in np.flatnonzero(is_in_fold) for row in groups[order[place]]]
    return torch.tensor(sorted(chosen), dtype=torch.long)


def assign_folds(
    groups: Sequence[Sequence[int]], labels: Sequence[Scalar] | None, settings: SplitSettings
) -> list[int]:
    """Return the fold of each group of rows; folds differ by at most one row if groups are rows.

    The groups are taken in random order, class by class, the large ones first; each joins the fold
    that has the fewest rows of its class, then the fewest rows.

    Args:
        groups: Rows that stay together.
        labels: Class of each group, which gets the same share in every fold; None: no classes.
        settings: Reads folds, repeats, fold and seed; the repeat `fold // folds` has its own order.

    Returns:
        Folds from 0 to folds - 1 [n_groups].

    Raises:
        ConfigError: There are fewer groups than folds.
    """
    n_folds = settings.folds
    if n_folds > len(groups):
        raise ConfigError(
            f"dataset.split.folds={n_folds}: expected at most {len(groups)}, the number of "
            "different crystals"
        )
    generator = torch.Generator().manual_seed(settings.seed)
    # The order of a repeat does not depend on the number of repeats.
    for _ in range(settings.fold // n_folds + 1):
        order = torch.randperm(len(groups), generator=generator).tolist()
    classes = {label: i for i, label in enumerate(dict.fromkeys(labels or ()))}
    class_of = [classes[label] for label in labels] if labels else [0] * len(groups)
    order.sort(key=lambda i: (class_of[i], -len(groups[i])))
    n_rows, n_of_class = Counter[int](), Counter[tuple[int, int]]()
    found = [0] * len(groups)
    for i in order:
        own = class_of[i]
        fold = min(range(n_folds), key=lambda f: (n_of_class[own, f], n_rows[f], f))
        found[i] = fold
        n_rows[fold] += len(groups[i])
        n_of_class[own, fold] += len(groups[i])
    return found


def _part_for(
    n_rows: int, parts: Mapping[str, list[int]], sizes: Mapping[str, float], n_left: int
) -> str:
    """Return the part for a group of `n_rows` rows, when `n_left` groups are left.

    It is the part that is furthest below its size, relative to it, among those with room for the
    group. Empty parts come first when no more groups are left than there are empty parts.
    """
    empty = [part for part in sizes if part != "unused" and not parts[part]]
    candidates = empty if len(empty) >= n_left else list(sizes)
    room = {part: sizes[part] - len(parts[part]) for part in candidates}
    needed = n_rows - TOLERANCE * sum(sizes.values())
    if fitting := [part for part in candidates if room[part] >= needed]:
        return max(fitting, key=lambda part: room[part] / sizes[part])
    return max(candidates, key=room.__getitem__)
