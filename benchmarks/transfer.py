"""What `init_from` is worth: test MAE against the number of training crystals, with it and without.

Each curve: from nothing, from another model's body, and from its body frozen. The model to begin with is trained here.
"""

import argparse
import logging
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import DATA

STEPS = 1000  # at least, of every training; 100 epochs where these are more
SIZES = [50, 100, 200, None]
HALIDE = f"dataset=perovskites_halide dataset.path={DATA}/perovskites_halide_hoip.json.gz"
CASTELLI = f"dataset=castelli_perovskites dataset.path={DATA}/castelli_perovskites.json.gz trainer.batch_size=128"
PAIRS = {  # name: the words of the first training, those of the second
    "formation_energy -> dielectric": (
        "dataset=formation_energy trainer.max_epochs=100",
        "dataset=dielectric",
    ),
    "castelli_perovskites -> halides": (f"{CASTELLI} trainer.max_epochs=40", HALIDE),
}
WAYS = {
    "from nothing": "",
    "init_from": "init_from={ckpt} optimizer.lr=2e-3",
    "init_from, freeze_body": "init_from={ckpt} trainer.freeze_body=true",
}


def run(words: str, folder: Path) -> Path:
    """Train by the command line; the checkpoint."""
    from csgcnn.cli import main

    main(
        [
            "train",
            *words.split(),
            "trainer.threads=1",
            "trainer.progress=false",
            f"hydra.run.dir={folder}",
        ]
    )
    return folder / "checkpoints" / "best.ckpt"


def test_mae(job: tuple[str, str, int | None, int]) -> tuple[str, str, int | None, int, float]:
    """Train on the first `size` training crystals of a split, test once."""
    words, way, size, seed = job
    logging.disable()
    import torch
    from hydra import compose, initialize_config_dir

    from csgcnn.cli.overrides import canonical
    from csgcnn.commands.prepare import build_trainer, plain, prepare
    from csgcnn.config.paths import CONF
    from csgcnn.evaluation.metrics import target_metrics
    from csgcnn.training.transfer import initialize_from

    seeds = [
        f"seed={seed}",
        f"dataset.split.seed={seed}",
        "trainer.progress=false",
        "trainer.threads=1",
        "trainer.workers=1",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", canonical([*words.split(), *way.split(), *seeds]))
    data = prepare(cfg, Path("rejected.csv"))
    dataset, split = data.dataset, data.split
    split["train"] = split["train"][:size]
    data.trainer.batch_size = 16 if len(split["train"]) < 400 else 64
    data.trainer.max_epochs = max(100, STEPS * data.trainer.batch_size // len(split["train"]))
    torch.manual_seed(cfg.seed)
    trainer = build_trainer(cfg, data)
    if cfg.init_from:
        initialize_from(trainer, plain(cfg))
    trainer.fit(lambda: None)
    trainer.evaluated.load_state_dict(trainer.best)
    metrics = target_metrics(
        trainer.predict("test").cpu(), dataset.values[split["test"]], dataset.targets
    )
    return words, way, size, seed, metrics[dataset.targets[0].name]["mae"]


def jobs(checkpoints: dict[str, Path], seeds: int) -> Iterator[tuple[str, str, int | None, int]]:
    """All trainings, those that take longest first."""
    for size in reversed(SIZES):
        for pair, ckpt in checkpoints.items():
            for way in WAYS.values():
                for seed in range(seeds):
                    yield PAIRS[pair][1], way.format(ckpt=ckpt), size, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument(
        "--processes", type=int, default=2, help="trainings side by side, with one thread each"
    )
    options = parser.parse_args()
    os.environ.pop("CSGCNN_DATA", None)  # so that the included data are found
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        context.Pool(options.processes, maxtasksperchild=1) as pool,
    ):
        arguments = [(PAIRS[pair][0], Path(folder, str(i))) for i, pair in enumerate(options.pairs)]
        checkpoints = dict(zip(options.pairs, pool.starmap(run, arguments), strict=True))
        found = list(pool.imap_unordered(test_mae, jobs(checkpoints, options.seeds)))
    for pair, ckpt in checkpoints.items():
        print(
            f"\n| {pair} | {' | '.join(str(size or 'all') for size in SIZES)} |\n{'| --- ' * (1 + len(SIZES))}|"
        )
        for name, way in WAYS.items():
            cells = []
            for size in SIZES:
                maes = [
                    m
                    for w, y, s, _, m in found
                    if (w, y, s) == (PAIRS[pair][1], way.format(ckpt=ckpt), size)
                ]
                spread = f" ± {statistics.stdev(maes):.3f}" if len(maes) > 1 else ""
                cells.append(f"{statistics.mean(maes):.3f}{spread}")
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
