"""What a model learns: the targets with their units, tasks and classes, and columns derived from others."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError, UserError

LARGEST = (
    1e37  # the largest float32 is 3e38: that leaves room for differences and for predictions beyond
)
RESOLVED = 1e-5  # float32 has 7 digits: numbers that are equal but for this part of them cannot be told apart well
MOST_CLASSES = 230  # as many as there are space groups; more are rather a number to be regressed


@dataclass(frozen=True, slots=True)
class Target:
    """One property that a model learns: a number (regression) or one of several classes (classification).

    A model answers a regression target by one value, in `unit`, and a classification target by the probability of each
    of its `classes`. Among the targets of a data set, a class is its position in `classes`.
    """

    name: str
    unit: str = ""
    task: str = "regression"  # or classification
    classes: tuple[str, ...] = ()  # labels of a classification target, sorted
    derived: str | None = (
        None  # the comparison that makes it from another column, such as "band_gap == 0"
    )

    @property
    def n_outputs(self) -> int:
        """How many numbers a model answers."""
        return len(self.classes) or 1

    @property
    def outputs(self) -> list[str]:
        """Names of the numbers a model answers: `band_gap`, or `is_metal_probability_0`, `is_metal_probability_1`."""
        return [f"{self.name}_probability_{label}" for label in self.classes] or [self.name]

    def encode(self, value: Scalar) -> float:
        """The number that stands for a value of the column: NaN if missing, the position in `classes` of a class.

        Raises:
            ValueError: a regression target is text or not finite, or the class is none of `classes`.
        """
        if value is None:
            return math.nan
        if not self.classes:
            if isinstance(value, str):
                raise ValueError("expected a number")
            if not abs(value) <= LARGEST:
                raise ValueError(f"expected a finite number, at most {LARGEST:g}")
            return float(value)
        if (label := label_of(value)) not in self.classes:
            raise ValueError(f"expected one of {', '.join(self.classes)}")
        return float(self.classes.index(label))


def label_of(value: float | int | str | bool) -> str:
    """The name of a class: text as it is, numbers in their shortest form, so that 1, 1.0 and true are one class."""
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
    """Describe the target columns; `names`: None means the only column that can be one.

    Raises:
        UserError: a column does not exist, there is no single one to choose, or a classification target has one class
            or too many.
        ConfigError: a task is given for what is no target.
    """
    if names is None:
        names = [
            name for name, values in store.columns.items() if name in tasks or not _any_text(values)
        ]
        if len(names) != 1:
            raise UserError(
                f"{source}: say which column is the target: dataset.targets=[…] of {_listed(store)}"
            )
    check_names("dataset.tasks", tasks, names)
    targets = []
    for name in names:
        target = Target(
            name, units.get(name, ""), tasks.get(name, "regression"), derived=derived.get(name)
        )
        values = column_of(store, target, source)
        is_class = target.task == "classification"
        targets.append(
            replace(target, classes=_classes(name, values, source)) if is_class else target
        )
    return targets


def column_of(store: GraphStore, target: Target, source: Path) -> list[Scalar]:
    """The target's column in the data set.

    Raises:
        UserError: there is none.
    """
    if target.name not in store.columns:
        raise UserError(
            f"{source}: there is no column {target.name!r} to be the target; there are {_listed(store)}"
        )
    return store.columns[target.name]


def check_names(key: str, given: Mapping[str, object], names: Sequence[str]) -> None:
    """Check that the entries of a configuration key belong to targets.

    Raises:
        ConfigError: one does not.
    """
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(
            f"{key}.{unknown[0]}: {unknown[0]} is no target; the targets are {', '.join(names)}"
        )


def check_labels(values: Tensor, targets: Sequence[Target]) -> None:
    """Check that every target can be learned from the training rows' `values` [n_rows, n_targets], NaN where missing.

    Raises:
        UserError: a target has no known label, a classification target labels of one class only, or a regression
            target no spread that float32 resolves.
    """
    for target, column in zip(targets, values.T, strict=True):
        known = column[column.isfinite()].unique().tolist()
        if not known:
            raise UserError(
                f"no training row has a value of {target.name}: change dataset.split or dataset.targets"
            )
        if target.classes and len(known) < 2:
            raise UserError(
                f"all training rows are of one class, {target.name} = {target.classes[int(known[0])]}: there is nothing"
                f" to learn; keep the classes' shares with dataset.split.stratify={target.name}, or drop the target"
            )
        if not target.classes:
            _check_spread(target.name, column[column.isfinite()].double())


def _check_spread(name: str, known: Tensor) -> None:
    low, high = known.min().item(), known.max().item()
    if (
        high - low <= RESOLVED * max(abs(low), abs(high))
        or high - low < torch.finfo(torch.float32).tiny
    ):
        told = f"is {low:.7g}" if low == high else f"lies between {low:.9g} and {high:.9g}"
        raise UserError(
            f"{name} {told} in all training rows that have it ({len(known)}): there is nothing to learn; change "
            "dataset.split, drop the target, or subtract a constant from its column, as numbers are kept to 7 digits"
        )


COMPARISON = re.compile(
    r"\s*(?P<column>[^<>=!]*[^<>=!\s])\s*(?P<sign><=|>=|==|!=|<|>)"
    r"\s*(?P<number>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)\s*"
)
SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def derive_columns(store: GraphStore, derived: Mapping[str, str], source: Path) -> None:
    """Add a column of 0 and 1 for each comparison `<column> <sign> <number>`; where the column is missing, so is it.

    Raises:
        ConfigError: an expression is no such comparison, or its name is that of a column of the data set.
        UserError: the column does not exist or holds text.
    """
    for name, expression in derived.items():
        if name in store.columns:
            raise ConfigError(
                f"dataset.derived.{name}: {source} already has a column {name}; choose another name"
            )
        store.columns[name] = _derive(store, name, expression, source)


def _derive(store: GraphStore, name: str, expression: str, source: Path) -> list[Scalar]:
    parsed = COMPARISON.fullmatch(expression)
    if parsed is None:
        raise ConfigError(
            f"dataset.derived.{name}={expression!r}: expected <column> <sign> <number> with one of {' '.join(SIGNS)}, "
            "such as 'band_gap == 0'"
        )
    column, compare, number = parsed["column"], SIGNS[parsed["sign"]], float(parsed["number"])
    if column not in store.columns:
        raise UserError(
            f"dataset.derived.{name}={expression!r}: {source} has no column {column!r}; there are {_listed(store)}"
        )
    values: list[Scalar] = []
    for id_, value in zip(store.ids, store.columns[column], strict=True):
        if isinstance(value, str):
            raise UserError(
                f"dataset.derived.{name}={expression!r}: {column} of {id_} is {value!r:.40}, expected a number"
            )
        values.append(None if value is None or value != value else int(compare(value, number)))
    return values


def _classes(name: str, values: Sequence[Scalar], source: Path) -> tuple[str, ...]:
    labels = {label_of(value) for value in values if value is not None and value == value}
    if not 2 <= len(labels) <= MOST_CLASSES:
        some = ", ".join(sorted(labels, key=_class_order)[:3])
        raise UserError(
            f"{source}: {name} has {len(labels)} different values{f' ({some}, …)' if some else ''}, expected 2 to "
            f"{MOST_CLASSES} classes; classes can be made of numbers with dataset.derived.NAME='{name} > 0'"
        )
    return tuple(sorted(labels, key=_class_order))


def _class_order(label: str) -> tuple[bool, float, str]:
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def _any_text(values: Sequence[Scalar]) -> bool:
    return any(isinstance(value, str) for value in values)


def _listed(store: GraphStore) -> str:
    return ", ".join(store.columns) or "none"


def with_unit(name: str, unit: str) -> str:
    """A column header or axis label: `band_gap [eV]`."""
    return f"{name} [{unit}]" if unit else name
