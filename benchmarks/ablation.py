"""What each choice of the recipe is worth: validation errors of trainings that differ from a base in one thing.

The test rows are never predicted. Finished trainings are kept in a file of JSON lines, and not repeated.
"""

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from common import DATA

SEEDS = "seed={seed} dataset.split.seed={seed}"
WORDS = {  # of each data set
    # of fold 0 the rows that do not test
    "castelli": f"experiment=matbench_perovskites recipe=fast dataset.path={DATA}/castelli_perovskites.json.gz "
    "trainer.max_epochs=30 seed={seed}",
    "mp_gap_10k": f"dataset=perovskites_10k dataset.path={DATA}/mp_gap_10k.json.gz trainer.max_epochs=30 {SEEDS}",
    "halide": f"dataset=perovskites_halide dataset.path={DATA}/perovskites_halide_hoip.json.gz trainer.max_epochs=50 "
    + SEEDS,
    "dielectric": f"dataset=dielectric trainer.max_epochs=100 {SEEDS}",
    "elastic": f"dataset=elastic dataset.targets=[log10_k_vrh] trainer.max_epochs=100 {SEEDS}",
    "shear": f"dataset=elastic dataset.targets=[log10_g_vrh] trainer.max_epochs=100 {SEEDS}",
    "formation_energy": f"dataset=formation_energy trainer.max_epochs=50 {SEEDS}",
}
VARIANTS = {
    "base": "",
    "CGCNN's settings": "recipe=cgcnn",
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
    "residual before, SiLU": "model.residual=pre model.activation=silu",
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


def train(job: tuple[str, str, int]) -> dict[str, object]:
    """Validation MAE of the best epoch, without a look at the test rows."""
    words, variant, seed = job
    logging.disable()
    import torch
    from hydra import compose, initialize_config_dir

    from csgcnn.cli.overrides import canonical
    from csgcnn.commands.prepare import build_trainer, prepare
    from csgcnn.config.paths import CONF
    from csgcnn.config.settings.run import RunSettings
    from csgcnn.config.validate import validate

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "train",
            canonical(
                [
                    *words.format(seed=seed).split(),
                    *variant.split(),
                    "trainer.progress=false",
                    "trainer.threads=1",
                    "trainer.workers=1",
                ]
            ),
        )
    validate(cfg, RunSettings)
    data = prepare(cfg, Path("rejected.csv"))
    dataset = data.dataset
    torch.manual_seed(cfg.seed)
    trainer = build_trainer(cfg, data)
    start = time.perf_counter()
    trainer.fit(lambda: None)
    best = trainer.history[trainer.best_epoch - 1]
    return {
        "words": words,
        "variant": variant,
        "seed": seed,
        "mae": best[f"val_mae_{dataset.targets[0].name}"],
        "epoch": trainer.best_epoch,
        "seconds": time.perf_counter() - start,
    }


def table(data: Sequence[str], labels: Sequence[str], extra: str, results: Sequence[dict]) -> None:
    """Mean over the seeds, change against the base where all have the same seeds, and seconds."""
    for name in data:
        print(
            f"\n| {name} | validation MAE | against the base | seconds | seeds |\n{'| --- ' * 5}|"
        )
        words, base = f"{WORDS[name]} {extra}", {}
        for label in labels:
            found = {
                r["seed"]: r
                for r in results
                if (r["words"], r["variant"]) == (words, VARIANTS.get(label, label))
            }
            maes = {seed: result["mae"] for seed, result in found.items()}
            if not maes:
                continue
            base = base or maes
            shared = base.keys() & maes.keys()
            change = (
                statistics.mean(maes[s] for s in shared) / statistics.mean(base[s] for s in shared)
                - 1
            )
            seconds = statistics.mean(result["seconds"] for result in found.values())
            print(
                f"| {label} | {statistics.mean(maes.values()):.4f} | {change:+.1%} | {seconds:.0f} | {len(maes)} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", nargs="+", choices=WORDS, default=["castelli", "dielectric", "elastic"]
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        default=list(VARIANTS),
        help="names of them, or words: 'loss=mae seed=1'",
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--base", default="", help="words that all trainings share")
    parser.add_argument(
        "--processes", type=int, default=2, help="trainings side by side, with one thread each"
    )
    parser.add_argument("--results", type=Path, default=Path("ablation.jsonl"))
    options = parser.parse_args()
    os.environ.pop("CSGCNN_DATA", None)  # so that the included data are found
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    results = [json.loads(line) for line in lines]
    done = {(result["words"], result["variant"], result["seed"]) for result in results}
    jobs = [
        (f"{WORDS[name]} {options.base}", VARIANTS.get(label, label), seed)
        for name in options.data
        for label in options.variants
        for seed in range(options.seeds)
    ]
    with (
        multiprocessing.get_context("spawn").Pool(options.processes) as pool,
        open(options.results, "a") as file,
    ):
        for result in pool.imap_unordered(train, [job for job in jobs if job not in done]):
            results.append(result)
            print(json.dumps(result), file=file, flush=True)
    table(options.data, options.variants, options.base, results)


if __name__ == "__main__":
    main()
