"""Measure the coverage of prediction intervals on the test rows of several random splits.

Split-conformal intervals come from `dataset.split.calibration`, those of CV+ from
`ensemble_folds=true`. The number of test values in a split-conformal interval has a beta-binomial
distribution: the last column counts the splits inside its central 95 %, which is conservative for
CV+, whose calibration rows are all training rows.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

from common import print_header, print_row, train

# Overrides of the data sets.
TARGETS = {
    "dielectric": ["dataset=dielectric"],
    "elastic": ["dataset=elastic", "dataset.targets=[log10_g_vrh]"],
}
# As in metrics.json, whose second level is the one of one standard deviation.
LEVELS = {"0.5": 0.5, "0.6827": 0.6827, "0.9": 0.9, "0.95": 0.95}


def is_expected(fraction: float, level: float, n_labels: int, n_test: int) -> bool:
    """Return whether a coverage is in the central 95 % of its distribution."""
    from scipy.stats import betabinom

    rank = math.ceil((n_labels + 1) * level - 1e-9)
    low, high = betabinom(n_test, rank, n_labels + 1 - rank).interval(0.95)
    return bool(low <= round(fraction * n_test) <= high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of csgcnn train")
    parser.add_argument("--data", default="dielectric", choices=TARGETS)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--folds", type=int, help="CV+ with this number of members")
    arguments = parser.parse_args()
    method = ["dataset.split.calibration=0.1"]
    if arguments.folds:
        method = [f"ensemble={arguments.folds}", "ensemble_folds=true"]
    start = time.perf_counter()
    covered: dict[str, list[float]] = {level: [] for level in LEVELS}
    n_inside = dict.fromkeys(LEVELS, 0)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.splits):
            words = [*TARGETS[arguments.data], *method, f"dataset.split.seed={seed}"]
            words += ["trainer.threads=1", "trainer.workers=1", *arguments.overrides]
            train(Path(scratch) / str(seed), *words)
            metrics = json.loads((Path(scratch) / str(seed) / "metrics.json").read_text())
            ((name, of_levels),) = metrics["intervals"].items()
            n_labels, n_test = metrics["interval_labels"][name], metrics["test"][name]["n"]
            for level, fraction in of_levels.items():
                covered[level].append(fraction)
                n_inside[level] += is_expected(fraction, LEVELS[level], n_labels, n_test)
            found = ", ".join(f"{level} {fraction:.3f}" for level, fraction in of_levels.items())
            mae = metrics["test"][name]["mae"]
            print(
                f"# split {seed}, {n_labels} and {n_test} rows, MAE {mae:.4g}: {found}", flush=True
            )
    print_header("level", "mean coverage", "standard error", "splits inside 95 %")
    for level, fractions in covered.items():
        error = statistics.stdev(fractions) / len(fractions) ** 0.5 if len(fractions) > 1 else 0.0
        cells = (f"{statistics.mean(fractions):.1%}", f"{error:.1%}")
        print_row(f"{LEVELS[level]:.0%}", *cells, f"{n_inside[level]} of {len(fractions)}")
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes on one CPU thread")


if __name__ == "__main__":
    main()
