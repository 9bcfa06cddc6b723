"""Measure what values of a cheaper method are worth: test MAE of HSE06 gaps over their number.

The crystals have band gaps by GGA and by HSE06 (perovskites_halide_hoip). A fifth is tested, on
HSE06. The others have a GGA gap, and some of them an HSE06 gap: a fifth of these validates.

- shift: the GGA gap plus the mean difference of the known HSE06 gaps, no network.
- alone: trained on the HSE06 gaps.
- delta: `dataset.delta`, on the difference from the GGA gap, which predictions need, too.
- both fidelities: `dataset.fidelities`, on the GGA gaps of all crystals and the HSE06 gaps.
- fine-tuned: trained on the GGA gaps, then from these weights on the HSE06 gaps.
"""

import argparse
import gzip
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import data_file, print_header, print_row

import csgcnn

SIZES = [50, 100, 200]
Record = dict[str, Any]


def parts(records: list[Record], n_labels: int, seed: int) -> Iterator[Record]:
    """Yield the records with their part, and without the HSE06 gaps that are not known."""
    order = random.Random(seed).sample(records, len(records))
    n_test = len(order) // 5
    for number, record in enumerate(order, -n_test):
        part = "test" if number < 0 else "val" if number < n_labels // 5 else "train"
        kept = {key: record[key] for key in ("material_id", "crystal_structure")}
        hse = record["band_gap"] if number < n_labels else None
        gga = record["band_gap_gga"]
        # validation and test are of HSE06 alone
        both = gga if part == "train" else None
        yield kept | {"part": part, "hse": hse, "gga": gga, "known_gga": both}


def test_mae(file: Path, folder: Path, epochs: int, **settings: Any) -> float:
    """Train on a file, and return the test MAE of the HSE06 gap in eV."""
    result = csgcnn.train(
        file,
        folder=folder,
        verbose=False,
        max_epochs=epochs,
        threads=1,
        device="cpu",
        figures=False,
        **{
            "dataset.split.method": "column",
            "dataset.split.column": "part",
            "dataset.on_error": "skip",
            **settings,
        },
    )
    metrics = result.metrics
    of_hse = metrics["fidelities"]["test"]["hse"] if "fidelities" in metrics else metrics["test"]
    return next(iter(of_hse.values()))["mae"]


def measure(
    folder: Path, records: list[Record], n: int, seed: int, epochs: int
) -> dict[str, float]:
    """Return the test MAE of each method with n HSE06 gaps."""
    folder.mkdir()
    file = folder / "data.json"
    rows = [*parts(records, n, seed)]
    file.write_text(json.dumps(rows))
    differences = {"train": list[float](), "val": [], "test": []}
    for row in rows:
        if row["hse"] is not None:
            differences[row["part"]].append(row["hse"] - row["gga"])
    shift = statistics.mean(differences["train"] + differences["val"])
    found = {"shift": statistics.mean(abs(one - shift) for one in differences["test"])}
    short = {"seed": seed, "batch_size": 16}
    short_epochs = 4 * epochs
    hse = {"dataset.derived": {"gap": "hse"}, "target": "gap"}
    found["alone"] = test_mae(file, folder / "alone", short_epochs, **short, **hse)
    delta = {**hse, "dataset.delta": "gga"}
    found["delta"] = test_mae(file, folder / "delta", short_epochs, **short, **delta)
    fidelities = {"dataset.fidelities": {"gga": "known_gga", "hse": "hse"}, "target": "hse"}
    found["both fidelities"] = test_mae(file, folder / "both", epochs, seed=seed, **fidelities)
    first = folder.parent / f"gga-{seed}"
    if not first.exists():
        gga = {"dataset.derived": {"gap": "gga"}, "target": "gap"}
        test_mae(file, first, epochs, seed=seed, **gga)
    tuned = {**hse, "init_from": str(first), "lr": 2e-3}
    found["fine-tuned"] = test_mae(file, folder / "tuned", short_epochs, **short, **tuned)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40, help="of all GGA gaps; 4 times of HSE06")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--crystals", type=int, help="use the first crystals only")
    arguments = parser.parse_args()
    with gzip.open(data_file("perovskites_halide_hoip"), "rt") as file:
        records = json.load(file)[: arguments.crystals]
    start = time.process_time()
    rows = dict[str, dict[int, list[float]]]()
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.seeds):
            for n in arguments.sizes:
                folder = Path(scratch) / f"{n}-{seed}"
                for method, mae in measure(folder, records, n, seed, arguments.epochs).items():
                    rows.setdefault(method, {}).setdefault(n, []).append(mae)
                    print(f"# seed {seed}, {n} HSE06 gaps, {method}: {mae:.3f} eV", flush=True)
    print_header("MAE in eV", *(f"{n} HSE06 gaps" for n in arguments.sizes))
    for method, by_size in rows.items():
        print_row(method, *(_with_spread(by_size[n]) for n in arguments.sizes))
    print(f"\n{(time.process_time() - start) / 60:.0f} minutes on one CPU thread")


def _with_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
