"""Values of inputs that a prediction is given for all structures, one or several of each input."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from csgcnn.config.grids import MOST_POINTS, number_range
from csgcnn.crystals.records import Record, Scalar, parse_scalar
from csgcnn.crystals.structures import is_structure_object, text_or_file
from csgcnn.data.inputs import Input
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError, UserError, nearest, plural

T = TypeVar("T")
ALL = "all"  # every category

# Values of columns [n_structures] by name, or one value for all; a DataFrame is one, too.
Inputs = Mapping[str, Any]
NO_INPUTS: Inputs = {}
# Values by name of the input; each combination is predicted.
Given = Mapping[str, Sequence[Scalar]]
NOTHING_GIVEN: Given = {}


def given_values(given: Mapping[str, Any], inputs: Sequence[Input]) -> dict[str, list[Scalar]]:
    """Return the values that inputs take, as numbers and labels.

    Args:
        given: A value by name, a list, a range `start:stop:step` of numbers with both ends, or
            `all` for every category.
        inputs: Columns that the model reads.

    Raises:
        ConfigError: The model has no such input, or a value is none of it.
    """
    known = {column.name: column for column in inputs}
    values = dict[str, list[Scalar]]()
    for name, value in given.items():
        if not known:
            raise ConfigError(f"inputs.{name} has no effect on this model, which reads no inputs")
        if name not in known:
            hint = nearest(name, list(known)) or f"; expected {', '.join(known)}"
            raise ConfigError(f"inputs.{name}: the model has no such input{hint}")
        items = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
        found = [
            v for item in ([value] if items is None else items) for v in _values(item, known[name])
        ]
        values[name] = list(dict.fromkeys(found))
        if not values[name]:
            raise ConfigError(f"inputs.{name}=[]: expected {known[name].expected}")
    return values


def points(given: Given) -> list[dict[str, Scalar]]:
    """Return every combination of values, by name; the last input changes fastest."""
    return [dict(zip(given, values, strict=True)) for values in product(*given.values())]


def set_point(store: GraphStore, inputs: Sequence[Input], point: Mapping[str, Scalar]) -> None:
    """Set inputs to one value in all rows of a store, whose inputs are read.

    Args:
        store: The graphs.
        inputs: Columns that the model reads.
        point: Values by name; the other columns keep theirs.
    """
    if not point or store.inputs is None:
        return
    values = store.inputs.clone()
    for position, column in enumerate(inputs):
        if column.name in point:
            values[:, position] = column.encode(point[column.name])
    store.set_inputs(store.inputs_key, values, store.lacking)


def input_cells(
    store: GraphStore, rows: Tensor, inputs: Sequence[Input], given: Given
) -> dict[str, list[Scalar]]:
    """Return the values of `dataset.inputs` by name, for all points of each row in turn.

    Args:
        store: The graphs.
        rows: Predicted rows [n_rows] int64.
        inputs: Columns that the model reads.
        given: Values for all rows.
    """
    taken, cells = points(given), dict[str, list[Scalar]]()
    for name in [column.name for column in inputs if not column.is_reference]:
        if name in given:
            cells[name] = [point[name] for point in taken] * len(rows)
        else:
            own = store.columns[name]
            cells[name] = repeated([own[row] for row in rows.tolist()], len(taken))
    return cells


def repeated(items: Sequence[T], n: int) -> list[T]:
    """Return each item n times.

    Args:
        items: The items.
        n: How often each is repeated.
    """
    return [item for item in items for _ in range(n)]


def records_of(
    structures: Any, inputs: Inputs, columns: Sequence[Input]
) -> tuple[list[Record], Given]:
    """Return structures to predict as records, and the inputs that all of them are given.

    Args:
        structures: One structure, or several.
        inputs: Values by column, one for all or [n_structures]; others are missing.
        columns: Columns that the model reads.

    Raises:
        UserError: A column has another length.
        ConfigError: A value for all is none of its input.
    """
    is_one = isinstance(structures, str | Path | dict) or is_structure_object(structures)
    listed = [structures] if is_one else list(structures)
    known = [column.name for column in columns if column.name in inputs]
    for_all = {name: inputs[name] for name in known if np.ndim(inputs[name]) == 0}
    cells: list[dict[str, Scalar]] = [{} for _ in listed]
    for name in [name for name in known if name not in for_all]:
        values = np.asarray(inputs[name]).tolist()
        if len(values) != len(listed):
            found = f"{plural(len(values), 'value')} for {plural(len(listed), 'structure')}"
            raise UserError(f"inputs: {name} has {found}")
        for row, value in zip(cells, values, strict=True):
            row[name] = value
    sources = [text_or_file(one) if isinstance(one, str) else one for one in listed]
    records = [
        Record(f"structure {i}", source, row)
        for i, (source, row) in enumerate(zip(sources, cells, strict=True))
    ]
    return records, given_values(for_all, columns)


def _values(item: Any, column: Input) -> list[Scalar]:
    """Return the values that one item stands for."""
    if column.categories and item == ALL:
        return [*column.categories]
    if isinstance(item, str) and not column.categories and item.count(":") == 2:
        if found := number_range(item):
            return [*found]
        raise ConfigError(
            f"inputs.{column.name}={item}: expected start:stop:step, at most {MOST_POINTS:,} "
            "values, such as 100:1000:100"
        )
    options = [item, parse_scalar(item)] if isinstance(item, str) else [item]
    encoded = [column.encode(option) for option in options]
    if number := [code for code in encoded if not math.isnan(code)]:
        return [column.categories[int(number[0])] if column.categories else number[0]]
    rest = "" if column.categories else ", or a range such as 100:1000:100"
    raise ConfigError(f"inputs.{column.name}={item}: expected {column.expected}{rest}")
