"""How long the command line takes to answer."""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "csgcnn --help": ["--help"],
    "csgcnn train --help": ["train", "--help"],
    "csgcnn train modle=csgcnn": ["train", "modle=csgcnn"],
    "csgcnn train model=csgcn": ["train", "model=csgcn"],
    "csgcnn train trainer.max_epochs=two": ["train", "trainer.max_epochs=two"],
    "csgcnn predict": ["predict"],
}


def main() -> None:
    print("| command | exit | median of 7 |\n| --- | --- | --- |")
    for label, words in COMMANDS.items():
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "csgcnn", *words], capture_output=True, check=False
            )
            seconds.append(time.perf_counter() - start)
        print(f"| `{label}` | {done.returncode} | {statistics.median(seconds):.2f} s |", flush=True)


if __name__ == "__main__":
    main()
