import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structure_text import CIF, CSCL, Write

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import (
    GraphChunk,
    Rejected,
    build_graphs,
    merge_warnings,
    warning_lines,
)
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.crystals.records import Record
from csgcnn.errors import UserError

SETTINGS = GraphSettings()
DISORDERED = {
    "lattice": np.eye(3).tolist(),
    "sites": [{"species": [{"element": "Fe", "occu": 0.5}], "abc": [0] * 3}],
}
NO_LATTICE = {"species": ["H"], "frac_coords": [[0, 0, 0]]}
TWICE = {
    "lattice": (np.eye(3) * 3).tolist(),
    "species": ["Na", "Cl"],
    "frac_coords": [[0, 0, 0], [1, 0, 0]],
}
UNUSABLE: dict[str, Any] = {
    "half iron": DISORDERED,
    "no lattice": NO_LATTICE,
    "clash": TWICE,
    "gone": Path("gone.cif"),
}


def build_small(records: Iterable[Record], workers: int) -> Iterator[GraphChunk]:
    """Build in chunks of 8, with several workers in other processes from the second chunk on."""
    return build_graphs(records, SETTINGS, workers, chunk_size=8, serial_seconds=0)


def mixed(records: list[Record]) -> list[Record]:
    """36 usable records with four unusable ones among them."""
    mix = [Record(record.id, record.source, record.columns) for record in records[:36]]
    for position, (id_, source) in zip([0, 9, 20, 39], UNUSABLE.items(), strict=True):
        mix.insert(position, Record(id_, source, {}))
    return mix


def test_parallel_equals_serial(dielectric_records: list[Record]) -> None:
    records = mixed(dielectric_records)
    serial = list(build_small(records, workers=1))
    parallel = list(build_small(iter(records), workers=2))
    assert len(parallel) == len(serial) == 5
    for one, other in zip(serial, parallel, strict=True):
        assert one.records == other.records
        assert one.rejected == other.rejected
        assert one.graphs is not None
        assert other.graphs is not None
        for name in CrystalGraphs.__slots__:
            np.testing.assert_array_equal(
                getattr(one.graphs, name), getattr(other.graphs, name), err_msg=name
            )
    kept = [record.id for part in parallel for record in part.records]
    assert kept == [record.id for record in dielectric_records[:36]]


def test_rejected_records_are_named_with_their_reason(dielectric_records: list[Record]) -> None:
    parts = list(build_small(mixed(dielectric_records), workers=1))
    rejected = [entry for part in parts for entry in part.rejected]
    assert [entry.id for entry in rejected] == list(UNUSABLE)
    for entry, reason in zip(
        rejected, ["site 1 is disordered", "lattice", "sites 1 and 2", "gone.cif"], strict=True
    ):
        assert reason in entry.reason
    n_species = {record.id: len(record.source["species"]) for record in dielectric_records}  # type: ignore[index,arg-type]
    for part in parts:
        assert part.graphs is not None
        assert len(part.graphs) == len(part.records)
        n_atoms = [n_species[record.id] for record in part.records]
        assert part.graphs.n_sites.tolist() == n_atoms


def test_a_chunk_without_a_usable_record_has_no_graphs() -> None:
    (built,) = build_graphs([Record(id, source, {}) for id, source in UNUSABLE.items()], SETTINGS)
    assert built.graphs is None
    assert built.records == []
    assert [type(entry) for entry in built.rejected] == [Rejected] * len(UNUSABLE)


def test_no_records_no_graphs() -> None:
    assert list(build_graphs([], SETTINGS)) == []


class KillsItsProcess:
    """A source that kills the process that unpickles it, as a lack of memory would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (9,)


def test_a_killed_worker_is_reported(dielectric_records: list[Record]) -> None:
    records = [
        *dielectric_records[:12],
        Record("killer", KillsItsProcess(), {}),
        *dielectric_records[12:20],
    ]  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"killed.*try fewer"):
        list(build_small(records, workers=2))


def test_records_are_read_as_they_are_needed(dielectric_records: list[Record]) -> None:
    """At most 8 chunks per worker wait, so that memory does not grow with the number of records."""
    n_read = 0

    def stream() -> Any:
        nonlocal n_read
        for record in dielectric_records[:400]:
            n_read += 1
            yield record

    parts = build_small(stream(), workers=2)
    for number, _ in zip(range(4), parts, strict=False):
        assert n_read <= 8 * (number + 2 * 8 + 4)
    parts.close()  # type: ignore[attr-defined]


# --- warnings ---

ROUNDED = "# fractional coordinates rounded to ideal values to avoid issues with finite precision."


def cif(*frac_coords: str, space_group: bool = True) -> str:
    """Iron atoms at (x, x, x)."""
    axes = [("a", "alpha"), ("b", "beta"), ("c", "gamma")]
    cell = "".join(f"_cell_length_{edge} 9\n_cell_angle_{angle} 90\n" for edge, angle in axes)
    rows = "".join(f"Fe{number} Fe {x} {x} {x}\n" for number, x in enumerate(frac_coords))
    names = "".join(
        f"_atom_site_{name}\n" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
    )
    operations = "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n" * space_group
    return f"data_x\n{cell}{operations}loop_\n{names}{rows}"


@pytest.mark.parametrize("workers", [1, 2])
def test_warnings_are_counted_by_kind_and_not_shown(
    workers: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    texts = [
        cif("0"),
        cif("0", "0.3333"),
        cif("0", "0.33333", "0.6667"),
        cif("0", "0.6667", "0.666701"),
    ]
    texts += [cif("0", space_group=False)] * 3 + [cif("0.1")] * 3 + [cif("0.3333")]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.cif").write_text(text)
    records = [Record(f"c{number}", tmp_path / f"{number}.cif", {}) for number in range(len(texts))]
    parts = list(build_small(records, workers=workers))
    assert [[entry.id for entry in part.rejected] for part in parts] == [["c3"], []], (
        "two atoms on one spot"
    )
    assert parts[1].warnings == {ROUNDED: (1, "c10")}
    merged = merge_warnings(part.warnings for part in parts)
    assert merged.pop(ROUNDED) == (3, "c1"), "what was rejected is not counted"
    ((kind, counted),) = merged.items()
    assert kind.startswith("No _symmetry_equiv_pos_as_xyz type key found.")
    assert counted == (3, "c4")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_many_kinds_of_warnings_take_few_lines() -> None:
    assert warning_lines({}) == []
    first = {"a": (1, "x"), "b": (2, "y")}
    merged = merge_warnings([first, {}, {"b": (5, "z"), "c": (3, "z")}])
    assert merged == {"a": (1, "x"), "b": (7, "y"), "c": (3, "z")}
    lines = [
        "7 structures: b (first in y)",
        "3 structures: c (first in z)",
        "1 structure: a (first in x)",
    ]
    assert warning_lines(merged) == lines
    assert warning_lines(merged, max_lines=1) == [lines[0], "and 2 other kinds of warnings"]
    more = [first, {"c": (1, "z")}, {"d": (1, "w"), "a": (1, "w")}]
    merged = merge_warnings(more, max_kinds=2)
    assert merged == {"a": (2, "x"), "b": (2, "y"), "other warnings": (2, "z")}


def test_reasons_are_one_printable_line(write: Write, tmp_path: Path) -> None:
    names = ["two\nlines.cif", "\x1b[2J.cif", os.fsdecode(b"\xff.cif"), "x" * 200 + ".cif"]
    sources = [write(name, CIF.replace("Cs1 Cs", "Qq1 Qq")) for name in names]
    records = [
        Record("a", source, {})
        for source in [*sources, Path("y" * 3000), CSCL | {"species": ["\n", "\ud800"]}]
    ]
    (built,) = build_graphs(records, GraphSettings(), workers=1)
    assert len(built.rejected) == len(records)
    for entry in built.rejected:
        assert entry.reason.isprintable()
        assert len(entry.reason) <= 1000
    assert r"\udcff.cif: " in built.rejected[2].reason
