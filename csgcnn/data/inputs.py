"""Columns that a model reads beside the structure: those of `dataset.inputs` and `delta`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.records import is_missing, none_if_missing
from csgcnn.data.classes import MOST_CLASSES, labels_of, position_of
from csgcnn.data.columns import existing_column
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target
from csgcnn.data.transforms import LARGEST
from csgcnn.errors import ConfigError, UserError

FIDELITY = "fidelity"  # column that `dataset.fidelities` adds
COMPOSITION = "composition"  # the value of `dataset.delta` that is no column


@dataclass(frozen=True, slots=True)
class Input:
    """A column that a model reads beside the structure: a number, or one of some categories.

    Attributes:
        name: Name of the column.
        categories: Sorted labels; empty: a number.
        is_reference: Whether it is the column of `dataset.delta`, which is added to predictions.
        is_fidelity: Whether it names the method by which the target is known.
        columns: Columns of `dataset.fidelities` that hold the target, one for each category.
    """

    name: str
    categories: tuple[str, ...] = ()
    is_reference: bool = False
    is_fidelity: bool = False
    columns: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What a cell of the column must be, in words."""
        if self.is_reference:
            return f"the number that dataset.delta={self.name} adds"
        if self.categories:
            return f"one of {', '.join(self.categories)}, an input of the model"
        return "a number, an input of the model"

    def plain(self) -> dict[str, Any]:
        """Return the fields as a checkpoint holds them."""
        return asdict(self)

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> "Input":
        """Return the input whose fields a checkpoint holds."""
        tuples = {name: tuple(fields[name]) for name in ("categories", "columns")}
        return cls(**{**fields, **tuples})

    def encode(self, value: Scalar) -> float:
        """Return the number that stands for a cell, the position of a category; NaN: neither."""
        if self.categories:
            position = None if value is None else position_of(value, self.categories)
            return math.nan if position is None else float(position)
        if isinstance(value, float | int) and abs(value) <= LARGEST:
            return float(value)
        return math.nan


def reference_inputs(targets: Sequence[Target]) -> list[Input]:
    """Return the columns that are subtracted from targets; without duplicates, at most one."""
    names = dict.fromkeys(t.delta for t in targets if t.delta not in ("", COMPOSITION))
    return [Input(name, is_reference=True) for name in names]


def describe_inputs(store: GraphStore, settings: DatasetSettings, source: Path) -> list[Input]:
    """Describe the columns of `dataset.inputs`, and that of the fidelity.

    A fidelity and columns with text have categories.

    Args:
        store: The data set.
        settings: Names of the columns.
        source: Path of the data, for messages.

    Raises:
        ConfigError: A column is a target.
        UserError: A column is absent, or has one category or too many.
    """
    inputs = []
    fidelity = FIDELITY if settings.fidelities else settings.fidelity
    for name in dict.fromkeys([*(settings.inputs or ()), *([fidelity] if fidelity else ())]):
        is_fidelity = name == fidelity
        key = f"dataset.fidelity={name}" if is_fidelity else f"dataset.inputs=[{name}]"
        if name in (settings.targets or ()):
            raise ConfigError(f"{key} is a target; expected other columns")
        values = existing_column(store, name, key, source)
        known = [value for value in values if not is_missing(value)]
        # Some text among numbers is a mistake, which rejects its rows.
        n_texts = sum(isinstance(value, str | bool) for value in known)
        is_category = is_fidelity or 2 * n_texts > len(known)
        labels = labels_of(values) if is_category else ()
        sources = settings.fidelities if is_fidelity else {}
        columns = [sources[label] for label in labels if label in sources]
        inputs.append(Input(name, labels, is_fidelity=is_fidelity, columns=tuple(columns)))
        if is_category and not 2 <= len(labels) <= MOST_CLASSES:
            raise UserError(
                f"{key}: {source} has {len(labels)} different values of it, expected 2 to "
                f"{MOST_CLASSES} categories, or numbers"
            )
    return inputs


def check_inputs(store: GraphStore, inputs: Sequence[Input], train: Tensor) -> None:
    """Check that training rows have different inputs.

    Args:
        store: The data set, whose inputs are read.
        inputs: Those of `dataset.inputs`.
        train: Training rows [n_train] int64.

    Raises:
        UserError: An input is the same in all of them.
    """
    for column, values in own_values(store, inputs, train):
        if (values == values[:1]).all():
            raise UserError(
                f"dataset.inputs=[{column.name}] has one value in all training rows: there is "
                "nothing to learn; omit it, or change dataset.split"
            )


def untrained_categories(
    store: GraphStore, inputs: Sequence[Input], train: Tensor
) -> Iterator[str]:
    """Yield a warning for each category that occurs in no training row.

    Args:
        store: The data set, whose inputs are read.
        inputs: Those of `dataset.inputs`.
        train: Training rows [n_train] int64.
    """
    for column, values in own_values(store, inputs, train):
        present = set(values.tolist())
        for position, label in enumerate(column.categories):
            if position not in present:
                yield f"{column.name} = {label} occurs in no training row; it cannot be learned"


def own_values(
    store: GraphStore, inputs: Sequence[Input], rows: Tensor
) -> Iterator[tuple[Input, Tensor]]:
    """Yield each input of `dataset.inputs` with its values [n_rows], encoded.

    Args:
        store: The data set, whose inputs are read.
        inputs: Those of `dataset.inputs`.
        rows: [n_rows] int64.
    """
    for i, column in enumerate(inputs, -len(inputs)):
        if store.inputs is not None:
            yield column, store.inputs[rows, i]


def read_columns(
    store: GraphStore, targets: Sequence[Target], inputs: Sequence[Input], source: Path
) -> None:
    """Read the columns of `dataset.delta` and `dataset.inputs` into the batches of a data set.

    Args:
        store: The data set.
        targets: The targets.
        inputs: Those of `dataset.inputs`.
        source: Path of the data, for messages.

    Raises:
        ConfigError: The column of `dataset.delta` cannot be subtracted from a target.
        UserError: It is absent.
    """
    _check_delta(store, targets, source)
    _read(store, [*reference_inputs(targets), *inputs])


def _check_delta(store: GraphStore, targets: Sequence[Target], source: Path) -> None:
    """Check that `dataset.delta` can be subtracted from targets."""
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


def _read(store: GraphStore, inputs: Sequence[Input], given: Sequence[str] = ()) -> None:
    """Read columns into the batches of a store, unless that is done; those given are set later.

    A column that is absent has no value in any row. Rows without a number or category get a reason
    in `store.lacking`.
    """
    key = (tuple(inputs), tuple(given))
    if not inputs or key == store.inputs_key:
        return
    numbers: list[list[float]] = []
    lacking: dict[int, str] = {}
    for column in inputs:
        cells = store.columns.get(column.name, [None] * len(store))
        numbers.append([column.encode(cell) for cell in cells])
        for row, number in enumerate(numbers[-1]):
            if math.isnan(number) and column.name not in given:
                is_absent = none_if_missing(cells[row]) is None
                text = "missing" if is_absent else f"{cells[row]!r:.40}"
                lacking.setdefault(row, f"{column.name} is {text}, expected {column.expected}")
    tensor = torch.tensor(numbers, dtype=torch.float32).T.contiguous()
    store.set_inputs(key, tensor, lacking)


def usable_rows(
    store: GraphStore, rows: range, inputs: Sequence[Input], given: Sequence[str] = ()
) -> tuple[Tensor, list[Rejected]]:
    """Return the rows that have all inputs [n_rows] int64, and why others are rejected.

    Args:
        store: The graphs.
        rows: Rows to predict.
        inputs: Columns that the model reads.
        given: Names of those whose values are set later, for all rows.
    """
    _read(store, inputs, given)
    if not inputs:
        return torch.arange(rows.start, rows.stop), []
    lacking = [row for row in rows if row in store.lacking]
    usable = [row for row in rows if row not in store.lacking]
    rejected = [Rejected(store.ids[row], store.lacking[row]) for row in lacking]
    return torch.tensor(usable, dtype=torch.long), rejected
