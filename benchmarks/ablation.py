"""Measure the effect of single settings: validation MAE of trainings that differ in one setting.

The test rows are never predicted. Results are appended to a file of JSON lines; trainings that are
in it are not repeated.
"""

import argparse
import json
import logging
import multiprocessing
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from common import data_file, prepare_training, print_header, print_row

SEEDS = "seed={seed} dataset.split.seed={seed}"
PATHS = {
    name: f"dataset.path={data_file(name)}"
    for name in ("castelli_perovskites", "mp_gap_10k", "perovskites_halide_hoip")
}
# Overrides of each data set. castelli: the rows of fold 0 that are not in its test set.
BASES = {
    "castelli": "experiment=matbench_perovskites recipe=fast trainer.max_epochs=30 seed={seed} "
    + PATHS["castelli_perovskites"],
    "mp_gap_10k": f"dataset=perovskites_10k {PATHS['mp_gap_10k']} trainer.max_epochs=30 {SEEDS}",
    "halide": f"dataset=perovskites_halide {PATHS['perovskites_halide_hoip']} "
    f"trainer.max_epochs=50 {SEEDS}",
    "dielectric": f"dataset=dielectric trainer.max_epochs=100 {SEEDS}",
    "elastic": f"dataset=elastic dataset.targets=[log10_k_vrh] trainer.max_epochs=100 {SEEDS}",
    "shear": f"dataset=elastic dataset.targets=[log10_g_vrh] trainer.max_epochs=100 {SEEDS}",
    "formation_energy": f"dataset=formation_energy trainer.max_epochs=50 {SEEDS}",
}
VARIANTS = {
    "base": "",
    "settings of CGCNN": "recipe=cgcnn",
    "loss mae": "loss=mae",
    "loss mse": "loss=mse",
    "loss huber": "loss=huber",
    "cosine": "scheduler=cosine",
    "learning rate 0.0025": "optimizer.lr=2.5e-3",
    "learning rate 0.01": "optimizer.lr=1e-2",
    "weight decay 0.1": "optimizer.weight_decay=0.1",
    "no moving average": "trainer.ema=null",
    "moving average 0.995": "trainer.ema=0.995",
    "batch 32": "trainer.batch_size=32",
    "batch 128": "trainer.batch_size=128",
    "width 128": "model.hidden=128",
    "4 convolutions": "model.n_convolutions=4",
    "5 convolutions": "model.n_convolutions=5",
    "message MLP of 2": "model.message_layers=2",
    "message MLP of 3": "model.message_layers=3",
    "residual pre, SiLU": "model.residual=pre model.activation=silu",
    "layer norm": "model.norm=layer",
    "dropout 0.1": "model.dropout=0.1",
    "atom_init + learned": "node_features=[atom_init,learned]",
    "learned only": "node_features=[learned]",
    "trainable atom_init": "node_features.atom_init.trainable=true",
    "edge updates": "edge.learnable=true",
    "rbf": "edge=rbf",
    "bessel": "edge=bessel",
    "16 neighbors": "graph.max_neighbors=16",
    "20 neighbors": "graph.max_neighbors=20",
    "24 neighbors": "graph.max_neighbors=24",
    "cut at 12 neighbors": "graph.shells=truncate graph.compress=false",
    "cutoff 6": "graph.cutoff=6",
    "global: lattice": "global_features=lattice",
    "global: composition": "global_features=composition",
    "pooling sum": "pooling=sum",
    "pooling attention": "pooling=attention",
    "distance noise": "augment=distance_noise",
    "CSGANN": "model=csgann",
    "CSGINN": "model=csginn",
}


class Job(NamedTuple):
    """A training: overrides of the data set, overrides of the variant, seed."""

    base: str
    variant: str
    seed: int


def train(job: Job) -> dict[str, Any]:
    """Train, and return the validation MAE of the best epoch."""
    logging.disable()
    import torch

    from csgcnn.commands.prepare import build_trainer

    cfg, data = prepare_training(f"{job.base} {job.variant}".format(seed=job.seed).split())
    torch.manual_seed(cfg.seed)
    trainer = build_trainer(cfg, data)
    start = time.perf_counter()
    trainer.fit(lambda: None)
    best = trainer.history[trainer.best_epoch - 1]
    mae, seconds = best[f"val_mae_{data.dataset.targets[0].name}"], time.perf_counter() - start
    return {**job._asdict(), "mae": mae, "epoch": trainer.best_epoch, "seconds": seconds}


def print_table(name: str, base: str, labels: Iterable[str], results: list[dict[str, Any]]) -> None:
    """Print means over the seeds, and the change from the first variant over their common seeds."""
    print_header(name, "validation MAE", "change from base", "seconds", "seeds")
    reference: dict[int, float] = {}
    for label in labels:
        key = base, VARIANTS.get(label, label)
        found = [result for result in results if (result["base"], result["variant"]) == key]
        maes = {result["seed"]: result["mae"] for result in found}
        if not maes:
            continue
        reference = reference or maes
        common = reference.keys() & maes.keys()
        before, after = (sum(each[seed] for seed in common) for each in (reference, maes))
        change = f"{after / before - 1:+.1%}" if common else ""
        seconds = statistics.mean(result["seconds"] for result in found)
        mean = statistics.mean(maes.values())
        print_row(label, f"{mean:.4f}", change, f"{seconds:.0f}", len(maes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ["castelli", "dielectric", "elastic"]
    parser.add_argument("--data", nargs="+", choices=BASES, default=default)
    parser.add_argument(
        "--variants",
        nargs="+",
        default=[*VARIANTS],
        help="names of variants, or overrides such as 'loss=mae seed=1'",
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--base", default="", help="overrides of all trainings")
    parser.add_argument(
        "--processes", type=int, default=2, help="simultaneous trainings, with one thread each"
    )
    parser.add_argument("--results", type=Path, default=Path("ablation.jsonl"))
    options = parser.parse_args()
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    results = [json.loads(line) for line in lines]
    done = {tuple(result[field] for field in Job._fields) for result in results}
    bases = {name: f"{BASES[name]} {options.base}" for name in options.data}
    jobs = [
        Job(base, VARIANTS.get(label, label), seed)
        for base in bases.values()
        for label in options.variants
        for seed in range(options.seeds)
    ]
    pool = multiprocessing.get_context("spawn").Pool(options.processes)
    with pool, open(options.results, "a") as file:
        for result in pool.imap_unordered(train, [job for job in jobs if job not in done]):
            results.append(result)
            print(json.dumps(result), file=file, flush=True)
    for name, base in bases.items():
        print_table(name, base, options.variants, results)


if __name__ == "__main__":
    main()
