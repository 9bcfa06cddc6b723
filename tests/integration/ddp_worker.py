"""One rank in `test_ranks.py`: a step of each network, a training and the collective functions."""

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
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.dataset import Dataset
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
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
N_ROWS = (13, 1)  # 1: fewer rows than ranks
NORMS = ("batch", "layer")
CONVOLUTIONS = ("GatedConvolution", "AttentionConvolution", "IsomorphismConvolution")


def make_trainer(convolution: str = CONVOLUTIONS[0], norm: str = "batch") -> Trainer:
    """A training of a small network on two targets, one of them with missing values."""
    torch.manual_seed(0)
    with gzip.open(DATA, "rt") as file:
        records = json.load(file)[:40]
    crystals = [to_crystal(record["crystal_structure"]) for record in records]
    ids = [record["material_id"] for record in records]
    store = GraphStore(connect(crystals, GraphSettings()), ids, {}, GraphSettings())
    values = torch.tensor([[record["band_gap"], record["refractive_index"]] for record in records])
    values[::3, 1] = torch.nan
    network = CrystalGraphNetwork(
        {"atom_init": ElementTable(elements.atom_init())},
        GaussianDistance(8.0),
        getattr(convolutions, convolution),
        pooling.MeanPooling,
        n_outputs=[1, 1],
        hidden=8,
        n_convolutions=2,
        norm=norm,
    )
    targets = [Target("band_gap", "eV"), Target("refractive_index", "")]
    return Trainer(
        network,
        Dataset(store, targets, values, torch.arange(40), []),
        {"train": torch.arange(30), "val": torch.arange(30, 37), "test": torch.arange(37, 38)},
        MultiTaskLoss(WeightedRegressionLoss(mse=0.5, l1=0.5), [1, 1], learn_weights=True),
        partial(torch.optim.SGD, lr=0.1),
        constant,
        TrainerSettings(max_epochs=2, batch_size=13, progress=False),
    )


def one_step(convolution: str, norm: str, n_rows: int) -> dict[str, torch.Tensor]:
    """Loss, gradients and statistics of a step, and predictions for 7 crystals and for 1."""
    trainer = make_trainer(convolution, norm)
    rows = torch.arange(n_rows)
    loss = trainer.train_step(rows, trainer.store.batch(distributed.shard_rows(rows)))
    named = {f"gradient of {name}": p.grad for name, p in trainer.model.named_parameters()}
    gradients = {name: gradient for name, gradient in named.items() if gradient is not None}
    weights = {f"loss weight {i}": p.grad for i, p in enumerate(trainer.loss.parameters())}
    buffers = trainer.model.named_buffers()
    statistics = {name: buffer for name, buffer in buffers if "running" in name}
    predictions = {part: trainer.predict(part) for part in ("val", "test")}
    return {"loss": loss, **gradients, **weights, **statistics, **predictions}


def collectives() -> dict[str, Any]:
    """Results of the functions of `csgcnn.distributed`."""
    rank, size = distributed.rank(), distributed.world_size()

    def fail_on_the_last_rank() -> None:
        if rank == size - 1:
            raise ConfigError("no data here")

    try:
        failure: Any = distributed.run_on_all_ranks(fail_on_the_last_rank)
    except distributed.CollectiveError as error:
        failure = str(error), error.exit_code
    try:
        distributed.check_equal_on_all_ranks(f"rank {rank}", "mount the same disk")
        difference = ""
    except distributed.CollectiveError as error:
        difference = str(error)
    return {
        "result": distributed.run_on_all_ranks(lambda: "found"),
        "failure": failure,
        "difference": difference,
        "text": distributed.broadcast_text("Å and more" if rank == 0 else ""),
        "maximum": distributed.max_over_ranks(5 * rank),
        "gathered": distributed.gather(distributed.shard_rows(torch.arange(1)), 1).tolist(),
        "n_random_states": len(training_state(make_trainer())["rng"]["cpu"]),
        "random numbers": distributed.all_gather(torch.rand(3)).tolist(),
    }


def train() -> dict[str, torch.Tensor]:
    """Weights and statistics after two epochs."""
    trainer = make_trainer()
    trainer.fit(lambda: None)
    return trainer.model.state_dict()


def everything() -> dict[str, Any]:
    steps = product(CONVOLUTIONS, NORMS, N_ROWS)
    return {
        "steps": {", ".join(map(str, step)): one_step(*step) for step in steps},
        "collectives": collectives(),
        "weights": train(),
    }


if __name__ == "__main__":
    with distributed.process_group(read_rank()):
        torch.save(everything(), sys.argv[1].format(distributed.rank()))
