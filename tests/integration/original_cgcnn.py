"""The original CGCNN, transcribed from the formulas of Xie & Grossman 2018."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pymatgen.core import Structure
from torch import Tensor

from csgcnn.crystals.elements import atom_init

Graph = tuple[Tensor, Tensor, Tensor]

N_FEATURES, N_GAUSSIANS = 92, 41


def original_network(
    seed: int, hidden: int, n_conv: int, h_fea: int, n_h: int, n_out: int
) -> dict[str, Tensor]:
    """A state_dict in the original's layout, of numbers as in a trained network."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = OrderedDict()

    def linear(name: str, inputs: int, outputs: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
        state[f"{name}.bias"] = torch.randn(outputs) / 4

    def batch_norm(name: str, size: int) -> None:
        for key, tensor in torch.nn.BatchNorm1d(size).state_dict().items():
            state[f"{name}.{key}"] = (
                tensor if key == "num_batches_tracked" else tensor + torch.rand(size)
            )

    linear("embedding", N_FEATURES, hidden)
    for i in range(n_conv):
        linear(f"convs.{i}.fc_full", 2 * hidden + N_GAUSSIANS, 2 * hidden)
        batch_norm(f"convs.{i}.bn1", 2 * hidden)
        batch_norm(f"convs.{i}.bn2", hidden)
    linear("conv_to_fc", hidden, h_fea)
    for i in range(n_h - 1):
        linear(f"fcs.{i}", h_fea, h_fea)
    linear("fc_out", h_fea, n_out)
    return state


def original_graph(structure: Structure) -> Graph:
    """Features [n_atoms, 92], neighbors [n_atoms, 12] and their Gaussians [n_atoms, 12, 41]."""
    near = [
        sorted(found, key=lambda n: n.nn_distance)[:12]
        for found in structure.get_all_neighbors(8.0)
    ]
    assert {len(found) for found in near} == {12}
    distance = torch.tensor([[n.nn_distance for n in found] for found in near])
    gaussians = torch.exp(
        -((distance.unsqueeze(2) - torch.arange(N_GAUSSIANS) * 0.2) ** 2) / 0.2**2
    )
    features = torch.tensor(atom_init())[[site.specie.Z for site in structure]]
    return features, torch.tensor([[n.index for n in found] for found in near]), gaussians.float()


def original_output(state: dict[str, Tensor], graph: Graph) -> Tensor:
    """The output layer of the network of Xie & Grossman 2018, in evaluation."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def batch_norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    features, neighbors, gaussians = graph
    x = linear("embedding", features)
    for i in range(sum(key.endswith(".fc_full.weight") for key in state)):
        center = x.unsqueeze(1).expand(-1, 12, -1)
        z = batch_norm(
            f"convs.{i}.bn1",
            linear(f"convs.{i}.fc_full", torch.cat([center, x[neighbors], gaussians], 2)),
        )
        gate, core = z.chunk(2, dim=2)
        x = F.softplus(
            x + batch_norm(f"convs.{i}.bn2", (torch.sigmoid(gate) * F.softplus(core)).sum(1))
        )
    crystal = F.softplus(linear("conv_to_fc", F.softplus(x.mean(0))))
    for i in range(sum(key.startswith("fcs.") for key in state) // 2):
        crystal = F.softplus(linear(f"fcs.{i}", crystal))
    return linear("fc_out", crystal)


def content(state: dict[str, Tensor], **changes: Any) -> dict[str, Any]:
    """The content that main.py of the original saves."""
    as_numbers = {"mean": torch.tensor(-1.5), "std": torch.tensor(0.75)}
    arguments = {
        "data_options": ["data/mine"],
        "task": "regression",
        "lr": 0.01,
        "device": torch.device("cpu"),
    }
    error = {
        "best_mae_error": np.float64(0.25),
        "epoch": 3,
        "optimizer": {"state": {0: {"momentum_buffer": None}}},
    }
    return {**error, "state_dict": state, "normalizer": as_numbers, "args": arguments, **changes}
