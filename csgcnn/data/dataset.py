"""A data set made ready: graphs, targets, and which rows can be used."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.data.cache import write_rejected
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target, column_of
from csgcnn.errors import UserError

MISSING = "missing"  # no label is no mistake: such rows may be skipped however many they are
FAR = 1000  # times the width of the middle half of the values, from their median
MOST_REJECTED = 0.05  # share of the records beyond which skipping would hide a mistake


@dataclass(frozen=True, slots=True)
class Dataset:
    """Graphs with the values of one or several targets."""

    store: GraphStore
    targets: list[Target]
    values: Tensor  # [n_graphs, n_targets] float32, NaN where missing, a class by its position
    rows: Tensor  # [n_usable] int64, rows with a value of at least one target
    rejected: list[Rejected]


def select_targets(
    store: GraphStore, targets: Sequence[Target], rejected: Sequence[Rejected], source: Path
) -> Dataset:
    """Read the target columns; rows with an impossible value, or without any value, join the rejected ones.

    Raises:
        UserError: a column does not exist.
    """
    reasons: dict[int, str] = {}
    columns = [_encoded(target, column_of(store, target, source), reasons) for target in targets]
    values = torch.tensor(columns, dtype=torch.float32).T.contiguous()
    for row in (~values.isfinite().any(1)).nonzero().squeeze(1).tolist():
        reasons.setdefault(row, f"{' and '.join(target.name for target in targets)} {MISSING}")
    usable = torch.tensor(
        [row for row in range(len(store)) if row not in reasons], dtype=torch.long
    )
    rejected = [
        *rejected,
        *(Rejected(store.ids[row], reason) for row, reason in sorted(reasons.items())),
    ]
    return Dataset(store, list(targets), values, usable, rejected)


def _encoded(target: Target, column: Sequence[Scalar], reasons: dict[int, str]) -> list[float]:
    """The numbers of a column, NaN where one is missing or, as added to `reasons`, impossible."""
    values = [math.nan] * len(column)
    for row, value in enumerate(column):
        try:
            values[row] = target.encode(value)
        except ValueError as error:
            reasons.setdefault(row, f"{target.name} is {value!r:.40}, {error}")
    return values


def check_rejected(dataset: Dataset, source: Path, on_error: str, report: Path) -> None:
    """Write the rejected records to `report` (csv: id, reason), and fail unless they may be skipped.

    Raises:
        UserError: records were rejected and may not be skipped, or more than 5 % for more than a missing label, or all.
    """
    rejected = dataset.rejected
    if not rejected:
        return
    write_rejected(rejected, report)
    total = len(rejected) + len(dataset.rows)
    first = "; ".join(f"{entry.id}: {entry.reason}" for entry in rejected[:3])
    more = "; …" if len(rejected) > 3 else ""
    told = f"{source}: {len(rejected)} of {total} records cannot be used ({first}{more}), all listed in {report}"
    if on_error != "skip":
        raise UserError(f"{told}. Mend them, or leave them out with dataset.on_error=skip")
    if not len(dataset.rows):
        raise UserError(f"{told}. Nothing is left")
    if sum(not entry.reason.endswith(MISSING) for entry in rejected) > MOST_REJECTED * total:
        raise UserError(f"{told}. More than {MOST_REJECTED:.0%} is too many to skip")


def label_warnings(dataset: Dataset, train: Tensor) -> Iterator[str]:
    """What a user should know about the labels before trusting an error: classes that never train, far outliers.

    `train` [n_train]: the training rows.
    """
    for i, target in enumerate(dataset.targets):
        column = dataset.values[:, i].double()
        known = dataset.rows[column[dataset.rows].isfinite()]
        if target.classes:
            yield from _unlearned_classes(target, column[known], column[train])
        elif len(known):
            yield from _outliers(
                target, column[known], [dataset.store.ids[row] for row in known.tolist()]
            )


def _unlearned_classes(target: Target, known: Tensor, train: Tensor) -> Iterator[str]:
    for position, name in enumerate(target.classes):
        if not (train == position).any() and (n_rows := int((known == position).sum())):
            yield f"{target.name} = {name} ({n_rows} in val and test) occurs in no training row: it cannot be learned"


def _outliers(target: Target, known: Tensor, ids: Sequence[str]) -> Iterator[str]:
    low, median, high = np.percentile(known.numpy(), [25, 50, 75])
    far = ((known - median).abs() > FAR * (high - low)).nonzero().squeeze(1).tolist()
    if far and high > low:
        yield (
            f"{target.name} of {ids[far[0]]} is {known[far[0]]:.4g}"
            f"{f' (there are {len(far)} such values)' if len(far) > 1 else ''}, while half of all values lie between "
            f"{low:.4g} and {high:.4g}: is it right? It rules mean, deviation and loss"
        )
