"""Kill trainings at random moments and go on with them: do they end as if they had never been interrupted?"""

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

import csgcnn.commands.train  # noqa: F401  (loaded once, so that a kill hits the training and not the imports)
from csgcnn.cli import main as cli
from csgcnn.runs.checkpoint import load_checkpoint

DATA = Path(__file__).parents[1] / "data" / "dielectric.json.gz"
TIMING = ("seconds", "graphs_per_second")


def start(folder: Path, words: list[str]) -> int:
    """Start `csgcnn train` in a new process; its number."""
    if child := os.fork():
        return child
    with open(folder.with_suffix(".log"), "a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    try:
        code = cli.main(["train", *words, f"hydra.run.dir={folder}", "resume=auto"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    os._exit(code)


def finish(folder: Path, words: list[str]) -> None:
    _, status = os.waitpid(start(folder, words), 0)
    if status:
        sys.exit(f"the training failed: {folder.with_suffix('.log').read_text()}")


def outcome(folder: Path) -> dict[str, object]:
    """All that must not depend on interruptions."""
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if name not in TIMING]
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "metrics.csv": [[row[i] for i in kept] for row in rows],
        "metrics.json": {name: value for name, value in metrics.items() if name not in TIMING},
        "predictions.csv": (folder / "predictions.csv").read_bytes(),
        **{name: weights(folder / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")},
    }


def weights(path: Path) -> dict[str, bytes]:
    state = load_checkpoint(path)["state_dict"]
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def left_behind(folder: Path) -> str:
    """What a kill found: how far the run was, and whether a file was being written."""
    if any(folder.rglob(".*.tmp")):
        return "while a file was written"
    if (folder / "metrics.json").exists():
        return "after the last file"
    if (folder / "predictions.csv").exists():
        return "between the last files"
    return (
        "in training"
        if (folder / "checkpoints" / "last.ckpt").exists()
        else "before the first checkpoint"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    words = [
        f"dataset.path={DATA}",
        "trainer.max_epochs=4",
        "model.hidden=16",
        "trainer.device=cpu",
    ]
    words += [
        "trainer.threads=1",
        "trainer.workers=1",
        "trainer.progress=false",
        "trainer.checkpoint_every=0",
    ]
    words += ["augment=distance_noise", "model.dropout=0.1", *options.overrides]
    chance, found, survived = random.Random(options.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CSGCNN_CACHE"] = temporary
        finish(Path(temporary, "warm"), words)
        began = time.monotonic()
        finish(Path(temporary, "whole"), words)
        length = time.monotonic() - began
        expected = outcome(Path(temporary, "whole"))
        for number in range(options.kills):
            folder = Path(temporary, f"killed_{number}")
            child = start(folder, words)
            time.sleep(chance.uniform(0, length))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            found[left_behind(folder)] += 1
            finish(folder, words)
            result = outcome(folder)
            differing = [name for name in expected if result[name] != expected[name]]
            survived += not differing
            if differing:
                print(f"kill {number}: {', '.join(differing)} differ")
    print(
        f"a training of {length:.1f} s, killed at a random moment and continued, {options.kills} times:\n"
    )
    print("| killed | times |\n| --- | --- |")
    print("\n".join(f"| {moment} | {n} |" for moment, n in found.most_common()))
    print(
        f"\n{survived}/{options.kills} ended with the same weights, metrics and predictions, to the bit"
    )
    sys.exit(survived < options.kills)


if __name__ == "__main__":
    main()
