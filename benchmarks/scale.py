"""Measure data sets of 10,000 to 1,000,000 crystals: building, opening, batches, training, memory.

The crystals are those of mp_gap_10k, stretched and with elements replaced by others of their group,
so that sizes and symmetries vary as in the originals. Each command runs in a process of its own.
"""

import argparse
import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from common import CGCNN, data_file, peak_rss_gib, print_header, print_row, run_script

from csgcnn.data.store import GraphStore

GROUPS = (
    "Li Na K Rb Cs,Mg Ca Sr Ba,O S Se Te,F Cl Br I,Ti Zr Hf,V Nb Ta,Cr Mo W,N P As Sb,"
    "Sc Y La,Fe Co Ni,Cu Ag Au,Zn Cd Hg,Al Ga In,Si Ge Sn"
)
GROUP_OF = {symbol: group.split() for group in GROUPS.split(",") for symbol in group.split()}


def crystals(n_crystals: int) -> Iterator[dict[str, object]]:
    """Yield records that are all different."""
    with gzip.open(data_file("mp_gap_10k"), "rt") as file:
        originals = json.load(file)
    rng = random.Random(0)
    for number in range(n_crystals):
        original = originals[number % len(originals)]
        crystal = original["crystal_structure"]
        replaced = {
            symbol: rng.choice(GROUP_OF.get(symbol, [symbol])) for symbol in set(crystal["species"])
        }
        a, b, c, *angles = crystal["lattice_parameters"]
        stretch = rng.uniform(0.97, 1.03)
        yield {
            "material_id": f"synthetic-{number:08}",
            "band_gap": round(original["band_gap"] + 10 * (stretch - 1), 4),
            "crystal_structure": {
                "lattice_parameters": [round(length * stretch, 5) for length in (a, b, c)] + angles,
                "species": [replaced[symbol] for symbol in crystal["species"]],
                "frac_coords": crystal["frac_coords"],
            },
        }


def run(*arguments: str) -> tuple[float, float, float]:
    """Run a command of csgcnn.

    Args:
        arguments: The command and its overrides.

    Returns:
        Seconds, and peak memory of the main process and of all processes, in GiB.
    """
    start, main_peak, total_peak = time.perf_counter(), 0.0, 0.0
    command = [sys.executable, "-m", "csgcnn", *arguments]
    with psutil.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = []
            for each in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    sizes.append(each.memory_info().rss / 2**30)
            main_peak, total_peak = max(main_peak, *sizes[:1], 0.0), max(total_peak, sum(sizes))
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"csgcnn {' '.join(arguments)} failed")
    return time.perf_counter() - start, main_peak, total_peak


def batch_milliseconds(
    store: GraphStore, order: torch.Tensor, size: int = 128, most: int = 2000
) -> float:
    """Return the time in which a batch is assembled, in milliseconds."""
    parts = [part for part in order.split(size) if len(part) == size][:most]
    start = time.perf_counter()
    for _ in store.batches(parts):
        pass
    return 1000 * (time.perf_counter() - start) / len(parts)


def measure_batches(folder: Path) -> None:
    """Print the time and memory of opening a store and of batches in several orders."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    store = GraphStore.load(folder).to("cpu", resident=False)
    seconds, peak = time.perf_counter() - start, peak_rss_gib()
    rows = torch.arange(len(store))
    windows = batch_milliseconds(store, store.shuffled(rows))
    scattered = batch_milliseconds(store, rows[torch.randperm(len(rows))])
    peak_of_batches = peak_rss_gib()
    resident = batch_milliseconds(store.to("cpu"), rows[torch.randperm(len(rows))])
    print_row(
        f"{len(store):,}",
        f"{store.n_bytes / len(store):.0f}",
        f"{seconds:.1f} s",
        f"{peak:.2f} GiB",
        f"{windows:.2f} ms",
        f"{scattered:.2f} ms",
        f"{peak_of_batches:.2f} GiB",
        f"{resident:.2f} ms",
    )


def build(size: int, folder: Path, workers: int) -> None:
    """Print the time and memory of building the graphs of `size` crystals."""
    data, graphs = folder / f"{size}.jsonl.gz", folder / f"{size}.graphs"
    if not data.exists():
        with gzip.open(data, "wt", compresslevel=1) as file:
            file.writelines(json.dumps(record) + "\n" for record in crystals(size))
    shutil.rmtree(graphs, ignore_errors=True)
    keys = f"dataset.path={data}", f"output={graphs}", f"workers={workers}", CGCNN[-1]
    seconds, main_peak, total_peak = run("build", *keys)
    print_row(
        f"{size:,}",
        workers,
        f"{seconds:.0f} s",
        f"{size / seconds:,.0f}/s",
        f"{main_peak:.2f} GiB",
        f"{total_peak:.2f} GiB",
        f"{sum(path.stat().st_size for path in graphs.iterdir()) / 2**20:.0f}",
    )


def train(size: int, folder: Path) -> None:
    """Print the time and memory of one epoch on graphs that stay in files."""
    data = [f"dataset.path={folder / f'{size}.graphs'}", "dataset.targets=[band_gap]"]
    keys = ["max_epochs=1", "batch_size=128", "resident_gib=1e-9", "progress=false"]
    run_dir = f"hydra.run.dir={folder}/run-{size}-{time.time_ns()}"
    seconds, peak, _ = run("train", *data, *(f"trainer.{key}" for key in keys), *CGCNN, run_dir)
    print_row(f"{size:,}", f"{seconds:.0f} s", f"{peak:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 crystals")
    parser.add_argument("--folder", type=Path, help="keep the data here; default: a temporary one")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--batches", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batches:
        measure_batches(options.batches)
        return
    sizes = [1000] if options.quick else options.sizes
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        peaks = ("peak, main process", "peak, all processes")
        print_header("crystals", "processes", "time", "rate", *peaks, "MiB")
        for size in sizes:
            for workers in [1, 2] if size < 1_000_000 else [2]:
                build(size, folder, workers)
        batches = ("batch of 128, windows", "batch, random", "peak of both", "batch, in memory")
        print_header("crystals", "bytes per crystal", "opened in", "peak", *batches)
        for size in sizes:
            run_script(__file__, "--batches", folder / f"{size}.graphs")
        print_header("crystals", "one epoch, validation and test", "peak")
        for size in sizes:
            train(size, folder)


if __name__ == "__main__":
    main()
