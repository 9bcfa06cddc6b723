"""Measure training and inference on a GPU: models, batch sizes, precision, compilation, PyG.

One call takes at most eight minutes. It also runs on the CPU, with --quick, as a test of the
script.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from common import TARGETS, data_file, print_header, print_row
from torch import Tensor
from torch._dynamo.utils import counters
from torch_geometric.loader import DataLoader
from training import (
    MODELS,
    PLAIN,
    PyGModel,
    adamw,
    network,
    pyg_graphs,
    take_step,
)

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.data.cache import open_dataset
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.evaluation.inference import predict_rows
from csgcnn.hardware import select_device
from csgcnn.training.losses import WeightedRegressionLoss
from csgcnn.training.schedulers import constant
from csgcnn.training.trainer import Trainer

# Time after which no further row starts.
MINUTES = 7
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "compiled": {"compile": True},
    "compiled, bfloat16": {"compile": True, "precision": "bfloat16"},
}


class Clock:
    """Seconds per measurement, and the time since the start."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()

    @property
    def minutes(self) -> float:
        return (time.perf_counter() - self.start) / 60

    def is_over(self) -> bool:
        if is_late := self.minutes > MINUTES:
            print("out of time", flush=True)
        return is_late


def build_trainer(
    model: str, store: GraphStore, values: Tensor, split: Split, settings: TrainerSettings
) -> Trainer:
    """Build the trainer of csgcnn."""
    make_optimizer = partial(torch.optim.AdamW, lr=1e-3, fused=True)
    dataset = Dataset(store, [Target("y", "")], values, torch.arange(len(store)), [])
    loss = WeightedRegressionLoss(mse=1.0)
    return Trainer(MODELS[model](), dataset, split, loss, make_optimizer, constant, settings)


class Steps:
    """Training steps of csgcnn, which can be timed."""

    def __init__(
        self, store: GraphStore, values: Tensor, model: str, batch_size: int, **settings: Any
    ) -> None:
        torch.manual_seed(0)
        rows = torch.randperm(len(store))
        # A batch may be larger than the data set.
        rows = rows.repeat(-(-batch_size // len(rows)))
        split = {"train": rows, "val": rows[:256], "test": rows[:256]}
        chosen = TrainerSettings(max_epochs=1, batch_size=batch_size, **settings)
        self.trainer = build_trainer(model, store, values, split, chosen)
        parts = [part for part in rows.split(batch_size) if len(part) == batch_size]
        self.batches = itertools.cycle(parts)
        self.batch_size = batch_size
        self.device = store.device
        self.trainer.model.train()

    def step(self, rows: Tensor) -> None:
        """Assemble a batch and take a training step."""
        (batch,) = self.trainer.load_batches([rows])
        self.trainer.train_step(rows, batch)

    def rate(self, seconds: float, warm_up: int = 20) -> float:
        """Return structures per second."""
        for rows in itertools.islice(self.batches, warm_up):
            self.step(rows)
        synchronize(self.device)
        start, n_steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for rows in itertools.islice(self.batches, 4):
                self.step(rows)
            n_steps += 4
            synchronize(self.device)
        return n_steps * self.batch_size / (time.perf_counter() - start)

    def data_share(self, n_steps: int = 20) -> float:
        """Return the fraction of a step in which the batch is assembled."""
        times = []
        for work in (self.step, self.trainer.store.batch):
            synchronize(self.device)
            start = time.perf_counter()
            for rows in itertools.islice(self.batches, n_steps):
                work(rows)
            synchronize(self.device)
            times.append(time.perf_counter() - start)
        return times[1] / times[0]

    def synchronizations(self, n_steps: int = 10) -> str:
        """Return how often a step makes the host wait for the GPU."""
        if self.device.type != "cuda":
            return "-"
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for rows in itertools.islice(self.batches, n_steps):
                self.step(rows)
        torch.cuda.set_sync_debug_mode("default")
        n_found = sum("synchroniz" in str(warning.message) for warning in caught)
        return f"{n_found / n_steps:.1f}"


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


def pyg_rate(
    plain: GraphStore, values: Tensor, batch_size: int, device: torch.device, seconds: float
) -> float:
    """Return structures per second of PyG's `CGConv` with PyG's `DataLoader`."""
    graphs = pyg_graphs(plain, values, min(len(plain), 4 * batch_size))
    is_large = len(graphs) >= batch_size
    loader = DataLoader(graphs, batch_size=batch_size, shuffle=True, drop_last=is_large)
    model = PyGModel().to(device).train()
    optimizer = adamw(model)
    start, n_graphs, n_epochs = time.perf_counter(), 0, 0
    while not n_epochs or time.perf_counter() - start < seconds:
        if n_epochs == 1:
            synchronize(device)
            start, n_graphs = time.perf_counter(), 0
        for data in loader:
            data = data.to(device, non_blocking=True)
            take_step(model(data), data.y, optimizer)
            n_graphs += data.num_graphs
        n_epochs += 1
    synchronize(device)
    return n_graphs / (time.perf_counter() - start)


def print_training(
    store: GraphStore, plain: GraphStore, values: Tensor, sizes: Sequence[int], clock: Clock
) -> None:
    """Print structures per second of training, by batch size."""
    columns = (
        "PyG CGConv + DataLoader",
        "default / PyG",
        "data share",
        "synchronizations per step",
    )
    print_header("batch", *MODELS, *columns)
    for size in sizes:
        if clock.is_over():
            return
        rates = [Steps(store, values, model, size).rate(clock.seconds) for model in MODELS]
        steps = Steps(store, values, "CSGCNN", size)
        pyg = pyg_rate(plain, values, size, store.device, clock.seconds)
        cells = [f"{rate:,.0f}" for rate in (*rates, pyg)]
        share = f"{steps.data_share():.1%}"
        print_row(size, *cells, f"{rates[0] / pyg:.1f}x", share, steps.synchronizations())


def print_options(store: GraphStore, values: Tensor, clock: Clock) -> None:
    """Print rates with bfloat16 and compilation, and how often torch compiles."""
    columns = ("training", "compiled at first", "compiled later", "inference")
    print_header("CSGCNN, batch 512", *columns)
    for name, settings in OPTIONS.items():
        if clock.is_over():
            return
        torch._dynamo.reset()
        counters.clear()
        start = time.perf_counter()
        steps = Steps(store, values, "CSGCNN", min(512, len(store) // 4), **settings)
        steps.rate(0, warm_up=3)
        n_first, seconds = counters["stats"]["unique_graphs"], time.perf_counter() - start
        rate = steps.rate(clock.seconds)
        cells = [
            f"{n_first} graphs in {seconds:.0f} s",
            counters["stats"]["unique_graphs"] - n_first,
        ]
        compiled = cells if "compile" in settings else ["", ""]
        inference = "" if settings else f"{inference_rate(store, 512, clock.seconds):,.0f}"
        print_row(name, f"{rate:,.0f}", *compiled, inference)


def print_accuracy(
    store: GraphStore, values: Tensor, n_rows: int, n_epochs: int, clock: Clock
) -> None:
    """Print the validation MAE of short trainings in each precision, for several seeds."""
    print_header(f"CSGCNN, {n_rows} rows, {n_epochs} epochs", "validation MAE, seeds 0-2", "mean")
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:n_rows]
    train, val = order.split([n_rows - n_rows // 5, n_rows // 5])
    for precision in ("float32", "bfloat16"):
        maes = []
        for seed in range(3):
            if clock.is_over():
                return
            torch.manual_seed(seed)
            settings = TrainerSettings(n_epochs, 128, precision=precision, progress=False)
            split = {"train": train, "val": val, "test": val}
            trainer = build_trainer("CSGCNN", store, values, split, settings)
            trainer.fit(lambda: None)
            maes.append(min(row["val_mae_y"] for row in trainer.history))
        print_row(precision, ", ".join(f"{mae:.4f}" for mae in maes), f"{sum(maes) / 3:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seconds", type=float, default=1.5, help="time of each measurement")
    default = [64, 128, 256, 512, 1024, 2048]
    parser.add_argument("--sizes", type=int, nargs="+", default=default, help="batch sizes")
    parts = ["training", "accuracy", "options"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="tables to print")
    parser.add_argument("--data", nargs="+", choices=TARGETS, default=[*TARGETS])
    parser.add_argument("--quick", action="store_true", help="short measurements of one data set")
    options = parser.parse_args()
    device = select_device(options.device)
    clock = Clock(0.1 if options.quick else options.seconds)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{card}, torch {torch.__version__}")
    for number, name in enumerate(options.data[: 1 if options.quick else None]):
        store, plain = (open_dataset(data_file(name), g).store for g in (GraphSettings(), PLAIN))
        values = store.numbers([TARGETS[name]]).float()
        store.to(device)
        if "training" in options.parts:
            print(f"\n### {name}: training, structures/s")
            sizes = [64, 128] if options.quick else options.sizes
            print_training(store, plain, values, sizes, clock)
        if number == 0 and "accuracy" in options.parts:
            print_accuracy(store, values, *((640, 2) if options.quick else (10_000, 20)), clock)
        if number == 0 and "options" in options.parts:
            print_options(store, values, clock)
    print(f"\n{clock.minutes:.1f} minutes")


if __name__ == "__main__":
    main()
