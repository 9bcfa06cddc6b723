import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csgcnn.crystals import elements
from csgcnn.crystals.graphs import GraphSettings, connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.nn.convolutions import GatedConvolution
from csgcnn.nn.edge_calculators import GaussianDistance
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.nn.node_features import ElementTable
from csgcnn.nn.pooling import MeanPooling
from csgcnn.training.losses import Weighted
from csgcnn.training.schedulers import constant
from csgcnn.training.trainer import Trainer, TrainerSettings

DATA = Path(__file__).parents[2] / "data"


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

    def make(seed: int = 0, convolution: type[nn.Module] = GatedConvolution, **changes: Any) -> Trainer:
        torch.manual_seed(seed)
        model = CrystalGraphNetwork(
            {"atom_init": ElementTable(elements.atom_init())},
            GaussianDistance(8.0),
            convolution,
            MeanPooling,
            hidden=8,
            n_convolutions=1,
            head_hidden=8,
        )
        parts = {
            "targets": [Target("band_gap", "eV")],
            "values": targets,
            "split": split,
            "loss": Weighted(mse=1.0),
            "make_optimizer": partial(torch.optim.AdamW, lr=0.01),
            "make_scheduler": constant,
            "augment": None,
        }
        settings = {"max_epochs": 3, "batch_size": 16, "progress": False}
        for name, value in changes.items():
            (parts if name in parts else settings)[name] = value
        return Trainer(model, store, settings=TrainerSettings(**settings), **parts)

    return make
