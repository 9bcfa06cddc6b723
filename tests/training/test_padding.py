"""Training steps on padded batches, which GPUs replay, equal those on plain batches."""

from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from csgcnn.commands.prepare import plain
from csgcnn.config.compose import compose
from csgcnn.config.locations import CONF
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.batch import GraphBatch
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.nn.build import build_network
from csgcnn.training.losses import build_loss
from csgcnn.training.schedulers import constant
from csgcnn.training.trainer import Trainer

BASE = (
    "model.hidden=8",
    "model.n_convolutions=2",
    "model.head_hidden=8",
    "graph.global_features=none",
)
TARGET = Target("band_gap", "eV")
NORMS = ("batch", "layer", "none")
# Few padding atoms, each with thousands of padding edges.
MORE_ATOMS, MORE_EDGES = 1, 2000


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def composed(override: str) -> dict[str, Any]:
    return plain(compose("train", [*BASE, override]))


def config(model: str, pooling: str, norm: str, loss: str) -> dict[str, Any]:
    with_loss = composed(f"loss={loss}")
    chosen = composed(f"model={model}")
    changes = {"norm": norm, "predict_std": with_loss["model"]["predict_std"]}
    return chosen | {
        "model": chosen["model"] | changes,
        "pooling": composed(f"pooling={pooling}")["pooling"],
        "loss": with_loss["loss"],
    }


def make_trainer(cfg: dict[str, Any], store: GraphStore, values: Tensor, split: Split) -> Trainer:
    torch.manual_seed(0)
    return Trainer(
        build_network(cfg, [1]),
        Dataset(store, [TARGET], values, torch.arange(len(store)), []),
        split,
        build_loss(cfg, [TARGET], values),
        # A large rate, so that logits of padding atoms would differ from those of crystals.
        lambda groups: torch.optim.SGD(groups, lr=0.05),
        constant,
        TrainerSettings(max_epochs=1, batch_size=8, grad_clip=1.0, ema=None, progress=False),
    )


@pytest.fixture(scope="module")
def full_store(records: list[dict[str, Any]]) -> GraphStore:
    """Uncompressed graphs, whose edges are enough to pad with."""
    settings = GraphSettings(compress=False, global_features=())
    graphs = connect([to_crystal(record["crystal_structure"]) for record in records], settings)
    return GraphStore(graphs, [record["material_id"] for record in records], {}, settings)


@pytest.mark.parametrize(
    ("model", "pooling", "norm", "loss"),
    [*product(options("model"), options("pooling"), NORMS, options("loss"))],
)
def test_padding_changes_neither_outputs_nor_gradients_nor_statistics(
    model: str,
    pooling: str,
    norm: str,
    loss: str,
    full_store: GraphStore,
    targets: Tensor,
    split: Split,
) -> None:
    cfg = config(model, pooling, norm, loss)
    unpadded, padded = (make_trainer(cfg, full_store, targets, split) for _ in range(2))
    for rows in torch.arange(16).split(8):
        n_atoms, n_edges = full_store.size(rows)
        larger = full_store.padded(rows, n_atoms + MORE_ATOMS, n_edges + MORE_EDGES)
        found = step(padded, rows, larger)
        for name, expected in step(unpadded, rows, full_store.batch(rows)).items():
            torch.testing.assert_close(found[name], expected, rtol=2e-4, atol=2e-5, msg=name)


def step(trainer: Trainer, rows: Tensor, batch: GraphBatch) -> dict[str, Tensor]:
    """Take one step; return the loss, the outputs, the gradients and the statistics."""
    trainer.optimizer.zero_grad()
    outputs = trainer.model.eval().standardized(batch).detach()
    trainer.model.train()
    loss = trainer.compute_gradients(rows, batch)
    trainer.optimizer.step()
    parameters = trainer.model.named_parameters()
    gradients = {name: weight.grad for name, weight in parameters if weight.grad is not None}
    statistics = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    return {"loss": loss, "outputs": outputs, **gradients, **statistics}
