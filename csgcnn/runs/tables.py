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
from csgcnn.io import format_cell, write_csv

T = TypeVar("T")


def predicted_columns(
    targets: Sequence[Target], with_std: bool = False, with_bounds: bool = False
) -> list[tuple[str, str]]:
    """Return name and unit of the columns of predictions for new structures.

    Args:
        targets: Targets of the model.
        with_std: Whether a column of standard deviations follows each number and probability, or
            two columns with the ends of an interval if the target is transformed.
        with_bounds: Whether the ends of an interval also follow the standard deviation of numbers.
    """
    columns = []
    for target in targets:
        unit = "" if target.classes else target.unit
        columns += [(target.name, "")] if target.classes else []
        for name in target.outputs:
            endings = _endings(target, with_bounds) if with_std else []
            columns += [(f"{name}{ending}", unit) for ending in ("", *endings)]
    return columns


def predicted_cells(
    row: Sequence[float],
    targets: Sequence[Target],
    std: Sequence[float] | None = None,
    n_stds: float | None = None,
) -> list[Any]:
    """Return the cells below `predicted_columns` for one row.

    Args:
        row: Values in the units of the targets, and probabilities [sum of n_outputs].
        targets: Targets of the model.
        std: Standard deviations of what is trained [sum of n_outputs].
        n_stds: Half of the width of the intervals, in standard deviations; None: 1, and only for
            transformed targets.
    """
    outputs = [[value] for value in row]
    if std is not None:
        outputs = [
            [*cells, *ends]
            for cells, ends in zip(outputs, _std_cells(row, std, targets, n_stds), strict=True)
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
            own += [f"{name}{ending}" for ending in _endings(target)] if with_std else []
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


def _endings(target: Target, with_bounds: bool = False) -> list[str]:
    bounds = ["_lower", "_upper"]
    if target.transform != "none":
        return bounds
    return ["_std", *bounds] if with_bounds and not target.classes else ["_std"]


def _std_cells(
    row: Sequence[float],
    std: Sequence[float],
    targets: Sequence[Target],
    n_stds: float | None = None,
) -> list[list[float]]:
    """Return the cells below `_endings` for each output of a row."""
    of_output = [target for target in targets for _ in target.outputs]
    if n_stds is None and all(target.transform == "none" for target in targets):
        return [[deviation] for deviation in std]
    values, deviations = (torch.tensor([cells]).double() for cells in (row, std))
    ends = interval_in_unit(values, deviations, targets, 1.0 if n_stds is None else n_stds)
    lower, upper = (end[0].tolist() for end in ends)
    return [
        [*[deviation] * (target.transform == "none"), *[low, high] * (ending_count > 1)]
        for target, deviation, low, high in zip(of_output, std, lower, upper, strict=True)
        for ending_count in [len(_endings(target, n_stds is not None))]
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
