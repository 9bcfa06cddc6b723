"""Limits on structures, which keep reading and connecting them within seconds."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Reading and connecting a larger crystal would take minutes.
MAX_SITES = 100_000
# Fractional coordinates beyond this have lost the digits that place an atom within its cell.
MAX_FRAC_COORD = 1e6


def groups_within(items: Iterable[T], *bounds: tuple[Callable[[T], int], int]) -> Iterator[list[T]]:
    """Group consecutive items; the sizes of a group of several stay within all bounds.

    Args:
        items: The items, which are read as they are needed.
        *bounds: Functions that return a size of an item, with the largest sum of this size.
    """
    group: list[T] = []
    totals = [0] * len(bounds)
    for item in items:
        sizes = [size(item) for size, _ in bounds]
        totals = [total + size for total, size in zip(totals, sizes, strict=True)]
        if group and any(n > largest for n, (_, largest) in zip(totals, bounds, strict=True)):
            yield group
            group, totals = [], sizes
        group.append(item)
    if group:
        yield group
