import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from record_lists import read_records
from torch import Tensor, nn

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.crystals import elements
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target
from csgcnn.nn.convolutions import GatedConvolution
from csgcnn.nn.edge_calculators import GaussianDistance
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.nn.node_features import ElementTable
from csgcnn.nn.pooling import MeanPooling
from csgcnn.training.losses import WeightedRegressionLoss
from csgcnn.training.schedulers import constant
from csgcnn.training.trainer import Trainer

StoreMaker = Callable[[dict[str, list[Scalar]]], GraphStore]

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(autouse=True)
def _cache_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("CSGCNN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _denormal_numbers() -> None:
    """No test inherits from an earlier command that denormal numbers are flushed to zero."""
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def ideal_structures() -> dict[str, Structure]:
    """Textbook crystals in their primitive cells, but for those called conventional."""
    cubic, fcc = Lattice.cubic, Lattice([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    perovskite = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return {
        "simple_cubic": Structure(cubic(3.35), ["Po"], [[0, 0, 0]]),
        "fcc": Structure(Lattice(fcc.matrix * 3.61), ["Cu"], [[0, 0, 0]]),
        "bcc": Structure(
            Lattice(np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) * 2.87 / 2), ["Fe"], [[0, 0, 0]]
        ),
        "diamond": Structure(
            Lattice(fcc.matrix * 5.43), ["Si", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]]
        ),
        "rock_salt": Structure(
            Lattice(fcc.matrix * 5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ),
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
    dielectric_records: list[Record],
    elastic_records: list[Record],
    formation_energy_records: list[Record],
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
    """Make a store of the given columns of one-atom crystals with the ids c0, c1, ..."""

    def make(columns: dict[str, list[Scalar]]) -> GraphStore:
        n_graphs = len(next(iter(columns.values()), []))
        cells = [np.eye(3) * (3 + 0.01 * number) for number in range(n_graphs)]
        crystals = [
            Crystal(cell, np.array([26], dtype=np.uint8), np.zeros((1, 3))) for cell in cells
        ]
        ids = [f"c{number}" for number in range(n_graphs)]
        return GraphStore(connect(crystals, GraphSettings()), ids, columns, GraphSettings())

    return make


@pytest.fixture(scope="session")
def records() -> list[dict[str, Any]]:
    with gzip.open(DATA / "dielectric.json.gz", "rt") as file:
        return json.load(file)[:60]


@pytest.fixture(scope="session")
def store(records: list[dict[str, Any]]) -> GraphStore:
    settings = GraphSettings()
    graphs = connect([to_crystal(record["crystal_structure"]) for record in records], settings)
    return GraphStore(graphs, [record["material_id"] for record in records], {}, settings)


@pytest.fixture(scope="session")
def targets(records: list[dict[str, Any]]) -> Tensor:
    return torch.tensor([[record["band_gap"]] for record in records])


@pytest.fixture(scope="session")
def split() -> Split:
    return dict(zip(("train", "val", "test"), torch.arange(60).split([40, 10, 10]), strict=True))


@pytest.fixture
def trainer(store: GraphStore, targets: Tensor, split: Split) -> Callable[..., Trainer]:
    """A trainer of a tiny network; keywords replace its parts or its settings."""

    def make(
        seed: int = 0, convolution: type[nn.Module] = GatedConvolution, **changes: Any
    ) -> Trainer:
        torch.manual_seed(seed)
        model = CrystalGraphNetwork(
            {"atom_init": ElementTable(elements.atom_init())},
            GaussianDistance(8.0),
            convolution,
            MeanPooling,
            hidden=8,
            n_convolutions=1,
            head_hidden=8,
            reference=changes.pop("reference", None),
        )
        values, graphs = changes.pop("values", targets), changes.pop("store", store)
        rows = torch.arange(len(graphs))
        dataset = Dataset(graphs, [Target("band_gap", "eV")], values, rows, [])
        parts = {
            "split": split,
            "loss": WeightedRegressionLoss(mse=1.0),
            "make_optimizer": partial(torch.optim.AdamW, lr=0.01),
            "make_scheduler": constant,
            "augment": None,
        }
        settings = {"max_epochs": 3, "batch_size": 16, "progress": False}
        for name, value in changes.items():
            (parts if name in parts else settings)[name] = value
        return Trainer(model, dataset, settings=TrainerSettings(**settings), **parts)

    return make
