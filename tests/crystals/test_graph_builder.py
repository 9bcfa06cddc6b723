import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structure_text import CIF, CSCL, Write

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graph_builder import MAX_NOTES, GraphChunk, GraphPlan, Rejected, build_graphs
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.crystals.records import Record
from csgcnn.crystals.structure_warnings import StructureNote, StructureWarning, warn
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
    return build_graphs(records, GraphPlan(SETTINGS, workers, chunk_size=8, serial_seconds=0))


def mixed(records: list[Record]) -> list[Record]:
    """36 usable records with four unusable ones among them."""
    mix = [Record(record.id, record.source, record.columns) for record in records[:36]]
    for position, (id_, source) in zip([0, 9, 20, 39], UNUSABLE.items(), strict=True):
        mix.insert(position, Record(id_, source, {}))
    return mix


@pytest.mark.slow
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
        rejected,
        ["site 1 is disordered", "lattice", "lie on the same spot", "gone.cif"],
        strict=True,
    ):
        assert reason in entry.reason
    n_species = {record.id: len(record.source["species"]) for record in dielectric_records}  # type: ignore[index,arg-type]
    for part in parts:
        assert part.graphs is not None
        assert len(part.graphs) == len(part.records)
        n_atoms = [n_species[record.id] for record in part.records]
        assert part.graphs.n_sites.tolist() == n_atoms


def test_a_chunk_without_a_usable_record_has_no_graphs() -> None:
    (built,) = build_graphs(
        [Record(id, source, {}) for id, source in UNUSABLE.items()], GraphPlan(SETTINGS)
    )
    assert built.graphs is None
    assert built.records == []
    assert [type(entry) for entry in built.rejected] == [Rejected] * len(UNUSABLE)


def test_the_other_crystals_of_a_chunk_come_through(dielectric_records: list[Record]) -> None:
    """Malformed coordinates fail where all crystals of the chunk are searched at once."""
    malformed = Crystal(np.eye(3) * 4, np.array([11, 17], np.uint8), np.zeros((2, 2)))
    usable = dielectric_records[:6]
    records = [*usable[:2], Record("malformed", malformed, {}), *usable[2:]]
    (alone,), (among,) = (build_graphs(some, GraphPlan(SETTINGS)) for some in (usable, records))
    assert [entry.id for entry in among.rejected] == ["malformed"]
    assert alone.graphs is not None
    assert among.graphs is not None
    for name in CrystalGraphs.__slots__:
        np.testing.assert_array_equal(getattr(among.graphs, name), getattr(alone.graphs, name))


def test_no_records_no_graphs() -> None:
    assert list(build_graphs([], GraphPlan(SETTINGS))) == []


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


class Doubtful(dict[str, Any]):
    """A structure whose reader issues warnings."""

    def __contains__(self, key: object) -> bool:
        for message, category in self["issued"]:
            if category is StructureWarning:
                warn("short_distance", message)
            else:
                warnings.warn(message, category, stacklevel=1)
        return super().__contains__(key)


def doubtful(*issued: tuple[str, type[Warning]], structure: Any = CSCL) -> Doubtful:
    return Doubtful(structure, issued=issued)


LONE = {"lattice": (np.eye(3) * 30).tolist(), "species": ["Xe"], "frac_coords": [[0] * 3]}
VOLUME_OF_LONE = "the volume per atom is 2.7e+04 Å³; crystals have 4.2 to 890 Å³"
ROUNDED = "4 fractional coordinates rounded to ideal values to avoid issues with finite precision."


@pytest.mark.parametrize("workers", [1, 2])
def test_each_record_has_its_warnings_and_none_is_shown(
    workers: int, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    sources = [
        CSCL,
        doubtful(("sites 1 and 2 are close", StructureWarning), ("odd\nnext line", UserWarning)),
        doubtful((ROUNDED, UserWarning), ("use another function", DeprecationWarning)),
        doubtful(("sites 1 and 2 are close", StructureWarning), structure=NO_LATTICE),
        doubtful(("made\x1b[2J of \udcff", UserWarning), structure=LONE),
        *[CSCL] * 5,
        LONE,
    ]
    records = [Record(f"c{number}", source, {}) for number, source in enumerate(sources)]
    parts = list(build_small(records, workers=workers))
    assert [entry.id for part in parts for entry in part.rejected] == ["c3"]
    assert parts[0].warnings == [
        StructureNote("c1", "short_distance", "sites 1 and 2 are close"),
        StructureNote("c1", "parser", "odd"),
        StructureNote("c4", "volume_per_atom", VOLUME_OF_LONE),
        StructureNote("c4", "parser", "made[2J of \\udcff"),
        StructureNote("c4", "isolated_atoms", "1 of 1 atoms without a neighbor within 8 Å"),
    ]
    assert [note[:2] for note in parts[1].warnings] == [
        ("c10", "volume_per_atom"),
        ("c10", "isolated_atoms"),
    ]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_record_with_very_many_warnings_keeps_a_few() -> None:
    many = [(f"{number} {'long' * 500}", UserWarning) for number in range(1000)]
    source = doubtful(*many, ("the serious one", StructureWarning))
    (built,) = build_graphs([Record("a", source, {})], GraphPlan(SETTINGS, workers=1))
    assert len(built.warnings) == MAX_NOTES + 1
    assert built.warnings[0].message == "the serious one"
    assert built.warnings[-1].message == f"{1001 - MAX_NOTES} more warnings are not listed"
    assert max(len(note.message) for note in built.warnings) <= 300


def test_reasons_are_one_printable_line(write: Write, tmp_path: Path) -> None:
    names = ["two\nlines.cif", "\x1b[2J.cif", os.fsdecode(b"\xff.cif"), "x" * 200 + ".cif"]
    sources = [write(name, CIF.replace("Cs1 Cs", "Qq1 Qq")) for name in names]
    records = [
        Record("a", source, {})
        for source in [*sources, Path("y" * 3000), CSCL | {"species": ["\n", "\ud800"]}]
    ]
    (built,) = build_graphs(records, GraphPlan(GraphSettings(), workers=1))
    assert len(built.rejected) == len(records)
    for entry in built.rejected:
        assert entry.reason.isprintable()
        assert len(entry.reason) <= 1000
    assert r"\udcff.cif: " in built.rejected[2].reason
