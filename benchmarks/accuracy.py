"""Measure the test MAE of the included data sets: mean and standard deviation over seeds."""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from common import print_header, print_row, train

# target: data set
TASKS = {
    "band_gap": "dielectric",
    "refractive_index": "dielectric",
    "log10_k_vrh": "elastic",
    "log10_g_vrh": "elastic",
    "formation_energy_per_atom": "formation_energy",
}


def metrics_of(target: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Train once and return metrics.json; the seed chooses the split and the initial weights."""
    data = [f"dataset={TASKS[target]}", f"dataset.targets=[{target}]"]
    seeds = [f"seed={seed}", f"dataset.split.seed={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder, "run"), *data, *seeds, *overrides)
        return json.loads(Path(folder, "run", "metrics.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--targets", nargs="+", choices=TASKS, default=[*TASKS])
    parser.add_argument("overrides", nargs="*", help="overrides of csgcnn train")
    options = parser.parse_args()
    print(f"overrides: {' '.join(options.overrides) or 'none'}; {options.seeds} seeds")
    print_header(
        "data set", "target", "test MAE", "MAE of the mean", "improvement", "epochs", "s per run"
    )
    for target in options.targets:
        runs = [metrics_of(target, seed, options.overrides) for seed in range(options.seeds)]
        maes = [metrics["test"][target]["mae"] for metrics in runs]
        mean, std = statistics.mean(maes), statistics.stdev(maes) if len(maes) > 1 else 0.0
        baseline = statistics.mean(metrics["baseline_test_mae"][target] for metrics in runs)
        print_row(
            TASKS[target],
            target,
            f"{mean:.4f} ± {std:.4f} {runs[0]['units'][target]}",
            f"{baseline:.4f}",
            f"{1 - mean / baseline:.0%}",
            runs[0]["epochs"],
            f"{statistics.mean(metrics['seconds'] for metrics in runs):.0f}",
        )


if __name__ == "__main__":
    main()
