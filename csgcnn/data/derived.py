"""Columns that are computed from others."""

from collections.abc import Mapping
from pathlib import Path

from csgcnn.data.expressions import TextFoundError, UnknownColumnError, parse_expression
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError, UserError

EXAMPLES = "such as 'band_gap == 0' or 'log10(modulus)'"


def _computed(
    store: GraphStore, name: str, expression: str, source: Path
) -> tuple[list[Scalar], dict[int, str]]:
    """Return a new column, and the reasons why values of rows cannot be computed, by row."""
    key = f"dataset.derived.{name}={expression!r}"
    try:
        parsed = parse_expression(expression, store.columns)
        values, failed = parsed.values(store.columns)
    except UnknownColumnError as error:
        raise UserError(
            f"{key}: {source} has no column {error.column!r}; the columns are "
            f"{', '.join(store.columns) or 'none'}"
        ) from None
    except TextFoundError as error:
        id_ = store.ids[error.row]
        raise UserError(
            f"{key}: {error.column} of {id_} is {error.value!r:.40}, expected a number"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{key}: {error}, {EXAMPLES}") from None
    reasons = {}
    for row in failed:
        inputs = ", ".join(f"{column} is {store.columns[column][row]}" for column in parsed.columns)
        reasons[row] = f"{name} = {expression} cannot be computed: {inputs}"
    return values, reasons


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
        store.columns[name], reasons[name] = _computed(store, name, expression, source)
    return reasons
