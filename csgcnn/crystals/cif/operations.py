"""Symmetry operations of a space group, checked to be a group."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.errors import StructureError, one_line

# A group with more operations, in a supercell, would need a large multiplication table.
MAX_OPERATIONS = 1000
_MAX_LENGTH = 200
_TRIPLET = re.compile(r"[-+xyz\d./,\s]+", re.IGNORECASE)
_DECIMAL = re.compile(r"\d*\.\d+")
# gemmi counts translations in 1/24 of the cell edge.
_DENOMINATOR = 24

Array = NDArray[Any]


class Operations(NamedTuple):
    """The operations x -> rotation x + translation of a group."""

    rotation: Array  # [n, 3, 3] float64
    translation: Array  # [n, 3] float64, in [0, 1)
    product: Array  # [n, n] int64, number of the operation that first does the second index

    def __len__(self) -> int:
        return len(self.rotation)


@lru_cache(maxsize=256)
def listed_operations(triplets: tuple[str, ...]) -> Operations:
    """Return the operations of a list such as ("x,y,z", "-x,-y,-z").

    Raises:
        StructureError: One is malformed or no symmetry operation, or they are no group.
    """
    return _group([_parse(triplet) for triplet in dict.fromkeys(triplets)])


@lru_cache(maxsize=256)
def hall_operations(symbol: str) -> Operations:
    """Return the operations that a Hall symbol generates.

    Raises:
        StructureError: It is no Hall symbol.
    """
    import gemmi

    try:
        operations = list(gemmi.symops_from_hall(symbol))
    except (RuntimeError, ValueError) as error:
        raise StructureError(
            f"the Hall symbol {symbol[:_MAX_LENGTH]!r} is not valid ({one_line(error)})"
        ) from None
    return _group([(operation.rot, operation.tran) for operation in operations])


def _parse(triplet: str) -> tuple[Sequence[Sequence[int]], Sequence[int]]:
    import gemmi

    shown = one_line(repr(triplet[:60]))
    if len(triplet) > _MAX_LENGTH or not _TRIPLET.fullmatch(triplet):
        raise StructureError(f"{shown} is no symmetry operation; expected one such as 'x,y,z'")
    for decimal in _DECIMAL.findall(triplet):
        value, last_digit = float(decimal), 10.0 ** -len(decimal.partition(".")[2])
        if abs(value - round(value * _DENOMINATOR) / _DENOMINATOR) > last_digit:
            raise StructureError(
                f"the symmetry operation {shown} has the translation {decimal[:20]}; expected a "
                "multiple of 1/24: give all atoms and the operation x,y,z"
            )
    try:
        operation = gemmi.Op("".join(triplet.split()))
    except (RuntimeError, ValueError) as error:
        raise StructureError(
            f"{shown} is no symmetry operation ({one_line(error)}); expected one such as 'x,y,z'"
        ) from None
    if abs(operation.det_rot()) != _DENOMINATOR**3:
        raise StructureError(f"{shown} is no symmetry operation: its determinant is not 1 or -1")
    return operation.rot, operation.tran


def _group(operations: Sequence[tuple[Sequence[Sequence[int]], Sequence[int]]]) -> Operations:
    if len(operations) > MAX_OPERATIONS:
        raise StructureError(
            f"there are {len(operations)} symmetry operations; up to {MAX_OPERATIONS} are "
            "supported: give it as POSCAR or json"
        )
    rotation = np.array([rot for rot, _ in operations], dtype=np.int64) // _DENOMINATOR
    translation = np.array([tran for _, tran in operations], dtype=np.int64) % _DENOMINATOR
    if abs(rotation).max() > 2:
        raise StructureError("a symmetry operation adds a coordinate more than twice")
    keys = _keys(rotation, translation)
    unique, first = np.unique(keys, return_index=True)
    first.sort()
    rotation, translation, keys = rotation[first], translation[first], keys[first]
    order = np.argsort(keys)
    products = np.einsum("gij,hjk->ghik", rotation, rotation)
    shifts = np.einsum("gij,hj->ghi", rotation, translation) + translation[:, None]
    is_bounded = (abs(products) <= 2).all(axis=(2, 3))
    product_keys = _keys(np.clip(products, -2, 2), shifts % _DENOMINATOR)
    position = np.minimum(np.searchsorted(unique, product_keys), len(unique) - 1)
    is_member = (unique[position] == product_keys) & is_bounded
    if not is_member.all():
        one, other = np.argwhere(~is_member)[0].tolist()
        raise StructureError(
            f"the symmetry operations are no group: number {other + 1} followed by number "
            f"{one + 1} gives an operation that is not listed"
        )
    return Operations(rotation.astype(float), translation / _DENOMINATOR, order[position])


def _keys(rotation: Array, translation: Array) -> Array:
    """Return one number per operation: entries of -2 to 2, translations of 0 to 23."""
    entries = rotation.reshape(*rotation.shape[:-2], 9) + 2
    key = entries @ (5 ** np.arange(9, dtype=np.int64))
    return key * _DENOMINATOR**3 + translation @ (_DENOMINATOR ** np.arange(3, dtype=np.int64))
