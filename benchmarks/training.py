"""Measure training speed against PyG's `CGConv` with PyG's `DataLoader`, in the same run."""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from common import TARGETS, data_file, peak_rss_gib, print_header, print_row
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import CGConv, global_mean_pool

from csgcnn.config.compose import compose
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.elements import atom_init
from csgcnn.data.cache import open_dataset
from csgcnn.data.store import GraphStore
from csgcnn.evaluation.inference import predict_rows
from csgcnn.hardware import select_device
from csgcnn.nn.build import build_network
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution, IsomorphismConvolution
from csgcnn.nn.edge_calculators import GaussianDistance
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.nn.node_features import ElementTable
from csgcnn.nn.pooling import MeanPooling

PLAIN = GraphSettings(shells="truncate", compress=False)
# Steps that are not timed.
WARM_UP = 3


def network(convolution: type[nn.Module] = GatedConvolution) -> CrystalGraphNetwork:
    """Build the network of CGCNN, with any convolution."""
    features = {"atom_init": ElementTable(atom_init())}
    return CrystalGraphNetwork(features, GaussianDistance(8.0), convolution, MeanPooling)


def default_network() -> CrystalGraphNetwork:
    """Build the network of `csgcnn train` without overrides."""
    return build_network(compose("train"), [1])


# The convolutions in the network of CGCNN, and the default network: CSGANN with the node features
# [atom_init, learned] and the density.
MODELS: dict[str, Callable[[], CrystalGraphNetwork]] = {
    "CSGCNN": network,
    "CSGANN": partial(network, AttentionConvolution),
    "CSGINN": partial(network, IsomorphismConvolution),
    "default of `csgcnn train`": default_network,
}


class PyGModel(nn.Module):
    """The network of CGCNN in PyG, with the same widths, embedding, basis and head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(92, 64)
        self.convolutions = nn.ModuleList(CGConv(64, 41, batch_norm=True) for _ in range(3))
        self.hidden = nn.Linear(64, 128)
        self.out = nn.Linear(128, 1)

    def forward(self, data: Data) -> Tensor:
        x = self.embedding(data.x)
        for convolution in self.convolutions:
            x = F.softplus(convolution(x, data.edge_index, data.edge_attr))
        return self.out(F.softplus(self.hidden(F.softplus(global_mean_pool(x, data.batch)))))


def pyg_graphs(store: GraphStore, targets: Tensor, n: int) -> list[Data]:
    """Return the first `n` crystals as a PyG data set, with expanded features."""
    basis, table = GaussianDistance(8.0), torch.tensor(atom_init())
    graphs = []
    for i in range(n):
        batch = store.batch(torch.tensor([i]))
        x, edge_attr, y = table[batch.atomic_number], basis(batch), targets[i : i + 1]
        graphs.append(Data(x=x, edge_index=batch.edge_index, edge_attr=edge_attr, y=y))
    return graphs


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def take_step(outputs: Tensor, targets: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Minimize the MAE of a batch."""
    loss = F.l1_loss(outputs, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def pyg_rate(store: GraphStore, targets: Tensor, batch_size: int, n_batches: int) -> float:
    """Return the structures per second of the PyG loop."""
    graphs = pyg_graphs(store, targets, min(len(store), batch_size * (n_batches + WARM_UP)))
    model = PyGModel().train()
    optimizer, seconds = adamw(model), []
    end = time.perf_counter()
    for data in DataLoader(graphs, batch_size=batch_size, shuffle=True):
        take_step(model(data), data.y, optimizer)
        seconds.append(time.perf_counter() - end)
        end = time.perf_counter()
    return batch_size / float(np.median(seconds[WARM_UP:]))


def training_rate(
    store: GraphStore,
    targets: Tensor,
    batch_size: int,
    n_batches: int,
    model: CrystalGraphNetwork | None = None,
) -> tuple[float, float]:
    """Measure training steps of csgcnn.

    Args:
        store: Graphs.
        targets: Values [n_graphs, 1].
        batch_size: Crystals per step.
        n_batches: Number of timed steps.
        model: The network; by default that of CGCNN.

    Returns:
        Structures per second, and the fraction of a step in which the batch is assembled.
    """
    model = (model or network()).train()
    optimizer, seconds, in_data = adamw(model), [], []
    for rows in torch.randint(len(store), (n_batches + WARM_UP, batch_size)):
        start = time.perf_counter()
        batch, target = store.batch(rows), targets.index_select(0, rows)
        in_data.append(time.perf_counter() - start)
        take_step(model.standardized(batch), target, optimizer)
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds[WARM_UP:]))
    return batch_size / median, float(np.median(in_data[WARM_UP:])) / median


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def inference_rate(store: GraphStore, batch_size: int, seconds: float) -> float:
    """Return the structures per second of prediction with the network of CGCNN."""
    rows, model = torch.arange(min(len(store), 10 * batch_size)), network().to(store.device)
    predict_rows(model, store, rows[:batch_size], batch_size)
    start, n_graphs = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        predict_rows(model, store, rows, batch_size)
        synchronize(store.device)
        n_graphs += len(rows)
    return n_graphs / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps, one batch size")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    options = parser.parse_args()
    # The settings of the process hold for the PyG loop, too.
    select_device("cpu", options.threads)
    torch.manual_seed(0)
    n_batches = 10 if options.quick else 60
    print(f"{options.threads} threads, torch {torch.__version__}, hidden 64, 3 convolutions")
    print_header("data", "batch", "PyG", "plain graph", "default graph", "ratio", "data share")
    stores = {name: open_dataset(data_file(name), GraphSettings()).store for name in TARGETS}
    values = {name: stores[name].numbers([target]).float() for name, target in TARGETS.items()}
    for name, store in stores.items():
        plain = open_dataset(data_file(name), PLAIN).store
        for size in [128] if options.quick else [64, 128, 256]:
            pyg = pyg_rate(plain, values[name], size, n_batches)
            plain_rate, _ = training_rate(plain, values[name], size, n_batches)
            rate, share = training_rate(store, values[name], size, n_batches)
            rates = [f"{each:.0f}/s" for each in (pyg, plain_rate, rate)]
            print_row(name, size, *rates, f"{rate / pyg:.1f}x", f"{share:.1%}")
        print_row(
            f"{name}, inference",
            256,
            "",
            "",
            f"{inference_rate(store, 256, n_batches / 20):.0f}/s",
            "",
            "",
        )
    print_header("batch 128, default graph", *MODELS)
    for name, store in stores.items():
        rates = [
            training_rate(store, values[name], 128, n_batches, build())[0]
            for build in MODELS.values()
        ]
        print_row(name, *(f"{rate:.0f}/s ({rate / rates[0]:.2f}x)" for rate in rates))
    print(f"\npeak RSS of this process: {peak_rss_gib():.2f} GiB")


if __name__ == "__main__":
    main()
