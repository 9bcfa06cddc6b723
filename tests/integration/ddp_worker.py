"""What a process of several does in `test_processes.py`: one step of each network on the same global batch."""

import gzip
import json
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from csgcnn import distributed
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.crystals import elements
from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.graphs import connect
from csgcnn.data.dataset import Dataset
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.hardware import read_rank
from csgcnn.nn import convolutions, pooling
from csgcnn.nn.edge_calculators import GaussianDistance
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.nn.node_features import ElementTable
from csgcnn.training.losses import MultiTaskLoss, WeightedRegressionLoss
from csgcnn.training.schedulers import constant
from csgcnn.training.state import training_state
from csgcnn.training.trainer import Trainer

DATA = Path(__file__).parents[2] / "data" / "dielectric.json.gz"
N_ROWS = (13, 1)  # 1: fewer than processes
NORMS = ("batch", "layer")
OPERATORS = ("GatedConvolution", "AttentionConvolution", "IsomorphismConvolution")


def trainer(operator: str, norm: str = "batch", **settings: Any) -> Trainer:
    """A training of a small network on two targets, of which some values are missing."""
    torch.manual_seed(0)
    with gzip.open(DATA, "rt") as file:
        records = json.load(file)[:40]
    graphs = connect(
        [to_crystal(record["crystal_structure"]) for record in records], GraphSettings()
    )
    values = torch.tensor([[record["band_gap"], record["refractive_index"]] for record in records])
    values[::3, 1] = torch.nan
    network = CrystalGraphNetwork(
        {"atom_init": ElementTable(elements.atom_init())},
        GaussianDistance(8.0),
        getattr(convolutions, operator),
        pooling.MeanPooling,
        n_outputs=[1, 1],
        hidden=8,
        n_convolutions=2,
        norm=norm,
    )
    store = GraphStore(graphs, [record["material_id"] for record in records], {}, GraphSettings())
    targets = [Target("band_gap", "eV"), Target("refractive_index", "")]
    return Trainer(
        network,
        Dataset(store, targets, values, torch.arange(40), []),
        {"train": torch.arange(30), "val": torch.arange(30, 37), "test": torch.arange(37, 40)},
        MultiTaskLoss(WeightedRegressionLoss(mse=0.5, l1=0.5), [1, 1], learn_weights=True),
        partial(torch.optim.SGD, lr=0.1),
        constant,
        TrainerSettings(max_epochs=2, batch_size=13, progress=False, **settings),
    )


def one_step(operator: str, norm: str, n_rows: int) -> dict[str, torch.Tensor]:
    """Gradients and statistics after a step on the first crystals, and predictions for 7 and for 1 other."""
    training = trainer(operator, norm)
    training.split["test"] = training.split["test"][:1]
    rows = torch.arange(n_rows)
    loss = training.train_step(rows, training.store.batch(distributed.shard_rows(rows)))
    gradients = {
        f"gradient of {name}": p.grad
        for name, p in training.model.named_parameters()
        if p.grad is not None
    }
    weights = {f"loss weight {i}": p.grad for i, p in enumerate(training.loss.parameters())}
    statistics = {
        name: tensor for name, tensor in training.model.named_buffers() if "running" in name
    }
    predictions = {part: training.predict(part) for part in ("val", "test")}
    return {"loss": loss, **gradients, **weights, **statistics, **predictions}


def exchanges() -> dict[str, Any]:
    """What the functions of `processes` give."""
    rank, size = distributed.rank(), distributed.world_size()

    def fails_in_the_last() -> None:
        if rank == size - 1:
            raise UserError("no data here")

    try:
        failure = distributed.run_on_all_ranks(fails_in_the_last)
    except UserError as error:
        failure = str(error)
    return {
        "failure": failure,
        "text": distributed.broadcast_text("Å and more" if rank == 0 else ""),
        "highest": distributed.max_over_ranks(5 * rank),
        "gathered": distributed.gather(distributed.shard_rows(torch.arange(1)), 1).tolist(),
        "states": len(training_state(trainer(OPERATORS[0]))["rng"]["cpu"]),
        "draws": distributed.all_gather(torch.rand(3)).tolist(),
    }


def fit() -> dict[str, torch.Tensor]:
    """The weights and statistics after two epochs."""
    training = trainer(OPERATORS[0])
    training.fit(lambda: None)
    return training.model.state_dict()


def everything() -> dict[str, Any]:
    steps = {
        ", ".join(map(str, step)): one_step(*step) for step in product(OPERATORS, NORMS, N_ROWS)
    }
    return {
        "steps": steps,
        "exchanges": exchanges(),
        "weights": fit(),
    }


if __name__ == "__main__":
    with distributed.process_group(read_rank()):
        torch.save(everything(), sys.argv[1].format(read_rank().rank))
