"""Measure the seconds of commands that do not compute: help texts and misspelled keys."""

import subprocess
import sys

from common import median_seconds, print_header, print_row

COMMANDS = (
    "--help",
    "train --help",
    "train modle=csgcnn",
    "train model=csgcn",
    "train trainer.max_epochs=two",
    "predict",
)
REPEATS = 7


def main() -> None:
    print_header("command", "exit code", f"median of {REPEATS}")
    for command in COMMANDS:
        codes = []

        def run(command: str = command, codes: list[int] = codes) -> None:
            program = [sys.executable, "-m", "csgcnn", *command.split()]
            codes.append(subprocess.run(program, capture_output=True, check=False).returncode)

        seconds = median_seconds(run, REPEATS)
        print_row(f"`csgcnn {command}`", codes[0], f"{seconds:.2f} s")


if __name__ == "__main__":
    main()
