"""Measure the seconds of help texts, misspelled keys and a first prediction in Python."""

import subprocess
import sys
import tempfile

from common import median_seconds, print_header, print_row, run_csgcnn

COMMANDS = (
    "--help",
    "train --help",
    "train modle=csgcnn",
    "train model=csgcn",
    "train trainer.max_epochs=two",
    "predict",
)
REPEATS = 7
PREDICTION = """
import sys
import csgcnn
structure = {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "species": ["K"],
             "frac_coords": [[0, 0, 0]]}
csgcnn.load(sys.argv[1]).predict([structure])
"""


def main() -> None:
    print_header("command", "exit code", f"median of {REPEATS}")
    for command in COMMANDS:
        codes = []

        def run(command: str = command, codes: list[int] = codes) -> None:
            program = [sys.executable, "-m", "csgcnn", *command.split()]
            codes.append(subprocess.run(program, capture_output=True, check=False).returncode)

        seconds = median_seconds(run, REPEATS)
        print_row(f"`csgcnn {command}`", codes[0], f"{seconds:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        run_csgcnn("train", "trainer.max_epochs=1", f"hydra.run.dir={folder}/run")
        program = [sys.executable, "-c", PREDICTION, f"{folder}/run"]
        seconds = median_seconds(lambda: subprocess.run(program, check=True), REPEATS)
        print_row("`import csgcnn; csgcnn.load(run).predict(...)`", 0, f"{seconds:.2f} s")


if __name__ == "__main__":
    main()
