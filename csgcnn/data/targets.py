"""Targets of a model: names, units, tasks, classes and transforms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.crystals.records import is_missing_number
from csgcnn.data.classes import any_text, classes_of, position_of, text_hint
from csgcnn.data.derived import derive_column
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.transforms import LARGEST
from csgcnn.errors import ConfigError, UserError

# Smallest relative spread of a target: float32 has 7 digits.
RESOLVED = 1e-5


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
        derived: Expression that makes the column from others, such as "band_gap == 0".
        transform: Name of the transform of a regression target that is trained, see `transforms`.
        label: Name in figures and messages; empty: `name`.
        delta: What is subtracted before training, as in `dataset.delta`; empty: nothing.
    """

    name: str
    unit: str = ""
    task: str = "regression"
    classes: tuple[str, ...] = ()
    derived: str | None = None
    transform: str = "none"
    label: str = ""
    delta: str = ""

    @property
    def n_outputs(self) -> int:
        """Number of outputs of a model for this target."""
        return len(self.classes) or 1

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs: ["band_gap"], or ["is_metal_probability_0", ...]."""
        return [f"{self.name}_probability_{label}" for label in self.classes] or [self.name]

    @property
    def title(self) -> str:
        """Name in figures and messages."""
        return self.label or self.name

    @property
    def trained_title(self) -> str:
        """Name of what is trained: "log10(modulus)" with a transform."""
        is_same = self.transform == "none"
        return self.title if is_same else f"{self.transform}({self.title})"

    @property
    def trained_unit(self) -> str:
        """Unit of what is trained: "log10(GPa)" with a transform."""
        is_same = self.transform == "none" or not self.unit
        return self.unit if is_same else f"{self.transform}({self.unit})"

    def plain(self) -> dict[str, Any]:
        """Return the fields as a checkpoint holds them: without those that earlier versions lack.

        A checkpoint that uses none of them can be read by earlier versions.
        """
        newer = {"transform": "none", "label": "", "delta": ""}
        return {k: v for k, v in asdict(self).items() if k not in newer or v != newer[k]}

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
        if (position := position_of(value, self.classes)) is None:
            if is_missing_number(value):
                return math.nan
            raise ValueError(f"expected one of {', '.join(self.classes)}")
        return float(position)


def describe_targets(store: GraphStore, settings: DatasetSettings, source: Path) -> list[Target]:
    """Describe the target columns of a data set.

    Args:
        store: The data set.
        settings: Names of the columns, and what is known of them.
        source: Path of the data, for messages.

    Raises:
        UserError: A column does not exist, there is not exactly one column to choose, a
            classification target has one class or too many, or a number is text.
        ConfigError: A key names a column that is not a target, or transforms a class.
    """
    names, tasks = settings.targets, settings.tasks
    if names is None:
        names = [
            name
            for name, values in store.columns.items()
            if name not in (settings.delta, settings.fidelity, *(settings.inputs or ()))
            and (name in tasks or not any_text(values))
        ]
        if len(names) != 1:
            hints = [text_hint(name, values) for name, values in store.columns.items()]
            hint = hints[0] if len(hints) == 1 else ""
            raise UserError(
                f"{source}: choose the target column with dataset.targets=[…]; "
                f"the columns are {_column_names(store)}{'. ' if hint else ''}{hint}"
            )
    for key in ("tasks", "transform", "labels"):
        check_names(f"dataset.{key}", getattr(settings, key), names)
    targets = []
    for name in names:
        target = Target(
            name,
            settings.units.get(name, ""),
            tasks.get(name, "regression"),
            derived=settings.derived.get(name),
            transform=settings.transform.get(name, "none"),
            label=settings.labels.get(name, ""),
            delta=settings.delta or "",
        )
        values = column_of(store, target, source)
        if target.task == "classification":
            if target.transform != "none":
                raise ConfigError(f"dataset.transform.{name}: a class has no transform; omit it")
            target = replace(target, classes=classes_of(name, values, source))
        elif hint := text_hint(name, values):
            raise UserError(f"{source}: {hint}")
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
            _check_spread(target.trained_title, known.double())


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


def derive_columns(
    store: GraphStore, derived: Mapping[str, str], source: Path
) -> dict[str, dict[int, str]]:
    """Add columns that are computed from others; a missing value remains missing.

    Args:
        store: The data set, which is changed.
        derived: Expressions by names of new columns, see `expressions`.
        source: Path of the data, for messages.

    Returns:
        Reasons why values cannot be computed, by column and row.

    Raises:
        ConfigError: An expression is malformed, or its name is that of a column.
        UserError: A column of an expression does not exist or holds text.
    """
    reasons = {}
    for name, expression in derived.items():
        if name in store.columns:
            raise ConfigError(
                f"dataset.derived.{name}: {source} already has a column {name}; choose another name"
            )
        store.columns[name], reasons[name] = derive_column(store, name, expression, source)
    return reasons


def _column_names(store: GraphStore) -> str:
    return ", ".join(store.columns) or "none"


def with_unit(name: str, unit: str) -> str:
    """Return a column header or axis label: "band_gap [eV]".

    Args:
        name: Name of the quantity.
        unit: Its unit; if empty, the name alone is returned.
    """
    return f"{name} [{unit}]" if unit else name
