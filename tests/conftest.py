from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from csgcnn.crystals.datasets import Record, read_records
from csgcnn.crystals.graphs import GraphSettings, connect
from csgcnn.crystals.structures import Crystal, to_crystal
from csgcnn.data.store import GraphStore, Scalar

StoreMaker = Callable[[dict[str, list[Scalar]]], GraphStore]

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("CSGCNN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def ideal_structures() -> dict[str, Structure]:
    """Textbook crystals in their primitive cells, but for those called conventional."""
    cubic, fcc = Lattice.cubic, Lattice([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    perovskite = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return {
        "simple_cubic": Structure(cubic(3.35), ["Po"], [[0, 0, 0]]),
        "fcc": Structure(Lattice(fcc.matrix * 3.61), ["Cu"], [[0, 0, 0]]),
        "bcc": Structure(Lattice(np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) * 2.87 / 2), ["Fe"], [[0, 0, 0]]),
        "diamond": Structure(Lattice(fcc.matrix * 5.43), ["Si", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
        "rock_salt": Structure(Lattice(fcc.matrix * 5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "rock_salt_conventional": Structure.from_spacegroup(
            "Fm-3m", cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ),
        "caesium_chloride": Structure(cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "perovskite": Structure(cubic(3.905), ["Sr", "Ti", "O", "O", "O"], perovskite),
    }


@pytest.fixture(scope="session")
def ideal_crystals(ideal_structures: dict[str, Structure]) -> dict[str, Crystal]:
    return {name: to_crystal(structure) for name, structure in ideal_structures.items()}


@pytest.fixture(scope="session")
def dielectric_records() -> list[Record]:
    return read_records(DATA / "dielectric.json.gz")


@pytest.fixture(scope="session")
def elastic_records() -> list[Record]:
    return read_records(DATA / "elastic.json.gz")


@pytest.fixture(scope="session")
def formation_energy_records() -> list[Record]:
    return read_records(DATA / "formation_energy.json.gz")


@pytest.fixture(scope="session")
def real_crystals(
    dielectric_records: list[Record], elastic_records: list[Record], formation_energy_records: list[Record]
) -> dict[str, Crystal]:
    """About 40 crystals of each embedded set, spread over it, none larger than 60 atoms."""
    chosen = {}
    for records in (dielectric_records, elastic_records, formation_energy_records):
        for record in records[:: len(records) // 40]:
            crystal = to_crystal(record.source)
            if len(crystal.atomic_number) <= 60:
                chosen[record.id] = crystal
    return chosen


@pytest.fixture(scope="session")
def store_with() -> StoreMaker:
    """Make a store of the given columns, whose crystals are one atom each, all different, with the ids c0, c1, ..."""

    def make(columns: dict[str, list[Scalar]]) -> GraphStore:
        n_graphs = len(next(iter(columns.values()), []))
        cells = [np.eye(3) * (3 + 0.01 * number) for number in range(n_graphs)]
        crystals = [Crystal(cell, np.array([26], dtype=np.uint8), np.zeros((1, 3))) for cell in cells]
        ids = [f"c{number}" for number in range(n_graphs)]
        return GraphStore(connect(crystals, GraphSettings()), ids, columns, GraphSettings())

    return make
