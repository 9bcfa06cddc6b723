"""Columns that a model reads beside the structure: that of `dataset.delta`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.records import Record, none_if_missing
from csgcnn.crystals.structures import is_structure_object, text_or_file
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target
from csgcnn.data.transforms import LARGEST
from csgcnn.errors import ConfigError, UserError, plural

# Values of columns [n_structures] by name; a DataFrame is one, too.
Inputs = Mapping[str, Any]
NO_INPUTS: Inputs = {}
COMPOSITION = "composition"  # the value of `dataset.delta` that is no column


def input_columns(targets: Sequence[Target]) -> list[str]:
    """Return the names of the columns that predictions of targets need."""
    return list(dict.fromkeys(t.delta for t in targets if t.delta not in ("", COMPOSITION)))


def check_delta(store: GraphStore, targets: Sequence[Target], source: Path) -> None:
    """Check that `dataset.delta` can be subtracted from targets.

    Args:
        store: The data set.
        targets: The targets.
        source: Path of the data, for messages.

    Raises:
        ConfigError: A target has classes or, for a column, a transform, or is the column itself.
        UserError: The column is absent.
    """
    for target in targets:
        key, name = f"dataset.delta={target.delta}", target.name
        if target.delta and target.classes:
            raise ConfigError(f"{key} needs numbers, and {name} has classes; omit it")
        if target.delta in ("", COMPOSITION):
            continue
        if target.delta == name:
            raise ConfigError(f"{key} is a target; expected another column")
        if target.transform != "none":
            raise ConfigError(
                f"{key} is subtracted in the unit of {name}: omit dataset.transform.{name}, or "
                "transform both columns by dataset.derived"
            )
        if target.delta not in store.columns:
            raise UserError(
                f"{key}: {source} has no such column; expected composition or one of "
                f"{', '.join(store.columns)}"
            )


def read_inputs(store: GraphStore, names: Sequence[str]) -> None:
    """Read columns into the batches of a store, unless that is done.

    Rows without a number get a reason in `store.lacking`.

    Args:
        store: The graphs.
        names: Names of the columns; one that is absent has no value in any row.
    """
    if not names or list(names) == store.input_names:
        return
    numbers: list[list[float]] = []
    lacking: dict[int, str] = {}
    for name in names:
        column = store.columns.get(name, [None] * len(store))
        numbers.append([_number(value) for value in column])
        for row, number in enumerate(numbers[-1]):
            if math.isnan(number):
                is_missing = none_if_missing(column[row]) is None
                text = "missing" if is_missing else f"{column[row]!r:.40}"
                reason = f"{name} is {text}, expected the number that dataset.delta={name} adds"
                lacking.setdefault(row, reason)
    inputs = torch.tensor(numbers, dtype=torch.float32).T.contiguous()
    store.set_inputs(names, inputs, lacking)


def usable_rows(
    store: GraphStore, rows: range, names: Sequence[str]
) -> tuple[Tensor, list[Rejected]]:
    """Return the rows that have all inputs [n_rows] int64, and why others are rejected.

    Args:
        store: The graphs.
        rows: Rows to predict.
        names: Columns that the model reads.
    """
    read_inputs(store, names)
    if not names:
        return torch.arange(rows.start, rows.stop), []
    lacking = [row for row in rows if row in store.lacking]
    usable = [row for row in rows if row not in store.lacking]
    rejected = [Rejected(store.ids[row], store.lacking[row]) for row in lacking]
    return torch.tensor(usable, dtype=torch.long), rejected


def records_of(structures: Any, inputs: Inputs, names: Sequence[str]) -> list[Record]:
    """Return structures to predict as records with the columns that a model reads.

    Args:
        structures: One structure, or several.
        inputs: Values by column; those that are not given are missing.
        names: Columns that the model reads.

    Raises:
        UserError: A column has another length.
    """
    is_one = isinstance(structures, str | Path | dict) or is_structure_object(structures)
    listed = [structures] if is_one else list(structures)
    columns: list[dict[str, Scalar]] = [{} for _ in listed]
    for name in [name for name in names if name in inputs]:
        values = np.atleast_1d(inputs[name]).tolist()
        if len(values) != len(listed):
            found = f"{plural(len(values), 'value')} for {plural(len(listed), 'structure')}"
            raise UserError(f"inputs: {name} has {found}")
        for row, value in zip(columns, values, strict=True):
            row[name] = value
    sources = [text_or_file(one) if isinstance(one, str) else one for one in listed]
    return [
        Record(f"structure {i}", source, row)
        for i, (source, row) in enumerate(zip(sources, columns, strict=True))
    ]


def columns_of(records: Sequence[Record], names: Sequence[str]) -> dict[str, list[Scalar]]:
    """Return columns of records, by name; None where missing.

    Args:
        records: The records.
        names: Columns that the model reads.
    """
    return {name: [record.columns.get(name) for record in records] for name in names}


def _number(value: Scalar) -> float:
    """Return a value as a number, NaN if it is none."""
    if isinstance(value, float | int) and abs(value) <= LARGEST:
        return float(value)
    return math.nan
