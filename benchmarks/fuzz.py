"""Ten thousand hostile files through the doors that strangers' files come in by: none may hang, crash or execute."""

import argparse
import gzip
import json
import logging
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from hostile_files import Fuzzer
from mutations import DATA

HUNG = 30.0  # seconds until a process is killed
MEMORY = 6 * 2**30  # bytes of address space
OUTCOMES = ("accepted", "refused", "uncaught", "over 5 s", "executed")


def work(pipe: Connection, folder: Path, seed: int, numbers: list[int]) -> None:
    """Run cases and tell each one's outcome."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable()
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C write there, too
    fuzzer = Fuzzer(folder, seed)
    fuzzer.run(-1)
    pipe.send(None)
    for number in numbers:
        pipe.send((number, *fuzzer.run(number)))


def outcomes(
    folder: Path, seed: int, numbers: list[int]
) -> Iterator[tuple[int, str, str, float, str]]:
    """Number, kind, outcome, seconds and message of every case; a process that hangs or dies is started anew."""
    while numbers:
        pipe, end = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=work, args=(end, folder, seed, numbers)
        )
        process.start()
        end.close()
        try:
            pipe.recv()  # ready
            while numbers:
                if not pipe.poll(HUNG):
                    yield numbers.pop(0), "?", "over 5 s", HUNG, "killed: it hung"
                    break
                yield pipe.recv()
                numbers.pop(0)
        except EOFError:
            process.join()
            yield (
                numbers.pop(0),
                "?",
                "uncaught",
                0.0,
                f"the process died with exit code {process.exitcode}",
            )
        process.kill()
        process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)
    failures: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        train(Path(name))
        numbers = list(range(options.cases)) if options.only is None else [options.only]
        for number, kind, outcome, seconds, told in outcomes(Path(name), options.seed, numbers):
            counts[kind][outcome] += 1
            slowest[kind] = max(slowest[kind], seconds)
            if outcome in OUTCOMES[2:]:
                failures[outcome].append(f"case {number}, {kind}: {told}")
    print(
        "| input | cases | "
        + " | ".join(OUTCOMES)
        + " | slowest |\n"
        + "| --- " * (len(OUTCOMES) + 3)
        + "|"
    )
    counts["all"] = sum(counts.values(), Counter())
    slowest["all"] = max(slowest.values())
    for kind, counted in counts.items():
        cells = [str(counted[outcome]) for outcome in OUTCOMES]
        print(f"| {kind} | {counted.total()} | {' | '.join(cells)} | {slowest[kind]:.1f} s |")
    for outcome, told in failures.items():
        print(f"\n{len(told)} {outcome}, the first five:\n" + "\n".join(told[:5]))
    return 1 if failures else 0


def train(folder: Path) -> None:
    """A small data set and a checkpoint trained on it."""
    with gzip.open(DATA / "dielectric.json.gz") as file:
        (folder / "data.json").write_text(json.dumps(json.load(file)[::40]))
    words = [
        "trainer.max_epochs=1",
        "model.hidden=8",
        f"dataset.path={folder / 'data.json'}",
        f"hydra.run.dir={folder / 'run'}",
    ]
    subprocess.run(
        [sys.executable, "-m", "csgcnn", "train", *words], check=True, capture_output=True
    )


if __name__ == "__main__":
    sys.exit(main())
