"""Assign groups of rows to the parts of a split, so that no group is divided."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Fraction of the rows by which a part may exceed its size to keep a group together.
TOLERANCE = 0.01


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
