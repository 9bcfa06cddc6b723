"""A data set made ready: graphs, targets, and which rows can be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from csgcnn.crystals.build import Rejected
from csgcnn.data.cache import write_rejected
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError

LARGEST = torch.finfo(torch.float32).max
MOST_REJECTED = 0.05  # share of the records beyond which skipping would hide a mistake


@dataclass(frozen=True, slots=True)
class Dataset:
    """Graphs with the targets of one task."""

    store: GraphStore
    names: list[str]  # of the targets
    targets: Tensor  # [n_graphs, n_targets] float32, NaN where missing
    rows: Tensor  # [n_usable] int64, rows with a target
    rejected: list[Rejected]


def select_targets(
    store: GraphStore, names: Sequence[str] | None, rejected: Sequence[Rejected], source: Path
) -> Dataset:
    """Choose the target columns; rows whose targets are text, infinite or all missing join the rejected ones.

    `names`: None means the only column of numbers.

    Raises:
        UserError: a column does not exist, or there is no single one to choose.
    """
    if names is None:
        names = [name for name, values in store.columns.items() if not any(isinstance(v, str) for v in values)]
        if len(names) != 1:
            raise UserError(f"{source}: say which column is the target: dataset.targets=[…] of {_listed(store)}")
    if absent := [name for name in names if name not in store.columns]:
        raise UserError(f"{source}: there is no column {absent[0]!r} to be the target; there are {_listed(store)}")
    values = torch.full((len(store), len(names)), float("nan"))
    reasons: dict[int, str] = {}
    for i, name in enumerate(names):
        for row, value in enumerate(store.columns[name]):
            if value is None:
                continue
            if (reason := _unusable(value)) is None:
                values[row, i] = float(value)
            else:
                reasons.setdefault(row, f"{name} is {value!r:.40}, {reason}")
    for row in (~values.isfinite().any(1)).nonzero().squeeze(1).tolist():
        reasons.setdefault(row, f"{' and '.join(names)} missing")
    usable = torch.tensor([row for row in range(len(store)) if row not in reasons], dtype=torch.long)
    rejected = [*rejected, *(Rejected(store.ids[row], reason) for row, reason in sorted(reasons.items()))]
    return Dataset(store, list(names), values, usable, rejected)


def check_rejected(dataset: Dataset, source: Path, on_error: str, report: Path) -> None:
    """Write the rejected records to `report` (csv: id, reason), and fail unless they may be skipped.

    Raises:
        UserError: there are rejected records and `on_error` is not skip, or they are more than 5 %, or nothing is left.
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
    if len(rejected) > MOST_REJECTED * total:
        raise UserError(f"{told}. More than {MOST_REJECTED:.0%} is too many to skip")


def _unusable(value: float | int | str | bool) -> str | None:
    if isinstance(value, str):
        return "expected a number"
    return None if abs(value) <= LARGEST else "expected a finite number"


def _listed(store: GraphStore) -> str:
    return ", ".join(store.columns) or "none"
