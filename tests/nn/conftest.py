import gzip
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from csgcnn.config.compose import compose
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.build import build_network
from csgcnn.nn.network import CrystalGraphNetwork

DATA = Path(__file__).parents[2] / "data"
CGCNN = {"model": "csgcnn", "node_features": "[atom_init]", "graph.global_features": "none"}
Structure = dict[str, Any]


@pytest.fixture(scope="session")
def structures() -> list[Structure]:
    """Small and large crystals of many elements and symmetries from the included data."""
    with gzip.open(DATA / "dielectric.json.gz", "rt") as file:
        return [record["crystal_structure"] for record in json.load(file)[:400:10]]


@pytest.fixture(scope="session")
def pack() -> Callable[..., GraphStore]:
    """Build the graphs of structures; keywords are settings of the graph."""

    def packed(structures: list[Structure], **settings: Any) -> GraphStore:
        chosen = GraphSettings(**{"global_features": (), **settings})
        graphs = connect([to_crystal(structure) for structure in structures], chosen)
        return GraphStore(graphs, [str(i) for i in range(len(structures))], {}, chosen)

    return packed


@pytest.fixture(scope="session")
def supercell() -> Callable[..., Structure]:
    def of(structure: Structure, *times: int) -> Structure:
        shifts = np.array(list(product(*map(range, times))))
        frac_coords = (np.array(structure["frac_coords"])[:, None] + shifts) / times
        return {
            "lattice": (np.array(structure["lattice"]) * np.array(times)[:, None]).tolist(),
            "species": [species for species in structure["species"] for _ in shifts],
            "frac_coords": frac_coords.reshape(-1, 3).tolist(),
        }

    return of


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """Compose the configuration of CGCNN's network with overrides."""

    @cache
    def of(*overrides: str) -> DictConfig:
        given = {override.partition("=")[0] for override in overrides}
        network = [f"{key}={value}" for key, value in CGCNN.items() if key not in given]
        return compose("train", [*network, *overrides])

    return of


@pytest.fixture(scope="session")
def network(
    composed: Callable[..., DictConfig],
    pack: Callable[..., GraphStore],
    structures: list[Structure],
) -> Callable[..., CrystalGraphNetwork]:
    """Build a network with shifted weights and with the running statistics of real crystals."""
    batch = pack(structures).batch(torch.arange(len(structures)))

    @cache
    def trained(*overrides: str) -> CrystalGraphNetwork:
        torch.manual_seed(7)
        model = build_network(composed(*overrides), n_outputs=[1])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            for _ in range(20):
                model(batch)
        model.scaler.fit(torch.tensor([[1.0], [4.0]]))
        return model

    def made(*overrides: str) -> CrystalGraphNetwork:
        model = deepcopy(trained(*overrides))
        torch.manual_seed(7)
        return model

    return made


@pytest.fixture(scope="session")
def double() -> Callable[[GraphBatch], GraphBatch]:
    """Convert a batch to float64."""

    def of(graph: GraphBatch) -> GraphBatch:
        values = {field.name: getattr(graph, field.name) for field in fields(graph)}
        floats = {
            name: value.double()
            for name, value in values.items()
            if torch.is_tensor(value) and value.is_floating_point()
        }
        return replace(graph, **floats)

    return of


@pytest.fixture(scope="session")
def expanded() -> Callable[[GraphBatch], tuple[GraphBatch, Tensor]]:
    """Return the full graph of a compressed one, and the compressed atom of each of its atoms."""

    def of(graph: GraphBatch) -> tuple[GraphBatch, Tensor]:
        copies, weight = graph.atom_multiplicity.long(), graph.edge_multiplicity.long()
        node = torch.arange(len(copies)).repeat_interleave(copies)
        first = copies.cumsum(0) - copies
        neighbor, center = graph.edge_index
        count = weight * copies[center]
        edge = torch.arange(len(weight)).repeat_interleave(count)
        rank = torch.arange(len(edge)) - (count.cumsum(0) - count)[edge]
        centers = first[center[edge]] + rank // weight[edge]
        neighbors = first[neighbor[edge]] + rank % copies[neighbor[edge]]
        order = centers.argsort(stable=True)
        full = replace(
            graph,
            atomic_number=graph.atomic_number[node],
            atom_multiplicity=torch.ones_like(graph.atom_multiplicity[node]),
            graph_index=graph.graph_index[node],
            edge_index=torch.stack([neighbors, centers])[:, order],
            distance=graph.distance[edge][order],
            edge_multiplicity=torch.ones_like(graph.edge_multiplicity[edge]),
        )
        return full, node

    return of
