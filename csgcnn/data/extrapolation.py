"""Test rows unlike all training rows: in chemistry, structure, target or time.

The methods `leave_*` give each row a label and divide the labels into folds. The methods
`target_tail` and `time` sort the rows by a value, and test those above the training rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import torch
from torch import Tensor

from csgcnn.config.settings.dataset import FORWARD_METHODS, SplitSettings
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.prototypes import PROTOTYPE
from csgcnn.data.clusters import clusters
from csgcnn.data.columns import column_values
from csgcnn.data.compositions import compositions
from csgcnn.data.grouped_splits import assign_groups, grouped
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError, UserError

# Fraction of the rows beyond which an element is too common to train without it.
MOST_COMMON = 0.5

Labels = Sequence[Scalar]


def held_out(store: GraphStore, rows: Tensor, settings: SplitSettings) -> tuple[Tensor, Tensor]:
    """Return the rows of a fold, and those that may be trained on beside it.

    Args:
        store: The data set.
        rows: [n] int64, the usable rows.
        settings: The method, one of `LEAVE_METHODS` and `FORWARD_METHODS`, and its options.

    Returns:
        The test rows and the others, int64. A row may be in neither.

    Raises:
        UserError: The data have no such column, or a value is missing.
        ConfigError: There are fewer labels than folds, or no clusters.
    """
    if settings.method in FORWARD_METHODS:
        block, tested = _blocks(store, rows, settings), settings.folds - settings.fold
        return rows[block == tested], rows[block < tested]
    labels = _LABELS[settings.method](store, rows, settings)
    chosen = _labels_of_fold(labels, settings)
    is_tested = torch.tensor([label in chosen for label in labels], dtype=torch.bool)
    others = rows[~is_tested]
    if settings.method == "leave_element":
        elements = [store.elements[row] for row in others.tolist()]
        others = others[torch.tensor([e.isdisjoint(chosen) for e in elements], dtype=torch.bool)]
    return rows[is_tested], others


def _labels_of_fold(labels: Labels, settings: SplitSettings) -> set[Scalar]:
    """Return the labels whose rows the fold tests; each label is in one fold of each repeat."""
    groups = grouped(range(len(labels)), labels)
    groups.pop(None, None)
    n_folds = settings.folds
    if len(groups) < n_folds:
        kind = settings.method.removeprefix("leave_").replace("_", " ")
        raise ConfigError(
            f"dataset.split.folds={n_folds}: expected at most {len(groups)}, the number of "
            f"different labels of method={settings.method} ({kind})"
        )
    members = [groups[label] for label in sorted(groups, key=str)]
    sizes = {str(fold): sum(map(len, members)) / n_folds for fold in range(n_folds)}
    generator = torch.Generator().manual_seed(settings.seed)
    # The order of a repeat does not depend on the number of repeats.
    for _ in range(settings.fold // n_folds + 1):
        parts = assign_groups(members, sizes, generator)
    return {labels[position] for position in parts[str(settings.fold % n_folds)].tolist()}


def _rarest_elements(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Labels:
    """Return the element of each crystal that the fewest crystals have; None: all are common."""
    elements = [store.elements[row] for row in rows.tolist()]
    n_crystals = Counter(z for of_crystal in elements for z in of_crystal)
    rarest = [min(found, key=lambda z: (n_crystals[z], z)) for found in elements]
    return [z if n_crystals[z] <= MOST_COMMON * len(rows) else None for z in rarest]


def _chemical_systems(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Labels:
    """Return the elements of each crystal: "O-Sr-Ti"."""
    elements = (store.elements[row] for row in rows.tolist())
    return ["-".join(sorted(SYMBOLS[z] for z in found)) for found in elements]


def _compositions(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Labels:
    formula = compositions(store)
    return [formula[row] for row in rows.tolist()]


def _prototypes(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Labels:
    if PROTOTYPE not in store.columns:
        raise UserError(
            "dataset.split.method=leave_prototype: these built graphs have no prototypes; build "
            "them again with csgcnn build dataset.prototypes=true"
        )
    return column_values(store, rows, PROTOTYPE)


_LABELS: Mapping[str, Callable[[GraphStore, Tensor, SplitSettings], Labels]] = {
    "leave_element": _rarest_elements,
    "leave_chemical_system": _chemical_systems,
    "leave_composition": _compositions,
    "leave_prototype": _prototypes,
    "leave_cluster": clusters,
}


def _blocks(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Tensor:
    """Return the block of each row: `folds` + 1 blocks of rising values and about equal size.

    Rows with equal values are in one block. The first block is never tested.
    """
    column = column_values(store, rows, settings.column)
    number = _seconds if settings.method == "time" else _number
    values = torch.empty(len(rows), dtype=torch.float64)
    for i, (row, value) in enumerate(zip(rows.tolist(), column, strict=True)):
        try:
            values[i] = number(value)
        except ValueError as error:
            raise UserError(
                f"dataset.split.method={settings.method}: {settings.column} of {store.ids[row]} is "
                f"{value!r:.40}, {error}"
            ) from None
    if settings.method == "target_tail" and settings.tail == "low":
        values = -values
    n_smaller = torch.searchsorted(values.sort().values, values)
    return n_smaller * (settings.folds + 1) // len(rows)


def _number(value: Scalar) -> float:
    if isinstance(value, str | None):
        raise ValueError("expected a number")
    return float(value)


def _seconds(value: Scalar) -> float:
    """Return a number as it is, and a date of ISO 8601 in seconds; without time zone it is UTC."""
    if not isinstance(value, str):
        return _number(value)
    try:
        date = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("expected a number or a date such as 2024-05-31") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
