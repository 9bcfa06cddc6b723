"""Kill trainings at random moments, resume them, and compare with an uninterrupted training."""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import data_file, print_header, print_row

# Imported before the processes are forked, so that a kill hits the training and not the imports.
import csgcnn.commands.train  # noqa: F401
from csgcnn.cli.main import main as run_csgcnn
from csgcnn.runs.checkpoint import load_checkpoint

TIMES = ("seconds", "graphs_per_second")
KEYS = ("max_epochs=4", "device=cpu", "threads=1", "workers=1", "progress=false")
OVERRIDES = [
    f"dataset.path={data_file('dielectric')}",
    *(f"trainer.{key}" for key in KEYS),
    "trainer.checkpoint_every=0",
    "trainer.figures=false",
    "model.hidden=16",
    "model.dropout=0.1",
    "augment=distance_noise",
]


def start(folder: Path, overrides: list[str]) -> int:
    """Start or resume a training in a new process, and return the id of the process."""
    if child := os.fork():
        return child
    with open(folder.with_suffix(".log"), "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        code = run_csgcnn(["train", *overrides, f"hydra.run.dir={folder}", "resume=auto"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    os._exit(code)


def finish(folder: Path, overrides: list[str]) -> None:
    """Start or resume a training, and wait for its end."""
    _, status = os.waitpid(start(folder, overrides), 0)
    if status:
        sys.exit(f"the training failed: {folder.with_suffix('.log').read_text()}")


def outcome(folder: Path) -> dict[str, object]:
    """Return what must not depend on interruptions, by file."""
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    kept = [i for i, name in enumerate(header) if name not in TIMES]
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "metrics.csv": [[row[i] for i in kept] for row in (header, *rows)],
        "metrics.json": {name: value for name, value in metrics.items() if name not in TIMES},
        "predictions.csv": (folder / "predictions.csv").read_bytes(),
        **{name: weights(folder / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")},
    }


def weights(path: Path) -> dict[str, bytes]:
    state = load_checkpoint(path)["state_dict"]
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def moment(folder: Path) -> str:
    """Return the stage that a killed run had reached."""
    if any(folder.rglob(".*.tmp")):
        return "while a file was written"
    if (folder / "metrics.json").exists():
        return "after the last file"
    if (folder / "predictions.csv").exists():
        return "between the last files"
    has_checkpoint = (folder / "checkpoints" / "last.ckpt").exists()
    return "in training" if has_checkpoint else "before the first checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="number of killed trainings")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("overrides", nargs="*", help="further overrides of csgcnn train")
    options = parser.parse_args()
    overrides = [*OVERRIDES, *options.overrides]
    rng, moments, n_equal = random.Random(options.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CSGCNN_CACHE"] = temporary
        # The first training fills the cache.
        finish(Path(temporary, "first"), overrides)
        began = time.monotonic()
        finish(Path(temporary, "whole"), overrides)
        seconds = time.monotonic() - began
        expected = outcome(Path(temporary, "whole"))
        for number in range(options.kills):
            folder = Path(temporary, f"killed_{number}")
            child = start(folder, overrides)
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            moments[moment(folder)] += 1
            finish(folder, overrides)
            result = outcome(folder)
            differing = [name for name in expected if result[name] != expected[name]]
            n_equal += not differing
            if differing:
                print(f"kill {number}: {', '.join(differing)} differ")
    print(f"a training of {seconds:.1f} s, killed at a random moment and resumed")
    print_header("killed", "times")
    for name, count in moments.most_common():
        print_row(name, count)
    print(f"\n{n_equal}/{options.kills}: same weights, metrics and predictions, to the bit")
    sys.exit(n_equal < options.kills)


if __name__ == "__main__":
    main()
