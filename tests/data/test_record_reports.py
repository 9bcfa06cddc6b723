import csv
from pathlib import Path

import pytest

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.data.record_reports import (
    RecordReports,
    first_reasons,
    report_warnings,
    write_rejected,
)


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_lists_lie_beside_the_output() -> None:
    found = RecordReports.beside(Path("out/a.csv"))
    assert found == (Path("out/a.rejected.csv"), Path("out/a.warnings.csv"))
    assert RecordReports.beside(Path("a")).rejected == Path("a.rejected.csv")
    assert RecordReports.beside(Path("a.csv.gz"), ".csv.gz").warnings == Path("a.warnings.csv")


def test_rejected_reasons_survive_commas_quotes_and_lines(tmp_path: Path) -> None:
    rejected = [Rejected("a,b", 'said "no"\nand went'), Rejected("é", "")]
    write_rejected(rejected, tmp_path / "rejected.csv")
    assert rows(tmp_path / "rejected.csv") == [["id", "reason"], *map(list, rejected)]


def test_warnings_are_listed_with_their_severity_and_summarized(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = [
        StructureNote("a", "isolated_atoms", "1 of 2 atoms, alone"),
        StructureNote("a", "omitted_site", "odd"),
    ]
    report_warnings(notes, tmp_path / "x.warnings.csv")
    assert rows(tmp_path / "x.warnings.csv") == [
        ["id", "code", "severity", "message"],
        ["a", "isolated_atoms", "serious", "1 of 2 atoms, alone"],
        ["a", "omitted_site", "minor", "odd"],
    ]
    assert caplog.messages == [
        "a: 1 of 2 atoms, alone; see x.warnings.csv",
        "a: odd; see x.warnings.csv",
    ]


def test_lists_of_an_earlier_command_are_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for write in (write_rejected, report_warnings):
        (tmp_path / "old.csv").write_text("old")
        write([], tmp_path / "old.csv")
    assert not [*tmp_path.iterdir()]
    report_warnings([], None)
    assert not caplog.messages


def test_the_first_reasons_are_one_line() -> None:
    rejected = [Rejected(id_, f"reason {id_}") for id_ in "abcd"]
    assert first_reasons(rejected[:1], 1) == "a: reason a"
    assert first_reasons(iter(rejected), 4) == "a: reason a; b: reason b; c: reason c; …"
