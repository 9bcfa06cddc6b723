"""Measure the test MAE of small data sets: mean and standard deviation over splits.

Each seed sets the split (80/10/10) and the initial weights. `--sizes` trains on the first crystals
of the training rows instead, so that the rows of a learning curve are nested and its test rows are
those of the whole split.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from common import data_file, print_header, print_row, train

HALIDES = [f"dataset.path={data_file('perovskites_halide_hoip')}", "dataset.targets=[band_gap]"]
MP_GAP = [f"dataset.path={data_file('mp_gap_10k')}", "dataset.targets=[band_gap]"]
SETS = {
    "dielectric, band gap": ["dataset=dielectric", "dataset.targets=[band_gap]"],
    "dielectric, refractive index": ["dataset=dielectric", "dataset.targets=[refractive_index]"],
    "elastic, log10 G": ["dataset=elastic", "dataset.targets=[log10_g_vrh]"],
    "elastic, log10 K": ["dataset=elastic", "dataset.targets=[log10_k_vrh]"],
    "halides": HALIDES,
    "halides by compound": [
        *HALIDES,
        "dataset.split.method=group",
        "dataset.split.column=label",
    ],
    "mp_gap_10k": MP_GAP,
}


def metrics_of(folder: Path, overrides: list[str], seed: int) -> dict[str, Any]:
    """Train once and return metrics.json."""
    is_drawn = not any(word.startswith("dataset.split.file=") for word in overrides)
    seeds = [f"seed={seed}", *[f"dataset.split.seed={seed}"] * is_drawn]
    train(folder, *overrides, *seeds)
    return json.loads((folder / "metrics.json").read_text())


def nested_split(folder: Path, overrides: list[str], seed: int, size: int) -> list[str]:
    """Return overrides of a split with the first `size` training rows of a seed's split."""
    metrics_of(folder, [*overrides, "trainer.max_epochs=0", "head=gp", "head.inputs=global"], seed)
    split = json.loads((folder / "splits.json").read_text())
    path = folder / f"{size}.json"
    path.write_text(json.dumps({**split, "train": split["train"][:size]}))
    return ["dataset.split.method=file", f"dataset.split.file={path}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS][:-1])
    parser.add_argument("--sizes", nargs="+", type=int, default=[0], help="0: all training rows")
    parser.add_argument("overrides", nargs="*", default=["recipe=small"])
    options = parser.parse_args()
    print(f"overrides: {' '.join(options.overrides)}; {options.seeds} seeds")
    print_header("data set", "training rows", "test MAE", "MAE of the mean", "s per run")
    for name in options.sets:
        for size in options.sizes:
            runs = []
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    words = SETS[name]
                    if size:
                        split = nested_split(Path(folder, "split"), words, seed, size)
                        words = [*(w for w in words if "split" not in w), *split]
                    words = [*words, *options.overrides]
                    runs.append(metrics_of(Path(folder, "run"), words, seed))
            (target,) = runs[0]["units"]
            maes = [metrics["test"][target]["mae"] for metrics in runs]
            std = statistics.stdev(maes) if len(maes) > 1 else 0.0
            print_row(
                name,
                runs[0]["n_rows"]["train"],
                f"{statistics.mean(maes):.4f} ± {std:.4f} {runs[0]['units'][target]}",
                f"{statistics.mean(m['baseline_test_mae'][target] for m in runs):.4f}",
                f"{statistics.mean(metrics['seconds'] for metrics in runs):.0f}",
            )


if __name__ == "__main__":
    main()
