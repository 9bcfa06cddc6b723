"""Columns and rows of csv files with predictions.

A regression target has a column with its unit; a classification target has columns for its most
probable class and for the probability of each class.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from csgcnn.data.targets import Target, with_unit
from csgcnn.data.transforms import interval_in_unit, labels_in_unit, predictions_in_unit
from csgcnn.io import write_csv

T = TypeVar("T")


def predicted_columns(targets: Sequence[Target], with_std: bool = False) -> list[tuple[str, str]]:
    """Return name and unit of the columns of predictions for new structures.

    Args:
        targets: Targets of the model.
        with_std: Whether a column of standard deviations follows each number and probability, or
            two columns with the ends of an interval if the target is transformed.
    """
    columns = []
    for target in targets:
        unit = "" if target.classes else target.unit
        columns += [(target.name, "")] if target.classes else []
        for name in target.outputs:
            columns.append((name, unit))
            columns += [(column, unit) for column in _std_columns(target, name)] if with_std else []
    return columns


def predicted_cells(
    row: Sequence[float], targets: Sequence[Target], std: Sequence[float] | None = None
) -> list[Any]:
    """Return the cells below `predicted_columns` for one row.

    Args:
        row: Values in the units of the targets, and probabilities [sum of n_outputs].
        targets: Targets of the model.
        std: Standard deviations of what is trained [sum of n_outputs].
    """
    outputs = [[value] for value in row]
    if std is not None:
        outputs = [
            [*cells, *ends]
            for cells, ends in zip(outputs, _std_cells(row, std, targets), strict=True)
        ]
    cells: list[Any] = []
    for target, part in zip(targets, _split(outputs, targets), strict=True):
        cells += [_most_probable(target, [value for value, *_ in part])] if target.classes else []
        cells += chain.from_iterable(part)
    return cells


def compared_columns(targets: Sequence[Target], with_std: bool = False) -> list[str]:
    """Return the header of predictions beside known values.

    Args:
        targets: Targets of the model.
        with_std: Whether there is a column of standard deviations for each regression target.
    """
    columns = []
    for target in targets:
        name = target.name
        if target.classes:
            columns += [name, f"{name}_prediction", *target.outputs]
        else:
            own = [name, f"{name}_prediction", f"{name}_error"]
            own += _std_columns(target, name) if with_std else []
            columns += [with_unit(column, target.unit) for column in own]
    return columns


def compared_rows(
    prediction: Tensor, values: Tensor, targets: Sequence[Target], std: Tensor | None = None
) -> Iterator[list[Any]]:
    """Yield the cells below `compared_columns` for each row.

    Args:
        prediction: Values as they are trained, and probabilities [n_rows, sum of n_outputs].
        values: Likewise values and positions of classes [n_rows, n_targets], NaN where unknown.
        targets: Targets of the model.
        std: Standard deviations of what is trained [n_rows, sum of n_outputs].

    Yields:
        A row; an unknown number is NaN, an unknown class is empty.
    """
    prediction, values = predictions_in_unit(prediction, targets), labels_in_unit(values, targets)
    deviations = [None] * len(values) if std is None else std.tolist()
    for row, known, deviation in zip(prediction.tolist(), values.tolist(), deviations, strict=True):
        of_row = [[]] * len(row) if deviation is None else _std_cells(row, deviation, targets)
        cells: list[Any] = []
        parts = zip(targets, _split(row, targets), known, _split(of_row, targets), strict=True)
        for target, outputs, value, ends in parts:
            if target.classes:
                true_class = "" if value != value else target.classes[int(value)]
                cells += [true_class, _most_probable(target, outputs), *outputs]
            else:
                cells += [value, *outputs, outputs[0] - value]
                cells += chain.from_iterable(ends)
        yield cells


def _std_columns(target: Target, name: str) -> list[str]:
    if target.transform == "none":
        return [f"{name}_std"]
    return [f"{name}_lower", f"{name}_upper"]


def _std_cells(
    row: Sequence[float], std: Sequence[float], targets: Sequence[Target]
) -> list[list[float]]:
    """Return the cells below `_std_columns` for each output of a row."""
    if all(target.transform == "none" for target in targets):
        return [[deviation] for deviation in std]
    ends = interval_in_unit(torch.tensor([row]).double(), torch.tensor([std]).double(), targets)
    lower, upper = (end[0].tolist() for end in ends)
    of_output = [target for target in targets for _ in target.outputs]
    return [
        [deviation] if target.transform == "none" else [low, high]
        for target, deviation, low, high in zip(of_output, std, lower, upper, strict=True)
    ]


def _split(row: Sequence[T], targets: Sequence[Target]) -> Iterator[list[T]]:
    start = 0
    for target in targets:
        yield list(row[start : start + target.n_outputs])
        start += target.n_outputs


def _most_probable(target: Target, probabilities: Sequence[float]) -> str:
    return target.classes[max(range(len(probabilities)), key=probabilities.__getitem__)]


def write_predictions(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a csv file of predictions, whole or not at all.

    Args:
        path: The file.
        header: Names of the columns.
        rows: Cells of each row.
    """
    write_csv(path, header, (list(map(format_cell, row)) for row in rows))


def format_cell(value: Any) -> Any:
    """Return the cell for a value: numbers with seven digits, nothing for NaN."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.7g}"
    return value
