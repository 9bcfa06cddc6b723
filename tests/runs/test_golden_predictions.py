"""Stored models predict as they did, with any version of the package and of PyTorch.

After an intended change of the numbers: WRITE_GOLDEN=1 pytest tests/runs/test_golden_predictions.py
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from csgcnn import load
from csgcnn.config.compose import compose
from csgcnn.nn.build import build_network
from csgcnn.runs.checkpoint import save_checkpoint

GOLDEN = Path(__file__).with_name("golden_predictions.json")
# Formats 3 and 4 are ensembles whose members predict standard deviations:
# csgcnn train ensemble=2 loss=gaussian model=csgcnn model.hidden=8 model.n_convolutions=1
# model.head_hidden=8 edge=rbf edge.n_basis=8 node_features=learned node_features.learned.dim=4
# graph.global_features=none trainer.max_epochs=3 trainer.device=cpu
# Format 5 is a single network with graph.global_features=density and their range.
STORED = [f"format_{number}.ckpt" for number in (1, 2, 3, 4, 5)]
BUILT = [
    f"{model} {edge}" for model in ("csgcnn", "csgann", "csginn") for edge in ("gaussian", "rbf")
]
SMALL = ["model.hidden=8", "model.n_convolutions=2", "model.head_hidden=8"]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights by a formula, as random numbers may differ between versions; tables stay."""
    state = model.state_dict()
    for name, tensor in state.items():
        wave = np.sin(np.arange(1, tensor.numel() + 1) + len(name)).reshape(tensor.shape)
        if name.endswith("running_var"):
            wave = 1 + wave / 2
        elif name.startswith(("edge_calculator", "scaler")) or "table" in name:
            continue
        elif tensor.ndim > 1:
            wave = wave * 2 / tensor.shape[-1] ** 0.5
        state[name] = torch.tensor(wave, dtype=tensor.dtype)
    return state


def checkpoint(name: str, folder: Path) -> Path:
    """A stored checkpoint, or one of a model and an edge calculator with `weights`."""
    if name in STORED:
        return Path(__file__).with_name(name)
    model, edge = name.split()
    options = [f"model={model}", f"edge_calculator={edge}", "node_features=[atom_init]"]
    overrides = [*options, "graph.global_features=none", *SMALL]
    config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    content = {
        "config": config,
        "targets": [{"name": "a"}],
        "elements": [1],
        "state_dict": weights(build_network(config, [1])),
    }
    save_checkpoint(content, folder / "built.ckpt")
    return folder / "built.ckpt"


@pytest.mark.parametrize("name", STORED + BUILT)
def test_a_model_predicts_as_it_did(
    name: str, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    structures = [record["crystal_structure"] for record in records[::10]]
    model = load(checkpoint(name, tmp_path))
    found = model.predict(structures)[:, 0].tolist()
    if model.has_std:
        found += model.predict_with_std(structures)[1][:, 0].tolist()
    if "WRITE_GOLDEN" in os.environ:
        golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(
            json.dumps(golden | {name: [float(f"{x:.7g}") for x in found]}, indent=1) + "\n"
        )
    np.testing.assert_allclose(found, json.loads(GOLDEN.read_text())[name], rtol=1e-5, atol=2e-6)
    assert np.ptp(found) > 0.01, "the crystals can be told apart"
