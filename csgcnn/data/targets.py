"""Targets of a model: names, units, tasks and classes, and columns derived from others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from csgcnn.crystals.records import is_missing_number
from csgcnn.data.comparisons import parse_comparison
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError, UserError

# Largest absolute value of a target. The largest float32 is 3e38; the rest of the range is left
# for differences and for predictions beyond the data.
LARGEST = 1e37
# Smallest relative spread of a target: float32 has 7 digits.
RESOLVED = 1e-5
# Largest number of classes, that of the space groups; a column with more is rather a number.
MOST_CLASSES = 230


@dataclass(frozen=True, slots=True)
class Target:
    """A property that a model predicts: a number (regression) or a class (classification).

    A regression target has one output, the value in `unit`. A classification target has one output
    per class, its probability. Among the values of a data set, a class is its position in
    `classes`.

    Attributes:
        name: Name of the column.
        unit: Unit of a regression target.
        task: "regression" or "classification".
        classes: Sorted labels of a classification target.
        derived: Comparison that makes the column from another one, such as "band_gap == 0".
    """

    name: str
    unit: str = ""
    task: str = "regression"
    classes: tuple[str, ...] = ()
    derived: str | None = None

    @property
    def n_outputs(self) -> int:
        """Number of outputs of a model for this target."""
        return len(self.classes) or 1

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs: ["band_gap"], or ["is_metal_probability_0", ...]."""
        return [f"{self.name}_probability_{label}" for label in self.classes] or [self.name]

    def encode(self, value: Scalar) -> float:
        """Return the number that stands for a value of the column.

        Args:
            value: A cell of the column.

        Returns:
            NaN if the value is missing, the position of a class in `classes`, or the value.

        Raises:
            ValueError: The value is not a finite number, or not one of the classes.
        """
        if value is None:
            return math.nan
        if not self.classes:
            if is_missing_number(value):
                return math.nan
            if isinstance(value, str):
                raise ValueError("expected a number")
            if not abs(value) <= LARGEST:
                raise ValueError(f"expected a finite number, at most {LARGEST:g}")
            return float(value)
        if (label := label_of(value)) not in self.classes:
            if is_missing_number(value):
                return math.nan
            raise ValueError(f"expected one of {', '.join(self.classes)}")
        return float(self.classes.index(label))


def label_of(value: float | int | str | bool) -> str:
    """Return the label of a class: 1, 1.0, true and "1" are the same class."""
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, int) or value.is_integer() else repr(value)


def describe_targets(
    store: GraphStore,
    names: Sequence[str] | None,
    tasks: Mapping[str, str],
    units: Mapping[str, str],
    derived: Mapping[str, str],
    source: Path,
) -> list[Target]:
    """Describe the target columns of a data set.

    Args:
        store: The data set.
        names: Names of the columns; None for the only column that can be a target.
        tasks: Task of each target that is not a regression.
        units: Units by column.
        derived: Comparisons by the columns that they make.
        source: Path of the data, for messages.

    Raises:
        UserError: A column does not exist, there is not exactly one column to choose, or a
            classification target has one class or too many.
        ConfigError: A task is given for a column that is not a target.
    """
    if names is None:
        names = [
            name for name, values in store.columns.items() if name in tasks or not _any_text(values)
        ]
        if len(names) != 1:
            raise UserError(
                f"{source}: choose the target column with dataset.targets=[…]; "
                f"the columns are {_column_names(store)}"
            )
    check_names("dataset.tasks", tasks, names)
    targets = []
    for name in names:
        target = Target(
            name, units.get(name, ""), tasks.get(name, "regression"), derived=derived.get(name)
        )
        values = column_of(store, target, source)
        if target.task == "classification":
            target = replace(target, classes=_classes(name, values, source))
        targets.append(target)
    return targets


def column_of(store: GraphStore, target: Target, source: Path) -> list[Scalar]:
    """Return the column of a target.

    Args:
        store: The data set.
        target: The target.
        source: Path of the data, for messages.

    Raises:
        UserError: The column does not exist.
    """
    if target.name not in store.columns:
        raise UserError(
            f"{source}: the target column {target.name!r} does not exist; "
            f"the columns are {_column_names(store)}"
        )
    return store.columns[target.name]


def check_names(key: str, given: Mapping[str, object], names: Sequence[str]) -> None:
    """Check that the entries of a configuration key belong to targets.

    Args:
        key: Full name of the key.
        given: The entries by name of a target.
        names: Names of the targets.

    Raises:
        ConfigError: One does not.
    """
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(
            f"{key}.{unknown[0]}: {unknown[0]} is not a target; the targets are {', '.join(names)}"
        )


def check_labels(values: Tensor, targets: Sequence[Target]) -> None:
    """Check that every target can be learned from the training rows.

    Args:
        values: [n_rows, n_targets], NaN where missing.
        targets: The targets.

    Raises:
        UserError: A target has no known label, a classification target labels of one class only,
            or a regression target no spread that float32 resolves.
    """
    for target, column in zip(targets, values.T, strict=True):
        known = column[column.isfinite()]
        if not len(known):
            raise UserError(
                f"no training row has a value of {target.name}; "
                "change dataset.split or dataset.targets"
            )
        if target.classes:
            _check_classes(target, known)
        else:
            _check_spread(target.name, known.double())


def _check_classes(target: Target, known: Tensor) -> None:
    present = known.unique().tolist()
    if len(present) < 2:
        raise UserError(
            f"all training rows are of one class, {target.name} = "
            f"{target.classes[int(present[0])]}: there is nothing to learn. Keep the shares of "
            f"the classes with dataset.split.stratify={target.name}, or remove the target"
        )


def _check_spread(name: str, known: Tensor) -> None:
    low, high = known.min().item(), known.max().item()
    spread, smallest = high - low, torch.finfo(torch.float32).tiny
    if spread <= RESOLVED * max(abs(low), abs(high)) or spread < smallest:
        values = f"is {low:.7g}" if low == high else f"lies between {low:.9g} and {high:.9g}"
        raise UserError(
            f"{name} {values} in all training rows that have it ({len(known)}): there is nothing "
            "to learn; change dataset.split, remove the target, or subtract a constant from its "
            "column, because numbers have 7 digits"
        )


def derive_columns(store: GraphStore, derived: Mapping[str, str], source: Path) -> None:
    """Add columns of 0 and 1 made by comparisons; a missing value remains missing.

    Args:
        store: The data set, which is changed.
        derived: Comparisons `<column> <sign> <number>` by names of new columns.
        source: Path of the data, for messages.

    Raises:
        ConfigError: An expression is not a comparison, or its name is that of a column.
        UserError: The compared column does not exist or holds text.
    """
    for name, expression in derived.items():
        if name in store.columns:
            raise ConfigError(
                f"dataset.derived.{name}: {source} already has a column {name}; choose another name"
            )
        store.columns[name] = _derive(store, name, expression, source)


def _derive(store: GraphStore, name: str, expression: str, source: Path) -> list[Scalar]:
    key = f"dataset.derived.{name}={expression!r}"
    try:
        comparison = parse_comparison(expression)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}, such as 'band_gap == 0'") from None
    column = comparison.column
    if column not in store.columns:
        raise UserError(
            f"{key}: {source} has no column {column!r}; the columns are {_column_names(store)}"
        )
    values: list[Scalar] = []
    for id_, value in zip(store.ids, store.columns[column], strict=True):
        if value is None or value != value or is_missing_number(value):
            values.append(None)
        elif isinstance(value, str):
            raise UserError(f"{key}: {column} of {id_} is {value!r:.40}, expected a number")
        else:
            values.append(int(comparison.holds(value)))
    return values


def _classes(name: str, values: Sequence[Scalar], source: Path) -> tuple[str, ...]:
    labels = {label_of(value) for value in values if value is not None and value == value}
    if not _any_text(values):
        labels = {label for label in labels if not is_missing_number(label)}
    if not 2 <= len(labels) <= MOST_CLASSES:
        some = ", ".join(sorted(labels, key=_class_order)[:3])
        raise UserError(
            f"{source}: {name} has {len(labels)} different values{f' ({some}, …)' if some else ''},"
            f" expected 2 to {MOST_CLASSES} classes. Make classes from numbers with "
            f"dataset.derived.NAME='{name} > 0'"
        )
    return tuple(sorted(labels, key=_class_order))


def _class_order(label: str) -> tuple[bool, float, str]:
    """Numbers first, in order, then text."""
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def _any_text(values: Sequence[Scalar]) -> bool:
    """Return whether some values are text and do not stand for a missing number."""
    return any(isinstance(value, str) and not is_missing_number(value) for value in values)


def _column_names(store: GraphStore) -> str:
    return ", ".join(store.columns) or "none"


def with_unit(name: str, unit: str) -> str:
    """Return a column header or axis label: "band_gap [eV]".

    Args:
        name: Name of the quantity.
        unit: Its unit; if empty, the name alone is returned.
    """
    return f"{name} [{unit}]" if unit else name
