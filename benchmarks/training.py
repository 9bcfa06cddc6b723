"""Training speed against PyG's `CGConv` with PyG's `DataLoader`, in the same run."""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from common import DATA, peak_rss_gib
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import CGConv, global_mean_pool

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.elements import atom_init
from csgcnn.data.cache import open_dataset
from csgcnn.data.store import GraphStore
from csgcnn.evaluation.inference import predict_rows
from csgcnn.hardware import select_device
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution, IsomorphismConvolution
from csgcnn.nn.edge_calculators import GaussianDistance
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.nn.node_features import ElementTable
from csgcnn.nn.pooling import MeanPooling

MODELS = {
    "CSGCNN": GatedConvolution,
    "CSGANN": AttentionConvolution,
    "CSGINN": IsomorphismConvolution,
}


class PyGModel(nn.Module):
    """What a careful user of PyG writes by hand: the same widths, embedding, basis and head."""

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
    """The first `n` crystals as PyG data sets hold them."""
    basis, table = GaussianDistance(8.0), torch.tensor(atom_init())
    graphs = []
    for i in range(n):
        batch = store.batch(torch.tensor([i]))
        attributes = {
            "edge_index": batch.edge_index,
            "edge_attr": basis(batch),
            "y": targets[i : i + 1],
        }
        graphs.append(Data(x=table[batch.atomic_number], **attributes))
    return graphs


def train_pyg(store: GraphStore, targets: Tensor, batch_size: int, n_batches: int) -> float:
    """Structures per second of the PyG loop; features are expanded beforehand, as PyG data sets do."""
    graphs = pyg_graphs(store, targets, min(len(store), batch_size * (n_batches + 3)))
    model = PyGModel().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    seconds = []
    end = time.perf_counter()
    for data in DataLoader(graphs, batch_size=batch_size, shuffle=True):
        loss = F.l1_loss(model(data), data.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - end)
        end = time.perf_counter()
    return batch_size / float(np.median(seconds[3:]))


def network(convolution: type[nn.Module] = GatedConvolution) -> CrystalGraphNetwork:
    features = {"atom_init": ElementTable(atom_init())}
    return CrystalGraphNetwork(features, GaussianDistance(8.0), convolution, MeanPooling)


def train_ours(
    store: GraphStore,
    targets: Tensor,
    batch_size: int,
    n_batches: int,
    model: CrystalGraphNetwork | None = None,
) -> tuple[float, float]:
    """Structures per second of our step, and the share of choosing and assembling the batch in it."""
    model = (model or network()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    batches = torch.randint(len(store), (n_batches + 3, batch_size))
    seconds, in_data = [], []
    for rows in batches:
        start = time.perf_counter()
        batch, target = store.batch(rows), targets.index_select(0, rows)
        in_data.append(time.perf_counter() - start)
        loss = F.l1_loss(model.standardized(batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds[3:]))
    return batch_size / median, float(np.median(in_data[3:])) / median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    select_device("cpu", options.threads)  # the PyG loop gets what our set-up gives, too
    torch.manual_seed(0)
    n_batches = 10 if options.quick else 60
    print(
        f"{options.threads} threads, torch {torch.__version__}, hidden 64, 3 convolutions, 12 neighbors\n"
    )
    print(
        "| data | batch | PyG CGConv + DataLoader | ours, plain graph | ours, default graph | ratio | data share |"
    )
    print("| --- " * 7 + "|")
    for name, target in {"castelli_perovskites": "e_form", "mp_gap_10k": "band_gap"}.items():
        path = DATA / f"{name}.json.gz"
        plain = open_dataset(path, GraphSettings(shells="truncate", compress=False))[0]
        default = open_dataset(path, GraphSettings())[0]
        targets = default.numbers([target]).float()
        for batch_size in [128] if options.quick else [64, 128, 256]:
            theirs = train_pyg(plain, targets, batch_size, n_batches)
            ours_plain, _ = train_ours(plain, targets, batch_size, n_batches)
            ours, share = train_ours(default, targets, batch_size, n_batches)
            speeds = f"{theirs:.0f}/s | {ours_plain:.0f}/s | {ours:.0f}/s | {ours / theirs:.1f}x"
            print(f"| {name} | {batch_size} | {speeds} | {share:.1%} |", flush=True)
        rows = torch.arange(min(4000, len(default)))
        start = time.perf_counter()
        predict_rows(network(), default, rows, 256)
        print(
            f"| {name}, inference | 256 | | | {len(rows) / (time.perf_counter() - start):.0f}/s | | |",
            flush=True,
        )
    print("\n| batch 128, default graph | " + " | ".join(MODELS) + " |\n" + "| --- " * 4 + "|")
    for name, target in {"castelli_perovskites": "e_form", "mp_gap_10k": "band_gap"}.items():
        store = open_dataset(DATA / f"{name}.json.gz", GraphSettings())[0]
        targets = store.numbers([target]).float()
        speeds = [
            train_ours(store, targets, 128, n_batches, network(operator))[0]
            for operator in MODELS.values()
        ]
        print(
            f"| {name} | " + " | ".join(f"{s:.0f}/s ({s / speeds[0]:.2f}x)" for s in speeds) + " |",
            flush=True,
        )
    print(f"\npeak RSS of all of the above in one process: {peak_rss_gib():.2f} GiB")


if __name__ == "__main__":
    main()
