"""Warnings about structures: each has a code, and names what may be wrong.

Readers and checks call `warn`. The builder of graphs collects the warnings of each record, which
are stored with the graphs and listed in warnings.csv.
"""

import warnings
from collections.abc import Iterable
from typing import Literal, NamedTuple

from csgcnn.errors import DataWarning

Severity = Literal["serious", "minor"]

# Kinds of warnings, the serious ones first: the crystal, or what is predicted for it, may be wrong.
SEVERITY: dict[str, Severity] = {
    "formula_mismatch": "serious",
    "short_distance": "serious",
    "volume_per_atom": "serious",
    "isolated_atoms": "serious",
    "symmetry_mismatch": "serious",
    "other_blocks": "minor",
    "formula_units": "minor",
    "omitted_site": "minor",
    "merged_sites": "minor",
    "unquoted_operation": "minor",
    "parser": "minor",
}


class StructureWarning(DataWarning):
    """A structure that may be wrong.

    Attributes:
        code: Kind of the warning, a key of `SEVERITY`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StructureNote(NamedTuple):
    """A warning about the structure of a record."""

    id: str
    code: str
    message: str


def warn(code: str, message: str) -> None:
    """Issue a warning about the structure that is being read.

    Args:
        code: Kind of the warning, a key of `SEVERITY`.
        message: What is doubtful, in one sentence that names site, key or block.
    """
    warnings.warn(StructureWarning(code, message), stacklevel=2)


def has_serious(notes: Iterable[StructureNote]) -> bool:
    """Return whether some of the warnings are serious."""
    return any(SEVERITY.get(note.code) == "serious" for note in notes)
