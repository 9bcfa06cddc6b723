"""Read thousands of hostile files of each kind; none may hang, crash or execute code."""

import argparse
import gzip
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from common import data_file, print_header, print_row, train
from hostile_files import Fuzzer, Result

HUNG = 30.0  # seconds after which a process is killed
MEMORY = 6 * 2**30  # bytes of address space
OUTCOMES = ("accepted", "refused", "uncaught", "slow", "executed")
FAILURES = OUTCOMES[2:]


def work(pipe: Connection, folder: Path, seed: int, numbers: list[int]) -> None:
    """Run cases and send their results."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable()
    warnings.simplefilter("ignore")
    # Libraries written in C print to stderr, too.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    fuzzer = Fuzzer(folder, seed)
    fuzzer.run(-1)
    pipe.send(None)
    for number in numbers:
        pipe.send(fuzzer.run(number))


def results(folder: Path, seed: int, numbers: list[int]) -> Iterator[tuple[int, Result]]:
    """Yield number and result of each case; replace a process that hangs or dies."""
    context = multiprocessing.get_context("spawn")
    while numbers:
        pipe, other_end = multiprocessing.Pipe()
        process = context.Process(target=work, args=(other_end, folder, seed, numbers))
        process.start()
        other_end.close()
        try:
            # The process is ready.
            pipe.recv()
            while numbers:
                if not pipe.poll(HUNG):
                    yield numbers.pop(0), Result("?", "slow", HUNG, "it was killed")
                    break
                yield numbers[0], pipe.recv()
                numbers.pop(0)
        except EOFError:
            process.join()
            message = f"the process died with exit code {process.exitcode}"
            yield numbers.pop(0), Result("?", "uncaught", 0.0, message)
        process.kill()
        process.join()


def prepare(folder: Path) -> None:
    """Write a small data set, and a checkpoint trained on it."""
    with gzip.open(data_file("dielectric")) as file:
        (folder / "data.json").write_text(json.dumps(json.load(file)[::40]))
    keys = ["trainer.max_epochs=1", "model.hidden=8", f"dataset.path={folder / 'data.json'}"]
    shutil.copy(train(folder / "run", *keys), folder / "best.ckpt")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="number of files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run one case")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)
    failures: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        numbers = list(range(options.cases)) if options.only is None else [options.only]
        for number, result in results(Path(folder), options.seed, numbers):
            for kind in (result.kind, "all"):
                counts[kind][result.outcome] += 1
                slowest[kind] = max(slowest[kind], result.seconds)
            if result.outcome in FAILURES:
                failures[result.outcome].append(f"case {number}, {result.kind}: {result.message}")
    print_header("input", "cases", *OUTCOMES, "slowest")
    for kind in [*sorted(counts.keys() - {"all"}), "all"]:
        cells = [counts[kind][outcome] for outcome in OUTCOMES]
        print_row(kind, counts[kind].total(), *cells, f"{slowest[kind]:.1f} s")
    for outcome, messages in failures.items():
        print(f"\n{len(messages)} {outcome}, the first five:", *messages[:5], sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
