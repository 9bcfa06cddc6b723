"""Warnings about structures: each has a code, and names what may be wrong.

Readers and checks call `warn`. The builder of graphs collects the warnings of each record, which
are stored with the graphs and listed in warnings.csv.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from csgcnn.errors import DataWarning, one_line

Severity = Literal["serious", "minor"]


class Kind(NamedTuple):
    """A kind of warning.

    Attributes:
        severity: "serious" if the crystal, or what is predicted for it, may be wrong.
        phrase: What the structures have in common.
    """

    severity: Severity
    phrase: str


# Kinds of warnings by code, the serious ones first.
KINDS = {
    "formula_mismatch": Kind("serious", "the atoms differ from the formula in the file"),
    "short_distance": Kind("serious", "atoms are closer than in known crystals"),
    "volume_per_atom": Kind("serious", "unusual volume per atom"),
    "isolated_atoms": Kind("serious", "atoms without a neighbor within the cutoff"),
    "symmetry_mismatch": Kind("serious", "symmetry operations do not fit the space group"),
    "assumed_setting": Kind("serious", "one of several settings of the space group was assumed"),
    "no_symmetry": Kind("serious", "the file names no space group"),
    "cell_volume": Kind("serious", "the cell has another volume than the file gives"),
    "elements_from_title": Kind("serious", "elements taken from the title of a POSCAR"),
    "parser": Kind("serious", "a parser corrected the file or is in doubt"),
    "other_blocks": Kind("minor", "further structures in the file were not read"),
    "formula_units": Kind("minor", "another number of formula units than in the file"),
    "inferred_setting": Kind("minor", "the setting of the space group follows from the atoms"),
    "merged_sites": Kind("minor", "rows of one element that share a site were merged"),
    "omitted_site": Kind("minor", "sites without atoms were left out"),
    "unquoted_operation": Kind("minor", "symmetry operations without quotes"),
}
# Columns of warnings.csv.
WARNING_COLUMNS = ("id", "code", "severity", "message")
# Ids that are shown for each kind.
_SHOWN_IDS = 3


class StructureWarning(DataWarning):
    """A structure that may be wrong.

    Attributes:
        code: Kind of the warning, a key of `KINDS`.
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
        code: Kind of the warning, a key of `KINDS`.
        message: What is doubtful, in one sentence that names site, key or block.
    """
    warnings.warn(StructureWarning(code, message), stacklevel=2)


def priority(code: str) -> int:
    """Return the position of a kind of warning, the serious ones first."""
    return _PRIORITIES.get(code, -1)


def warning_rows(notes: Iterable[StructureNote]) -> Iterator[list[str]]:
    """Yield the rows of warnings.csv, below `WARNING_COLUMNS`."""
    for note in notes:
        yield [note.id, note.code, _kind(note.code).severity, note.message]


def joined_codes(notes: Iterable[StructureNote]) -> dict[str, str]:
    """Return the codes of each structure that has warnings, joined by `;`, by id."""
    codes: dict[str, set[str]] = {}
    for note in notes:
        codes.setdefault(note.id, set()).add(note.code)
    return {id_: ";".join(sorted(found, key=priority)) for id_, found in codes.items()}


def summary_lines(
    notes: Iterable[StructureNote], report: str = "", told: Mapping[str, int] | None = None
) -> list[str]:
    """Return a summary of warnings, see `WarningSummary`.

    Args:
        notes: The warnings, those of a structure one after the other.
        report: Name of the file that lists them, if there is one.
        told: Numbers of structures that are reported elsewhere, by code.
    """
    summary = WarningSummary()
    summary.add(notes)
    return summary.lines(report, told)


class WarningSummary:
    """Count structures with warnings, without keeping the warnings.

    Attributes:
        n_warnings: Number of warnings.
    """

    def __init__(self) -> None:
        self.n_warnings = 0
        self._serious: dict[str, _Count] = {}
        self._minor = _Count()

    def add(self, notes: Iterable[StructureNote]) -> None:
        """Add warnings, those of a structure one after the other."""
        for note in notes:
            self.n_warnings += 1
            if _kind(note.code).severity == "minor":
                self._minor.add(note)
            else:
                self._serious.setdefault(note.code, _Count()).add(note)

    def lines(self, report: str = "", told: Mapping[str, int] | None = None) -> list[str]:
        """Return a line for each kind of serious warnings, and one for all minor ones.

        Args:
            report: Name of the file that lists the warnings, if there is one.
            told: Numbers of structures that are reported elsewhere, by code. A kind without others
                is left out.
        """
        by_code = sorted(self._serious.items(), key=lambda item: priority(item[0]))
        counted = [
            (count, _kind(code).phrase)
            for code, count in by_code
            if count.n_structures > (told or {}).get(code, 0)
        ]
        counted += [(self._minor, "minor warnings")] if self._minor.n_structures else []
        end = f"; see {report}" if report else ""
        return [count.line(phrase) + end for count, phrase in counted]


@dataclass(slots=True)
class _Count:
    """Structures with warnings of a kind, and the first of these warnings."""

    n_structures: int = 0
    ids: list[str] = field(default_factory=list)
    message: str = ""
    last: str | None = None

    def add(self, note: StructureNote) -> None:
        if note.id == self.last:
            return
        self.last, self.message = note.id, self.message or note.message
        self.n_structures += 1
        if len(self.ids) < _SHOWN_IDS:
            self.ids.append(one_line(note.id))

    def line(self, phrase: str) -> str:
        if self.n_structures == 1:
            return f"{self.ids[0]}: {self.message}"
        more = ", …" if self.n_structures > len(self.ids) else ""
        return f"{self.n_structures} structures: {phrase} ({', '.join(self.ids)}{more})"


_PRIORITIES = {code: position for position, code in enumerate(KINDS)}


def _kind(code: str) -> Kind:
    """Return a kind of warning; that of a plugin is serious."""
    return KINDS.get(code) or Kind("serious", code.replace("_", " "))
