"""Targets of a model: names, units, tasks, classes and transforms."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from csgcnn.config.grids import grid_points
from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.crystals.records import is_missing_number
from csgcnn.data.classes import any_text, classes_of, position_of, text_hint
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.transforms import LARGEST, transformed
from csgcnn.errors import ConfigError, UserError


@dataclass(frozen=True, slots=True)
class Target:
    """A property that a model predicts: a number (regression) or a class (classification).

    A regression target has one output, the value in `unit`, or one for each point of its `grid`. A
    classification target has one output per class, its probability. Among the values of a data set,
    a class is its position in `classes`.

    Attributes:
        name: Name of the column.
        unit: Unit of a regression target.
        task: "regression" or "classification".
        classes: Sorted labels of a classification target.
        derived: Expression that makes the column from others, such as "band_gap == 0".
        transform: Name of the transform of a regression target that is trained, see `transforms`.
        label: Name in figures and messages; empty: `name`.
        delta: What is subtracted before training, as in `dataset.delta`; empty: nothing.
        grid: Increasing points at which a regression target has values; empty: it is one number.
        grid_unit: Unit of the grid.
    """

    name: str
    unit: str = ""
    task: str = "regression"
    classes: tuple[str, ...] = ()
    derived: str | None = None
    transform: str = "none"
    label: str = ""
    delta: str = ""
    grid: tuple[float, ...] = ()
    grid_unit: str = ""

    @property
    def n_labels(self) -> int:
        """Number of values of a crystal: 1, or the number of points of the grid."""
        return len(self.grid) or 1

    @property
    def n_outputs(self) -> int:
        """Number of outputs of a model for this target."""
        return len(self.classes) or self.n_labels

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs: [band_gap], [is_metal_probability_0, ...] or [dos_0.5, ...]."""
        names = [f"{self.name}_probability_{label}" for label in self.classes]
        return names or [f"{self.name}_{point:.12g}" for point in self.grid] or [self.name]

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
        newer = {"transform": "none", "label": "", "delta": "", "grid": (), "grid_unit": ""}
        return {k: v for k, v in asdict(self).items() if k not in newer or v != newer[k]}

    def encode_all(self, value: Scalar) -> list[float]:
        """Return the numbers that stand for a value of the column [n_labels], NaN where missing.

        Args:
            value: A cell of the column; with a grid, the text of a JSON list.

        Raises:
            ValueError: The value is none of this target; the message says what was expected.
        """
        if not self.grid:
            return [transformed(self.encode(value), self)]
        if value is None:
            return [math.nan] * len(self.grid)
        numbers = list_of(value)
        expected = f"expected a list of {len(self.grid)} numbers, one for each point of the grid"
        if numbers is None:
            raise ValueError(expected)
        if len(numbers) != len(self.grid):
            raise ValueError(f"{expected}, not {len(numbers)}")
        return [self._encode_item(*item) for item in zip(numbers, self.grid, strict=True)]

    def _encode_item(self, number: Any, point: float) -> float:
        if number is None:
            return math.nan
        at_point = f"at {point:g} is {number!r:.40}"
        if type(number) not in (int, float) or not abs(number) <= LARGEST:
            limit = f"at most {LARGEST:g}"
            raise ValueError(f"{at_point}: expected a finite number, {limit}, or null if missing")
        try:
            return transformed(float(number), self)
        except ValueError as error:
            raise ValueError(f"{at_point}: {error}") from None

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
    for key in ("tasks", "transform", "labels", "grid", "grid_units", "grid_loss"):
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
            grid=grid_points(name, settings.grid[name]) if name in settings.grid else (),
            grid_unit=settings.grid_units.get(name, ""),
        )
        values = column_of(store, target, source)
        if target.task == "classification":
            if target.transform != "none":
                raise ConfigError(f"dataset.transform.{name}: a class has no transform; omit it")
            target = replace(target, classes=classes_of(name, values, source))
        elif not target.grid and (hint := text_hint(name, values)):
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


def output_sizes(targets: Sequence[Target]) -> list[int]:
    """Return the outputs of a network per value: 1 for a number, else the number of classes."""
    return [size for t in targets for size in ([t.n_outputs] if t.classes else [1] * t.n_labels)]


def have_std(targets: Sequence[Target]) -> bool:
    """Return whether an ensemble has standard deviations, which targets with a grid lack."""
    return not any(target.grid for target in targets)


def label_columns(values: Tensor, targets: Sequence[Target]) -> tuple[Tensor, ...]:
    """Return the values of each target [n_rows, n_labels].

    Args:
        values: Values of all targets [n_rows, sum of n_labels].
        targets: The targets.
    """
    return values.split([target.n_labels for target in targets], dim=1)


def list_of(value: object) -> list[Any] | None:
    """Return the list that a text of JSON is, or None."""
    try:
        found = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if isinstance(found, list) else None


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


def _column_names(store: GraphStore) -> str:
    return ", ".join(store.columns) or "none"


def with_unit(name: str, unit: str) -> str:
    """Return a column header or axis label: "band_gap [eV]".

    Args:
        name: Name of the quantity.
        unit: Its unit; if empty, the name alone is returned.
    """
    return f"{name} [{unit}]" if unit else name
