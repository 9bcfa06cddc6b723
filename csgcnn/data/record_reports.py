"""Files that list the rejected records of a data set, and warnings about its structures."""

import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.structure_warnings import (
    WARNING_COLUMNS,
    StructureNote,
    summary_lines,
    warning_rows,
)
from csgcnn.errors import one_line, plural
from csgcnn.io import write_csv

log = logging.getLogger(__name__)

# Rejected records whose reasons are shown.
_SHOWN_REASONS = 3


class RecordReports(NamedTuple):
    """Where a command lists records; a list without entries is not written.

    Attributes:
        rejected: List of the rejected records.
        warnings: List of the warnings about structures; None: not written.
    """

    rejected: Path
    warnings: Path | None

    @property
    def paths(self) -> list[Path]:
        """The lists that may be written."""
        return [path for path in self if path is not None]

    @classmethod
    def within(cls, folder: Path) -> "RecordReports":
        """Return the lists of a run directory."""
        return cls(folder / "rejected.csv", folder / "warnings.csv")

    @classmethod
    def beside(cls, output: Path, suffix: str = ".csv") -> "RecordReports":
        """Return the lists beside an output: a.csv -> a.rejected.csv, a.warnings.csv.

        Args:
            output: The output.
            suffix: End of its name that is left out.
        """
        name = output.name.removesuffix(suffix)
        return cls(*(output.with_name(f"{name}.{kind}.csv") for kind in ("rejected", "warnings")))


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """Write id and reason of every rejected record to a csv file; without any, remove the file.

    Args:
        rejected: The records.
        path: The file.
    """
    if rejected:
        write_csv(path, Rejected._fields, rejected)
    else:
        path.unlink(missing_ok=True)


def report_warnings(notes: Sequence[StructureNote], path: Path | None) -> None:
    """Log a summary of the warnings about structures, and write all of them to a csv file.

    Args:
        notes: The warnings; without any, the file is removed.
        path: The file, if there is one.
    """
    if path and notes:
        write_csv(path, WARNING_COLUMNS, warning_rows(notes))
    elif path:
        path.unlink(missing_ok=True)
    for line in summary_lines(notes, path.name if path else ""):
        log.warning("%s", line)


def warn_of_rejected(
    rejected: Iterable[Sequence[str]], n_rejected: int, path: Path, noun: str = "structure"
) -> None:
    """Log how many structures could not be used and the first reasons, if there are any.

    Args:
        rejected: Id and reason of each.
        n_rejected: Their number.
        path: File that lists all of them.
        noun: What they are called.
    """
    if n_rejected:
        unusable, reasons = plural(n_rejected, noun), first_reasons(rejected, n_rejected)
        log.warning("%s could not be used (%s): %s", unusable, reasons, path)


def first_reasons(rejected: Iterable[Sequence[str]], n_rejected: int) -> str:
    """Return ids and reasons of the first rejected records, in one line.

    Args:
        rejected: Id and reason of each.
        n_rejected: Their number.
    """
    first = [f"{one_line(id_)}: {reason}" for id_, reason in islice(rejected, _SHOWN_REASONS)]
    return "; ".join([*first, *["…"] * (n_rejected > len(first))])
