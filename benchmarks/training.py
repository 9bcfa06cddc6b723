"""Measure training and inference against PyG's `CGConv` with PyG's `DataLoader`.

The steps of all networks alternate, so that whatever else the machine does hits them alike.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from common import CGCNN, TARGETS, data_file, peak_rss_gib, print_header, print_row, records
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import CGConv, global_mean_pool

from csgcnn.cli.overrides import canonical
from csgcnn.config.compose import compose
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.elements import atom_init
from csgcnn.crystals.graph_builder import GraphPlan
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.cache import open_dataset
from csgcnn.data.record_stores import stores_of
from csgcnn.data.store import GraphStore
from csgcnn.evaluation.inference import predict_rows
from csgcnn.hardware import select_device
from csgcnn.nn.build import build_network
from csgcnn.nn.convolutions import GatedConvolution
from csgcnn.nn.edge_calculators import GaussianDistance
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.nn.node_features import ElementTable
from csgcnn.nn.pooling import MeanPooling

PLAIN = GraphSettings(shells="truncate", compress=False)
# Steps that are not timed.
WARM_UP = 3
# Crystals whose atoms are displaced, and the standard deviation of each coordinate in Å.
N_DISPLACED, DISPLACEMENT = 2000, 0.03


def network(convolution: type[nn.Module] = GatedConvolution) -> CrystalGraphNetwork:
    """Build the network of CGCNN, with any convolution."""
    features = {"atom_init": ElementTable(atom_init())}
    return CrystalGraphNetwork(features, GaussianDistance(8.0), convolution, MeanPooling)


def composed(*overrides: str) -> CrystalGraphNetwork:
    """Build the network of `csgcnn train` with overrides."""
    return build_network(compose("train", canonical("train", overrides)), [1])


# The default: CSGANN with the node features [atom_init, learned] and the density. The others have
# the node features of CGCNN.
MODELS: dict[str, Callable[[], CrystalGraphNetwork]] = {
    "default": composed,
    "CSGCNN": network,
    "CSGANN": partial(composed, "model=csgann", *CGCNN[1:]),
    "CSGINN": partial(composed, "model=csginn", *CGCNN[1:]),
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


Step = Callable[[], None]


def pyg_training(graphs: list[Data], batch_size: int) -> Step:
    """Return training steps of the PyG loop."""
    model = PyGModel().train()
    optimizer = adamw(model)
    batches = chain.from_iterable(
        DataLoader(graphs, batch_size, shuffle=True, drop_last=True) for _ in count()
    )

    def step() -> None:
        data = next(batches)
        take_step(model(data), data.y, optimizer)

    return step


def training(model: nn.Module, store: GraphStore, targets: Tensor, batch_size: int) -> Step:
    """Return training steps of csgcnn.

    Args:
        model: The network.
        store: Graphs.
        targets: Values [n_graphs, 1].
        batch_size: Crystals per step.
    """
    model.train()
    optimizer = adamw(model)

    def step() -> None:
        rows = torch.randint(len(store), (batch_size,))
        take_step(model.standardized(store.batch(rows)), targets.index_select(0, rows), optimizer)

    return step


def pyg_inference(graphs: list[Data], batch_size: int) -> Step:
    """Return predictions of batches with the PyG loop."""
    model = PyGModel().eval()
    batches = chain.from_iterable(DataLoader(graphs, batch_size, drop_last=True) for _ in count())

    @torch.inference_mode()
    def step() -> None:
        model(next(batches))

    return step


def inference(model: nn.Module, store: GraphStore, batch_size: int) -> Step:
    """Return predictions of batches with csgcnn.

    Args:
        model: The network.
        store: Graphs.
        batch_size: Crystals per batch.
    """
    return lambda: predict_rows(model, store, torch.randint(len(store), (batch_size,)), batch_size)


def rates(steps: Mapping[str, Step], batch_size: int, n_steps: int) -> dict[str, float]:
    """Return the structures per second of steps that alternate, from their median times.

    Args:
        steps: The steps by name.
        batch_size: Crystals per step.
        n_steps: Timed steps of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(n_steps + WARM_UP):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: batch_size / median(times[WARM_UP:]) for name, times in seconds.items()}


def displaced(name: str, settings: GraphSettings) -> GraphStore:
    """Return graphs of crystals whose atoms are displaced: nothing is equal, nothing is merged.

    Args:
        name: Data set.
        settings: Settings of the graphs.
    """
    generator, moved = np.random.default_rng(0), []
    for record in records(name, N_DISPLACED):
        crystal = to_crystal(record.source)
        shift = generator.normal(0, DISPLACEMENT, crystal.frac_coords.shape)
        coords = crystal.frac_coords + shift @ np.linalg.inv(crystal.lattice)
        moved.append(replace(record, source=crystal._replace(frac_coords=coords)))
    plan = GraphPlan(settings, workers=1, chunk_size=N_DISPLACED)
    ((_, store),) = stores_of(moved, plan, [TARGETS[name]], torch.device("cpu"))
    assert store
    return store


def print_rates(
    name: str, store: GraphStore, plain: GraphStore, sizes: Sequence[int], n_steps: int
) -> None:
    """Print the rates of all networks on one data set, in training and inference.

    Args:
        name: Data set.
        store: Its graphs, as csgcnn builds them by default.
        plain: The graphs of the peer.
        sizes: Batch sizes.
        n_steps: Timed steps of each network.
    """
    values = store.numbers([TARGETS[name.split(",")[0]]]).float()
    for size in sizes:
        graphs = pyg_graphs(plain, values, min(len(plain), 20 * size))
        models = {model: build() for model, build in MODELS.items()}
        steps = {model: training(network, store, values, size) for model, network in models.items()}
        _print(name, size, rates({"PyG": pyg_training(graphs, size), **steps}, size, n_steps))
        if size == sizes[-1]:
            steps = {model: inference(network, store, size) for model, network in models.items()}
            found = rates({"PyG": pyg_inference(graphs, size), **steps}, size, n_steps)
            _print(f"{name}, inference", size, found)


def _print(name: str, size: int, found: dict[str, float]) -> None:
    pyg = found.pop("PyG")
    of_csgcnn = f"{found['default'] / found['CSGCNN']:.2f}x"
    cells = (f"{rate:.0f}/s ({rate / pyg:.1f}x)" for rate in found.values())
    print_row(name, size, f"{pyg:.0f}/s", *cells, of_csgcnn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps, one batch size")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    options = parser.parse_args()
    # The settings of the process hold for the PyG loop, too.
    select_device("cpu", options.threads)
    torch.manual_seed(0)
    n_steps, sizes = (10, [128]) if options.quick else (40, [64, 256, 128])
    print(f"{options.threads} threads, torch {torch.__version__}, hidden 64, 3 convolutions")
    print_header("data", "batch", "PyG", *MODELS, "default / CSGCNN")
    for name in TARGETS:
        store, plain = (
            open_dataset(data_file(name), settings).store for settings in (GraphSettings(), PLAIN)
        )
        print_rates(name, store, plain, sizes, n_steps)
    for name in TARGETS:
        store, plain = (displaced(name, settings) for settings in (GraphSettings(), PLAIN))
        print_rates(f"{name}, displaced", store, plain, [128], n_steps)
    print(f"\npeak RSS of this process: {peak_rss_gib():.2f} GiB")


if __name__ == "__main__":
    main()
