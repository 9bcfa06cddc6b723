"""Test MAE of the embedded data sets, default recipe or others, mean and spread over seeds of split and weights."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TASKS = [
    ("dielectric", "band_gap"),
    ("dielectric", "refractive_index"),
    ("elastic", "log10_k_vrh"),
    ("elastic", "log10_g_vrh"),
    ("formation_energy", "formation_energy_per_atom"),
]


def run(dataset: str, target: str, seed: int, overrides: list[str]) -> dict:
    """Train once; answers its metrics."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            f"dataset={dataset}",
            f"dataset.targets=[{target}]",
            f"seed={seed}",
            f"dataset.split.seed={seed}",
        ]
        words += ["trainer.progress=false", f"hydra.run.dir={folder}/run", *overrides]
        subprocess.run(
            [sys.executable, "-m", "csgcnn", "train", *words], check=True, stdout=subprocess.DEVNULL
        )
        return json.loads(Path(folder, "run", "metrics.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--targets", nargs="+", default=[target for _, target in TASKS])
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    print(f"overrides: {' '.join(options.overrides) or 'none'}; {options.seeds} seeds\n")
    print(
        "| data set | target | test MAE | predicting the mean | below it by | epochs | seconds a run |"
    )
    print("| --- " * 7 + "|")
    for dataset, target in (task for task in TASKS if task[1] in options.targets):
        runs = [run(dataset, target, seed, options.overrides) for seed in range(options.seeds)]
        maes = [metrics["test"][target]["mae"] for metrics in runs]
        mean, spread = statistics.mean(maes), statistics.stdev(maes) if len(maes) > 1 else 0.0
        baseline = statistics.mean(metrics["baseline_test_mae"][target] for metrics in runs)
        seconds, epochs = statistics.mean(metrics["seconds"] for metrics in runs), runs[0]["epochs"]
        unit = runs[0]["units"][target]
        print(
            f"| {dataset} | {target} | {mean:.4f} ± {spread:.4f} {unit} | {baseline:.4f} | {1 - mean / baseline:.0%} | "
            f"{epochs} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
