"""A data set with targets: graphs, values, usable rows and rejected records."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.data.columns import existing_column
from csgcnn.data.inputs import Input, untrained_categories
from csgcnn.data.record_reports import first_reasons, write_rejected
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target, column_of, label_columns, list_of
from csgcnn.data.transforms import LARGEST
from csgcnn.errors import UserError

# Last word of the reason of a row without any label. Such rows may be skipped in any number.
MISSING = "missing"
# Outlier: a value whose distance from the median exceeds this many interquartile ranges.
OUTLIER = 1000


@dataclass(frozen=True, slots=True)
class Dataset:
    """Graphs with the values of one or several targets.

    Attributes:
        store: The graphs.
        targets: The targets.
        values: [n_graphs, sum of n_labels] float32, as they are trained: NaN where missing, a class
            by its position, a number on the scale of its transform.
        rows: [n_usable] int64, rows with a value of at least one target.
        rejected: Records that cannot be used.
        weights: [n_graphs] float32, weights of the rows in the training loss; None: equal.
        inputs: What `dataset.inputs` names; equal crystals with different inputs are rows.
    """

    store: GraphStore
    targets: list[Target]
    values: Tensor
    rows: Tensor
    rejected: list[Rejected]
    weights: Tensor | None = None
    inputs: Sequence[Input] = ()

    def loss_weights(self, rows: Tensor, device: torch.device) -> Tensor | None:
        """Return weights [n_graphs, 1] whose mean over the training rows is 1.

        Args:
            rows: Training rows.
            device: Device of the result.
        """
        if self.weights is None:
            return None
        weights = self.weights / self.weights[rows].double().mean()
        return weights.float().unsqueeze(1).to(device)

    @property
    def n_unread(self) -> int:
        """Number of rejected records that are not in the store."""
        return len(self.rejected) - (len(self.store) - len(self.rows))


def select_targets(
    store: GraphStore,
    targets: Sequence[Target],
    rejected: Sequence[Rejected],
    source: Path,
    failed: Mapping[str, Mapping[int, str]] | None = None,
    weight_column: str | None = None,
) -> Dataset:
    """Read the target columns; rows with an impossible value, or without any value, are rejected.

    Args:
        store: The graphs.
        targets: The targets.
        rejected: Records that are rejected already.
        source: Path of the data, for messages.
        failed: Reasons why values of derived columns cannot be computed, by column and row.
            Rows that lack an input of the model, `store.lacking`, are rejected, too.
        weight_column: Column of the weights in the training loss; rows without a weight, or with a
            negative one, are rejected.

    Raises:
        UserError: A column does not exist.
    """
    reasons = dict(store.lacking)
    for target in targets:
        reasons |= (failed or {}).get(target.name, {})
    columns = [_encoded(target, column_of(store, target, source), reasons) for target in targets]
    values = torch.cat(columns, dim=1)
    for row in (~values.isfinite().any(1)).nonzero().squeeze(1).tolist():
        reasons.setdefault(row, f"{' and '.join(target.name for target in targets)} {MISSING}")
    weights = None
    if weight_column:
        weights = torch.tensor(_weights(store, weight_column, source, reasons), dtype=torch.float32)
    usable = [row for row in range(len(store)) if row not in reasons]
    found = [Rejected(store.ids[row], reason) for row, reason in sorted(reasons.items())]
    rows = torch.tensor(usable, dtype=torch.long)
    return Dataset(store, list(targets), values, rows, [*rejected, *found], weights)


def _weights(store: GraphStore, column: str, source: Path, reasons: dict[int, str]) -> list[float]:
    """Read weights of rows; a row with an impossible one gets a reason, and the weight 0."""
    weights = [0.0] * len(store)
    values = existing_column(store, column, f"dataset.weight_column={column}", source)
    for row, value in enumerate(values):
        if isinstance(value, float | int) and 0 <= value <= LARGEST:
            weights[row] = float(value)
        else:
            text = "missing" if value is None or value != value else f"{value!r:.40}"
            reason = f"weight {column} is {text}, expected a number of at least 0"
            reasons.setdefault(row, reason)
    return weights


def _encoded(target: Target, column: Sequence[Scalar], reasons: dict[int, str]) -> Tensor:
    """Encode a column [n_rows, n_labels]; an impossible value becomes NaN, with a reason."""
    values, n = [math.nan] * (len(column) * target.n_labels), target.n_labels
    for row, value in enumerate(column):
        try:
            values[row * n : (row + 1) * n] = target.encode_all(value)
        except ValueError as error:
            found = "" if list_of(value) else f"is {value!r:.40}, "
            reasons.setdefault(row, f"{target.name} {found}{error}")
    return torch.tensor(values, dtype=torch.float32).view(-1, n)


def check_rejected(
    dataset: Dataset, source: Path, on_error: str, report: Path, max_rejected: float
) -> None:
    """Write the rejected records into a csv file, and fail unless they may be skipped.

    Args:
        dataset: The data set.
        source: Path of the data, for messages.
        on_error: "skip" if records may be skipped.
        report: The csv file of ids and reasons; not written without rejected records.
        max_rejected: Largest fraction of records that may be skipped for another reason than a
            missing label.

    Raises:
        UserError: Records may not be skipped, no record is left, or too many are rejected.
    """
    rejected = dataset.rejected
    write_rejected(rejected, report)
    if not rejected:
        return
    total = len(rejected) + len(dataset.rows)
    first = first_reasons(rejected, len(rejected))
    message = f"{source}: {len(rejected)} of {total} records cannot be used ({first})"
    if on_error != "skip":
        advice = "fix them, or skip them with dataset.on_error=skip"
    elif not len(dataset.rows):
        advice = "no record is left"
    elif sum(not entry.reason.endswith(MISSING) for entry in rejected) > max_rejected * total:
        most = f"{100 * max_rejected:.3g}%"
        advice = f"at most {most} may be skipped, fix the others or raise dataset.max_rejected"
    else:
        return
    raise UserError(f"{message}; {advice}. All are listed in {report}")


def label_warnings(dataset: Dataset, train: Tensor) -> Iterator[str]:
    """Yield warnings about labels and inputs, such as outliers and values without training rows.

    Args:
        dataset: The data set.
        train: [n_train] int64, the training rows.
    """
    columns = label_columns(dataset.values, dataset.targets)
    for target, labels in zip(dataset.targets, columns, strict=True):
        if target.grid:
            continue
        column = labels.squeeze(1).double()
        known = dataset.rows[column[dataset.rows].isfinite()]
        if target.classes:
            yield from _untrained_classes(target, column[known], column[train])
        elif len(known):
            cells = dataset.store.columns[target.name]
            if all(isinstance(cells[row], bool) for row in known.tolist()):
                yield (
                    f"{target.name} holds true and false, and is trained as numbers 1 and 0; for "
                    f"classes give dataset.tasks.{target.name}=classification"
                )
            ids = [dataset.store.ids[row] for row in known.tolist()]
            yield from _outliers(target, column[known], ids)
    yield from untrained_categories(dataset.store, dataset.inputs, train)


def _untrained_classes(target: Target, known: Tensor, train: Tensor) -> Iterator[str]:
    for position, name in enumerate(target.classes):
        if not (train == position).any() and (n_rows := int((known == position).sum())):
            yield (
                f"{target.name} = {name} ({n_rows} in val and test) occurs in no training row; "
                "the model cannot learn it"
            )


def _outliers(target: Target, known: Tensor, ids: Sequence[str]) -> Iterator[str]:
    low, median, high = np.percentile(known.numpy(), [25, 50, 75])
    far = ((known - median).abs() > OUTLIER * (high - low)).nonzero().squeeze(1).tolist()
    if far and high > low:
        others = f" ({len(far)} such values)" if len(far) > 1 else ""
        yield (
            f"{target.trained_title} of {ids[far[0]]} is {known[far[0]]:.4g}{others}, but half "
            f"of all values lie between {low:.4g} and {high:.4g}. Such an outlier dominates mean, "
            "standard deviation and loss; check it"
        )
