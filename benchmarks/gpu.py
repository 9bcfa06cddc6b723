"""What a GPU makes of training and inference: the three models, batch sizes, precision, compilation, a PyG loop.

Runs in one call of at most eight minutes, on the CPU too (with --quick, to see that it works), and prints the tables of
docs/performance.md.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from common import DATA
from torch import Tensor
from torch._dynamo.utils import counters
from torch_geometric.loader import DataLoader
from training import MODELS, PyGModel, network, pyg_graphs

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.data.cache import open_dataset
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.evaluation.inference import predict_rows
from csgcnn.hardware import select_device
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.training.losses import WeightedRegressionLoss
from csgcnn.training.schedulers import constant
from csgcnn.training.trainer import Trainer

MINUTES = 7  # after which no further row is begun
PLAIN = GraphSettings(shells="truncate", compress=False)
SETS = {"castelli_perovskites": "e_form", "mp_gap_10k": "band_gap"}


class Clock:
    """How long to measure, and whether there is time left."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()

    def passed(self) -> float:
        return time.perf_counter() - self.start

    def is_over(self) -> bool:
        if late := self.passed() > 60 * MINUTES:
            print("out of time", flush=True)
        return late


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trainer(
    operator: str, store: GraphStore, values: Tensor, split: Split, settings: TrainerSettings
) -> Trainer:
    """The product's trainer with the optimizer of conf/."""
    make_optimizer = partial(torch.optim.AdamW, lr=1e-3, fused=True)
    targets, loss = [Target("y", "")], WeightedRegressionLoss(mse=1.0)
    dataset = Dataset(store, targets, values, torch.arange(len(store)), [])
    parts = loss, make_optimizer, constant, settings
    return Trainer(network(MODELS[operator]), dataset, split, *parts)


class Steps:
    """The product's own training step, over and over, with its clock."""

    def __init__(
        self, store: GraphStore, values: Tensor, operator: str, batch_size: int, **settings: object
    ) -> None:
        torch.manual_seed(0)
        rows = torch.randperm(len(store))
        rows = rows.repeat(-(-batch_size // len(rows)))  # a batch may be larger than the data set
        split = {"train": rows, "val": rows[:256], "test": rows[:256]}
        chosen = TrainerSettings(
            max_epochs=1, batch_size=batch_size, grad_clip=1.0, ema=0.99, **settings
        )  # type: ignore[arg-type]
        self.trainer = trainer(operator, store, values, split, chosen)
        self.batches = itertools.cycle(
            [part for part in rows.split(batch_size) if len(part) == batch_size]
        )
        self.batch_size = batch_size
        self.device = store.device
        self.trainer.model.train()

    def step(self, rows: Tensor) -> None:
        """Assemble a batch and take a step on it."""
        (batch,) = self.trainer.load_batches([rows])
        self.trainer.train_step(rows, batch)

    def per_second(self, seconds: float, warm_up: int = 20) -> float:
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


def pyg_per_second(
    plain: GraphStore, values: Tensor, batch_size: int, device: torch.device, seconds: float
) -> float:
    """Structures per second of PyG's `CGConv` behind PyG's `DataLoader`."""
    graphs = pyg_graphs(plain, values, min(len(plain), 4 * batch_size))
    model = PyGModel().to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loader = DataLoader(
        graphs, batch_size=batch_size, shuffle=True, drop_last=len(graphs) >= batch_size
    )
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


def inference_per_second(
    model: CrystalGraphNetwork, store: GraphStore, batch_size: int, seconds: float
) -> float:
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


def training_table(
    store: GraphStore, plain: GraphStore, values: Tensor, sizes: Sequence[int], clock: Clock
) -> None:
    """A row for each batch size."""
    print(
        "| batch | "
        + " | ".join(MODELS)
        + " | PyG CGConv + DataLoader | ratio | data share | stalls per step |"
    )
    print("| --- " * (len(MODELS) + 5) + "|")
    for batch_size in sizes:
        if clock.is_over():
            return
        speeds = [
            Steps(store, values, operator, batch_size).per_second(clock.seconds)
            for operator in MODELS
        ]
        steps = Steps(store, values, "CSGCNN", batch_size)
        pyg = pyg_per_second(plain, values, batch_size, store.device, clock.seconds)
        shown = " | ".join(f"{speed:,.0f}" for speed in speeds)
        ratio, share, stalls = f"{speeds[0] / pyg:.1f}x", steps.data_share(), steps.stalls()
        print(
            f"| {batch_size} | {shown} | {pyg:,.0f} | {ratio} | {share:.1%} | {stalls} |",
            flush=True,
        )


def options_table(store: GraphStore, values: Tensor, clock: Clock) -> None:
    """Speed with bfloat16 and compiled; how often is compiled at first, and for the batches after that."""
    print(
        "\n| CSGCNN, batch 512 | training | compiled at first | and later | inference |\n"
        + "| --- " * 5
        + "|"
    )
    for told, settings in {
        "float32": {},
        "bfloat16": {"precision": "bfloat16"},
        "compiled": {"compile": True},
        "compiled, bfloat16": {"compile": True, "precision": "bfloat16"},
    }.items():
        if clock.is_over():
            return
        torch._dynamo.reset()
        counters.clear()
        start = time.perf_counter()
        steps = Steps(store, values, "CSGCNN", min(512, len(store) // 4), **settings)
        steps.per_second(0, warm_up=3)
        first, seconds = counters["stats"]["unique_graphs"], time.perf_counter() - start
        speed = steps.per_second(clock.seconds, warm_up=20)
        later = counters["stats"]["unique_graphs"] - first
        answered = (
            "" if settings else f"{inference_per_second(network(), store, 512, clock.seconds):,.0f}"
        )
        compiled = (
            f"{first} graphs in {seconds:.0f} s | {later}" if "compile" in settings else " | "
        )
        print(f"| {told} | {speed:,.0f} | {compiled} | {answered} |", flush=True)


def accuracy_table(
    store: GraphStore, values: Tensor, n_rows: int, n_epochs: int, clock: Clock
) -> None:
    """Validation MAE of the same short training in either precision; several seeds tell chance from effect."""
    print(
        f"\n| CSGCNN, {n_rows} rows, {n_epochs} epochs | validation MAE, seeds 0-2 | mean |\n"
        + "| --- " * 3
        + "|"
    )
    for precision in ("float32", "bfloat16"):
        maes = []
        for seed in range(3):
            if clock.is_over():
                return
            rows = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:n_rows]
            train, val = rows.split([n_rows - n_rows // 5, n_rows // 5])
            torch.manual_seed(seed)
            settings = TrainerSettings(
                n_epochs, 128, grad_clip=1.0, ema=0.99, precision=precision, progress=False
            )
            made = trainer(
                "CSGCNN", store, values, {"train": train, "val": val, "test": val}, settings
            )
            made.fit(lambda: None)
            maes.append(min(row["val_mae_y"] for row in made.history))
        shown = ", ".join(f"{mae:.4f}" for mae in maes)
        print(f"| {precision} | {shown} | {sum(maes) / len(maes):.4f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048], help="of batches"
    )
    parser.add_argument("--parts", nargs="+", default=["training", "accuracy", "options"])
    parser.add_argument("--data", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--quick", action="store_true", help="a little of everything")
    options = parser.parse_args()
    device = select_device(options.device)
    clock = Clock(0.1 if options.quick else options.seconds)
    sizes = [64, 128] if options.quick else options.sizes
    print(
        f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}"
    )
    for name in options.data[: 1 if options.quick else None]:
        path = DATA / f"{name}.json.gz"
        store, plain = (open_dataset(path, settings)[0] for settings in (GraphSettings(), PLAIN))
        values = store.numbers([SETS[name]]).float()
        store.to(device)
        if "training" in options.parts:
            print(f"\n### {name}: training, structures/s\n")
            training_table(store, plain, values, sizes, clock)
        if name != options.data[0]:
            continue
        if "accuracy" in options.parts:
            accuracy_table(store, values, *((640, 2) if options.quick else (10_000, 20)), clock)
        if "options" in options.parts:
            options_table(store, values, clock)
    print(f"\n{clock.passed() / 60:.1f} minutes")


if __name__ == "__main__":
    main()
