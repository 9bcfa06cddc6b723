"""What a GPU makes of training and inference: speed of the three models, batch sizes, precision, compilation, PyG.

Runs in one call, on the CPU too (with --quick, to see that it works).
"""

import argparse
import itertools
import time
import warnings
from functools import partial

import torch
import torch.nn.functional as F
from common import DATA
from torch import Tensor
from torch_geometric.loader import DataLoader
from training import MODELS, PyGModel, network, pyg_graphs

from csgcnn.crystals.graphs import GraphSettings
from csgcnn.data.cache import open_dataset
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.training.inference import predict_rows
from csgcnn.training.losses import Weighted
from csgcnn.training.schedulers import constant
from csgcnn.training.trainer import Trainer, TrainerSettings

PLAIN = GraphSettings(shells="truncate", compress=False)
SETS = {"castelli_perovskites": "e_form", "mp_gap_10k": "band_gap"}


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Steps:
    """The product's own training step, over and over, with its clock."""

    def __init__(self, store: GraphStore, values: Tensor, operator: str, batch_size: int, **settings: object) -> None:
        torch.manual_seed(0)
        rows = torch.randperm(len(store))
        rows = rows.repeat(-(-batch_size // len(rows)))  # a batch may be larger than the data set
        split = {"train": rows, "val": rows[:256], "test": rows[:256]}
        self.trainer = Trainer(
            network(MODELS[operator]),
            store,
            [Target("y", "")],
            values,
            split,
            Weighted(mse=1.0),
            partial(torch.optim.AdamW, lr=1e-3, fused=True),
            constant,
            TrainerSettings(max_epochs=1, batch_size=batch_size, grad_clip=1.0, ema=0.99, **settings),  # type: ignore[arg-type]
        )
        self.batches = itertools.cycle([part for part in rows.split(batch_size) if len(part) == batch_size])
        self.batch_size = batch_size
        self.device = store.device
        self.trainer.model.train()

    def step(self, rows: Tensor) -> None:
        """Assemble a batch and take a step on it."""
        self.trainer._step(rows, self.trainer.store.batch(rows))

    def per_second(self, seconds: float, warm_up: int = 5) -> float:
        """Structures per second, after a few steps that are not counted."""
        for rows in itertools.islice(self.batches, warm_up):
            self.step(rows)
        wait(self.device)
        start, n_steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for rows in itertools.islice(self.batches, 4):
                self.step(rows)
            n_steps += 4
            wait(self.device)
        return n_steps * self.batch_size / (time.perf_counter() - start)

    def data_share(self, n_steps: int = 20) -> float:
        """The part of a step that choosing and assembling the batch takes."""
        times = []
        for work in (self.step, self.trainer.store.batch):
            wait(self.device)
            start = time.perf_counter()
            for rows in itertools.islice(self.batches, n_steps):
                work(rows)
            wait(self.device)
            times.append(time.perf_counter() - start)
        return times[1] / times[0]

    def stalls(self, n_steps: int = 10) -> str:
        """How often a step makes the host wait for the GPU."""
        if self.device.type != "cuda":
            return "-"
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            for rows in itertools.islice(self.batches, n_steps):
                self.step(rows)
        torch.cuda.set_sync_debug_mode("default")
        return f"{sum('synchroniz' in str(warning.message) for warning in heard) / n_steps:.1f}"


def pyg_per_second(plain: GraphStore, values: Tensor, batch_size: int, device: torch.device, seconds: float) -> float:
    """Structures per second of PyG's `CGConv` behind PyG's `DataLoader`."""
    graphs = pyg_graphs(plain, values, min(len(plain), 4 * batch_size))
    model = PyGModel().to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loader = DataLoader(graphs, batch_size=batch_size, shuffle=True, drop_last=len(graphs) >= batch_size)
    start, n_graphs, n_epochs = time.perf_counter(), 0, 0
    while not n_epochs or time.perf_counter() - start < seconds:
        if n_epochs == 1:  # the first warms up
            wait(device)
            start, n_graphs = time.perf_counter(), 0
        for data in loader:
            data = data.to(device, non_blocking=True)
            loss = F.l1_loss(model(data), data.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n_graphs += data.num_graphs
        n_epochs += 1
    wait(device)
    return n_graphs / (time.perf_counter() - start)


def inference_per_second(model: CrystalGraphNetwork, store: GraphStore, batch_size: int, seconds: float) -> float:
    """Structures per second of prediction."""
    rows = torch.arange(min(len(store), 10 * batch_size))
    model = model.to(store.device)
    predict_rows(model, store, rows[:batch_size], batch_size)
    start, n_graphs = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        predict_rows(model, store, rows, batch_size)
        wait(store.device)
        n_graphs += len(rows)
    return n_graphs / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="a little of everything")
    options = parser.parse_args()
    device = torch.device(options.device)
    seconds = 0.1 if options.quick else options.seconds
    sizes = [64, 128] if options.quick else [64, 128, 256, 512, 1024, 2048]
    torch.set_flush_denormal(True)
    print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}\n")
    for name, target in list(SETS.items())[: 1 if options.quick else None]:
        path = DATA / f"{name}.json.gz"
        store, plain = (open_dataset(path, settings)[0] for settings in (GraphSettings(), PLAIN))
        values = store.numbers([target]).float()
        store.to(device)
        print(f"\n### {name}: training, structures/s\n")
        print("| batch | " + " | ".join(MODELS) + " | PyG CGConv + DataLoader | ratio | data share | stalls per step |")
        print("| --- " * (len(MODELS) + 5) + "|")
        for batch_size in sizes:
            speeds = [Steps(store, values, operator, batch_size).per_second(seconds) for operator in MODELS]
            steps = Steps(store, values, "CSGCNN", batch_size)
            pyg = pyg_per_second(plain, values, batch_size, device, seconds)
            shown = " | ".join(f"{speed:,.0f}" for speed in speeds)
            ratio = f"{speeds[0] / pyg:.1f}x"
            share, stalls = steps.data_share(), steps.stalls()
            print(f"| {batch_size} | {shown} | {pyg:,.0f} | {ratio} | {share:.1%} | {stalls} |", flush=True)
        print("\n| CSGCNN, batch 512 | training | inference |\n| --- | --- | --- |")
        for told, settings in {
            "float32": {},
            "bfloat16": {"precision": "bfloat16"},
            "compiled": {"compile": True},
            "compiled, bfloat16": {"compile": True, "precision": "bfloat16"},
        }.items():
            speed = Steps(store, values, "CSGCNN", 512, **settings).per_second(seconds, warm_up=20)
            answered = "" if settings else f"{inference_per_second(network(), store, 512, seconds):,.0f}"
            print(f"| {told} | {speed:,.0f} | {answered} |", flush=True)


if __name__ == "__main__":
    main()
