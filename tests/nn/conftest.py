import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from csgcnn.config import CONF
from csgcnn.crystals.graphs import GraphSettings, connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.store import GraphStore
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.wiring import build_model

DATA = Path(__file__).parents[2] / "data"
Structure = dict[str, Any]


@pytest.fixture(scope="session")
def structures() -> list[Structure]:
    """Real crystals of the embedded data, small and large cells of many elements and symmetries."""
    with gzip.open(DATA / "dielectric.json.gz", "rt") as file:
        return [record["crystal_structure"] for record in json.load(file)[:400:10]]


@pytest.fixture(scope="session")
def pack() -> Callable[..., GraphStore]:
    def packed(structures: list[Structure], **settings: Any) -> GraphStore:
        chosen = GraphSettings(**settings)
        graphs = connect([to_crystal(structure) for structure in structures], chosen)
        return GraphStore(graphs, [str(i) for i in range(len(structures))], {}, chosen)

    return packed


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    def of(*words: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", list(words))

    return of


@pytest.fixture(scope="session")
def network(
    composed: Callable[..., DictConfig], pack: Callable[..., GraphStore], structures: list[Structure]
) -> Callable[..., CrystalGraphNetwork]:
    """A network as composed from conf/, its weights away from their start, its running statistics those of crystals."""
    batch = pack(structures).batch(torch.arange(len(structures)))

    def made(*words: str, n_targets: int = 1) -> CrystalGraphNetwork:
        torch.manual_seed(7)
        model = build_model(composed(*words), n_targets)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            for _ in range(20):
                model(batch)
        model.scaler.fit(torch.tensor([[1.0] * n_targets, [4.0] * n_targets]))
        return model

    return made
