import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csgcnn.crystals import build
from csgcnn.crystals.build import Rejected, build_graphs
from csgcnn.crystals.datasets import Record
from csgcnn.crystals.graphs import CrystalGraphs, GraphSettings
from csgcnn.errors import UserError

SETTINGS = GraphSettings()
DISORDERED = {"lattice": np.eye(3).tolist(), "sites": [{"species": [{"element": "Fe", "occu": 0.5}], "abc": [0] * 3}]}
NO_LATTICE = {"species": ["H"], "frac_coords": [[0, 0, 0]]}
TWICE = {"lattice": (np.eye(3) * 3).tolist(), "species": ["Na", "Cl"], "frac_coords": [[0, 0, 0], [1, 0, 0]]}
BAD: dict[str, Any] = {"half iron": DISORDERED, "no lattice": NO_LATTICE, "clash": TWICE, "gone": Path("gone.cif")}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make even a short run use several chunks and, with several workers, other processes."""
    monkeypatch.setattr(build, "CHUNK", 8)
    monkeypatch.setattr(build, "PATIENCE", 0.0)


def mixed(records: list[Record]) -> list[Record]:
    """36 good records with four bad ones at places between them."""
    mix = [Record(record.id, record.source, record.columns) for record in records[:36]]
    for place, (id, source) in zip([0, 9, 20, 39], BAD.items(), strict=True):
        mix.insert(place, Record(id, source, {}))
    return mix


@pytest.mark.usefixtures("small_chunks")
def test_parallel_equals_serial(dielectric_records: list[Record]) -> None:
    records = mixed(dielectric_records)
    serial = list(build_graphs(records, SETTINGS, workers=1))
    parallel = list(build_graphs(iter(records), SETTINGS, workers=2))
    assert len(parallel) == len(serial) == 5
    for one, other in zip(serial, parallel, strict=True):
        assert one.records == other.records
        assert one.rejected == other.rejected
        assert one.graphs is not None
        assert other.graphs is not None
        for name in CrystalGraphs.__slots__:
            np.testing.assert_array_equal(getattr(one.graphs, name), getattr(other.graphs, name), err_msg=name)
    kept = [record.id for part in parallel for record in part.records]
    assert kept == [record.id for record in dielectric_records[:36]]


@pytest.mark.usefixtures("small_chunks")
def test_rejected_records_are_named_with_their_reason(dielectric_records: list[Record]) -> None:
    parts = list(build_graphs(mixed(dielectric_records), SETTINGS, workers=1))
    rejected = [entry for part in parts for entry in part.rejected]
    assert [entry.id for entry in rejected] == list(BAD)
    for entry, reason in zip(rejected, ["site 1 is disordered", "lattice", "sites 1 and 2", "gone.cif"], strict=True):
        assert reason in entry.reason
    for part in parts:
        assert part.graphs is not None
        assert len(part.graphs) == len(part.records)
        n_atoms = [len(record.source["species"]) for record in part.records]  # type: ignore[index,arg-type]
        assert part.graphs.n_sites.tolist() == n_atoms


def test_a_chunk_without_a_usable_record_has_no_graphs() -> None:
    (built,) = build_graphs([Record(id, source, {}) for id, source in BAD.items()], SETTINGS)
    assert built.graphs is None
    assert built.records == []
    assert [type(entry) for entry in built.rejected] == [Rejected] * len(BAD)


def test_no_records_no_graphs() -> None:
    assert list(build_graphs([], SETTINGS)) == []


class Deadly:
    """Kills the process that unpickles it, as a lack of memory would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (9,)


@pytest.mark.usefixtures("small_chunks")
def test_a_killed_worker_is_told(dielectric_records: list[Record]) -> None:
    records = [*dielectric_records[:12], Record("deadly", Deadly(), {}), *dielectric_records[12:20]]  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"killed.*try fewer"):
        list(build_graphs(records, SETTINGS, workers=2))


@pytest.mark.usefixtures("small_chunks")
def test_records_are_read_as_they_are_needed(dielectric_records: list[Record]) -> None:
    """Memory does not grow with the number of records: only a few chunks lie ready at any time."""
    n_read = 0

    def stream() -> Any:
        nonlocal n_read
        for record in dielectric_records[:400]:
            n_read += 1
            yield record

    parts = build_graphs(stream(), SETTINGS, workers=2)
    for number, _ in zip(range(4), parts, strict=False):
        assert n_read <= 8 * (number + 8)
    parts.close()  # type: ignore[attr-defined]
