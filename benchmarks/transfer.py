"""Measure fine-tuning: test MAE over the number of training crystals, with and without `init_from`.

Each learning curve is measured for random initial weights, for the weights of another model, and
for its frozen body. The other model is trained first.
"""

import argparse
import logging
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import data_file, prepare_training, print_header, print_row, train

# Steps of each training, at least; and epochs, at least.
STEPS, EPOCHS = 1000, 100
# Training crystals; None: all.
SIZES = [50, 100, 200, None]
HALIDE = f"dataset=perovskites_halide dataset.path={data_file('perovskites_halide_hoip')}"
CASTELLI = f"dataset=castelli_perovskites dataset.path={data_file('castelli_perovskites')}"
# Overrides of the first training, and of the second.
PAIRS = {
    "formation_energy -> dielectric": (
        "dataset=formation_energy trainer.max_epochs=100",
        "dataset=dielectric",
    ),
    "castelli_perovskites -> halides": (
        f"{CASTELLI} trainer.batch_size=128 trainer.max_epochs=40",
        HALIDE,
    ),
}
METHODS = {
    "random weights": "",
    "init_from": "init_from={ckpt} optimizer.lr=2e-3",
    "init_from, freeze_body": "init_from={ckpt} trainer.freeze_body=true",
}


class Job(NamedTuple):
    """A training of the second data set."""

    pair: str
    method: str
    ckpt: Path
    size: int | None
    seed: int
    steps: int


def pretrain(folder: Path, overrides: str) -> Path:
    """Train the first model and return its checkpoint."""
    return train(folder, *overrides.split(), "trainer.threads=1")


def test_mae(job: Job) -> tuple[Job, float]:
    """Train on the first `size` training crystals of a split, and return the test MAE."""
    logging.disable()
    import torch

    from csgcnn.commands.prepare import build_trainer, plain
    from csgcnn.evaluation.metrics import target_metrics
    from csgcnn.training.transfer import initialize_from

    overrides = f"{PAIRS[job.pair][1]} {METHODS[job.method]}".format(ckpt=job.ckpt).split()
    seeds = [f"seed={job.seed}", f"dataset.split.seed={job.seed}"]
    cfg, data = prepare_training([*overrides, *seeds])
    data.split["train"] = rows = data.split["train"][: job.size]
    data.trainer.batch_size = 16 if len(rows) < 400 else 64
    epochs = EPOCHS * job.steps // STEPS
    data.trainer.max_epochs = max(1, epochs, job.steps * data.trainer.batch_size // len(rows))
    torch.manual_seed(cfg.seed)
    trainer = build_trainer(cfg, data)
    if cfg.init_from:
        initialize_from(trainer, plain(cfg))
    trainer.fit(lambda: None)
    trainer.evaluated.load_state_dict(trainer.best)
    targets, values = data.dataset.targets, data.dataset.values[data.split["test"]]
    metrics = target_metrics(trainer.predict("test").cpu(), values, targets)
    return job, metrics[targets[0].name]["mae"]


def jobs(
    checkpoints: dict[str, Path], sizes: list[int | None], n_seeds: int, steps: int
) -> Iterator[Job]:
    """Yield all trainings, the longest first."""
    for size in reversed(sizes):
        for pair, ckpt in checkpoints.items():
            for method in METHODS:
                for seed in range(n_seeds):
                    yield Job(pair, method, ckpt, size, seed, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=[*PAIRS])
    parser.add_argument(
        "--processes", type=int, default=2, help="simultaneous trainings, with one thread each"
    )
    parser.add_argument("--quick", action="store_true", help="one size, a fiftieth of the steps")
    options = parser.parse_args()
    steps, sizes = (STEPS // 50, SIZES[:1]) if options.quick else (STEPS, SIZES)
    last = " trainer.max_epochs=1" if options.quick else ""
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        context.Pool(options.processes, maxtasksperchild=1) as pool,
    ):
        arguments = [
            (Path(folder, str(i)), PAIRS[p][0] + last) for i, p in enumerate(options.pairs)
        ]
        checkpoints = dict(zip(options.pairs, pool.starmap(pretrain, arguments), strict=True))
        results = list(
            pool.imap_unordered(test_mae, jobs(checkpoints, sizes, options.seeds, steps))
        )
    for pair in options.pairs:
        print_header(pair, *(str(size or "all") for size in sizes))
        for method in METHODS:
            cells = []
            for size in sizes:
                key = pair, method, size
                maes = [mae for job, mae in results if (job.pair, job.method, job.size) == key]
                std = f" ± {statistics.stdev(maes):.3f}" if len(maes) > 1 else ""
                cells.append(f"{statistics.mean(maes):.3f}{std}")
            print_row(method, *cells)


if __name__ == "__main__":
    main()
