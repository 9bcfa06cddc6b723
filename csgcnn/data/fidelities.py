"""Values of one target by several methods, in columns of one record: `dataset.fidelities`."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from csgcnn.crystals.records import is_missing
from csgcnn.data.columns import existing_column
from csgcnn.data.inputs import FIDELITY, Input
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError, UserError


def known_fidelities(store: GraphStore, inputs: Sequence[Input]) -> dict[str, str]:
    """Return the columns of a data set that hold fidelities of a model, by name.

    Args:
        store: The data set; if it has a row for each fidelity, nothing is returned.
        inputs: What the model reads beside the structure.
    """
    pairs = [zip(one.categories, one.columns, strict=True) for one in inputs if one.columns]
    known = {} if FIDELITY in store.columns else dict(chain.from_iterable(pairs))
    return {label: column for label, column in known.items() if column in store.columns}


def spread_fidelities(
    store: GraphStore, fidelities: Mapping[str, str], targets: Sequence[str], source: Path
) -> GraphStore:
    """Return a data set with a row for each value: each crystal has one for each fidelity.

    Rows have the ids `ID:FIDELITY`, the name in the column `fidelity`, and the value in that of the
    target. The other columns are repeated. A crystal without any value has one row without value.

    Args:
        store: The data set.
        fidelities: Columns of the values, by name of the fidelity.
        targets: Name of the target, which is one of the columns.
        source: Path of the data, for messages.

    Raises:
        ConfigError: The target is none of the columns.
        UserError: A column is absent, or the data have a column `fidelity`.
    """
    key = "dataset.fidelities"
    if len(targets) != 1 or targets[0] not in fidelities.values():
        raise ConfigError(
            f"dataset.targets=[{','.join(targets)}]: expected one of the columns of {key}, "
            f"{', '.join(fidelities.values())}"
        )
    for label, column in fidelities.items():
        existing_column(store, column, f"{key}.{label}={column}", source)
    if FIDELITY in store.columns:
        raise UserError(
            f"{key}: {source} has a column {FIDELITY}; give dataset.fidelity={FIDELITY}, or rename "
            "it"
        )
    rows: list[int] = []
    labels: list[str] = []
    values: list[Scalar] = []
    for row in range(len(store)):
        found = {label: store.columns[column][row] for label, column in fidelities.items()}
        known = {label: value for label, value in found.items() if not is_missing(value)}
        for label, value in (known or {[*fidelities][-1]: None}).items():
            rows.append(row)
            labels.append(label)
            values.append(value)
    ids = [f"{store.ids[row]}:{label}" for row, label in zip(rows, labels, strict=True)]
    columns = {name: [cells[row] for row in rows] for name, cells in store.columns.items()}
    columns |= {FIDELITY: [*labels], targets[0]: values}
    return GraphStore(store.graphs.take(np.array(rows)), ids, columns, store.settings)
