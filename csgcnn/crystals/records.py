"""Records of a data set: an id, the source of a structure and scalar columns."""

import math
from dataclasses import dataclass, field
from typing import Any

from csgcnn.crystals.checks import FormulaMismatch
from csgcnn.crystals.structures import StructureSource

Scalar = float | int | str | bool | None

# Columns of ids, in the order of preference.
ID_COLUMNS = ("material_id", "jid", "mbid", "id")
# Larger integers do not fit into a float.
_MAX_INTEGER = 10**300
# "Na" is not missing: it is sodium.
_MISSING = {"", "na", "NA", "N/A", "n/a", "nan", "NaN", "None", "null", "NULL", "#N/A", "<NA>"}
# Missing values of a column of numbers; elsewhere they may be classes.
_MISSING_NUMBERS = {"-", "--", "---", "–", "—", "?", "."}


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data set.

    Attributes:
        id: Id, unique within the data set.
        source: The structure, as `csgcnn.crystals.structures.to_crystal` reads it.
        columns: The other scalar values by column; None where a value is missing.
        line: Number of the line in a table of text.
    """

    id: str
    source: StructureSource
    columns: dict[str, Scalar]
    line: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Name the columns of a data set; part of the cache key.

    Attributes:
        id_column: Column of the ids. None: material_id, jid, mbid or id, else the index of the
            DataFrame or the row number from 0.
        structure_column: Column of the structures. None: the first of the usual names that exists.
        columns: Names of the columns of a csv table without a header; of an id_prop.csv, those
            behind the id.
        ids_by_name: Whether the ids of a table without ids are those of its column `name`, or the
            names of its structure files.
        all_blocks: Whether each block of a CIF is predicted as a record of its own.
        formula_mismatch: What happens to a crystal that differs from the formula in its file.
        prototypes: Whether the records get the column `prototype`.
        vectors: Columns whose lists of numbers are kept, as text of JSON; other lists are left out.
    """

    id_column: str | None = None
    structure_column: str | None = None
    columns: tuple[str, ...] | None = None
    ids_by_name: bool = False
    all_blocks: bool = False
    formula_mismatch: FormulaMismatch = "refuse"
    prototypes: bool = False
    vectors: tuple[str, ...] = ()


DEFAULT_OPTIONS = ReadOptions()
# Options that name columns.
COLUMN_OPTIONS = ("id_column", "structure_column", "columns")


def none_if_missing(value: Any) -> Scalar:
    """Return a scalar, or None if it stands for a missing value such as NaN or "na"."""
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return math.inf if value > 0 else -math.inf
    # NaN is the only value that differs from itself.
    is_missing = value in _MISSING if isinstance(value, str) else value != value
    return None if is_missing else value


def is_missing_number(value: Scalar) -> bool:
    """Return whether a text stands for a missing value in a column of numbers, such as "-"."""
    return isinstance(value, str) and value in _MISSING_NUMBERS


def is_missing(value: Scalar) -> bool:
    """Return whether a value stands for a missing number or text."""
    return none_if_missing(value) is None or is_missing_number(value)


def parse_scalar(text: str) -> Scalar:
    """Return the number that a text is, or the text; None if it stands for a missing value."""
    try:
        number = float(text)
    except ValueError:
        return none_if_missing(text)
    if math.isnan(number):
        return None
    # float() reads "1_2" as 12.
    return text if "_" in text else number
