"""Data sets from ten thousand to a million crystals: building, opening, batches, training from files, memory.

The crystals are those of mp_gap_10k, stretched and with elements replaced by others of their group: as varied in size
and symmetry as the originals. Each command runs in a process of its own.
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
from common import CGCNN, DATA, peak_rss_gib

from csgcnn.data.store import GraphStore

GROUPS = [
    "Li Na K Rb Cs",
    "Mg Ca Sr Ba",
    "O S Se Te",
    "F Cl Br I",
    "Ti Zr Hf",
    "V Nb Ta",
    "Cr Mo W",
    "N P As Sb",
]
GROUPS += ["Sc Y La", "Fe Co Ni", "Cu Ag Au", "Zn Cd Hg", "Al Ga In", "Si Ge Sn"]
GROUP_OF = {symbol: group.split() for group in GROUPS for symbol in group.split()}


def crystals(n_crystals: int) -> Iterator[dict[str, object]]:
    """Records, all different."""
    with gzip.open(DATA / "mp_gap_10k.json.gz", "rt") as file:
        originals = json.load(file)
    draw = random.Random(0)
    for number in range(n_crystals):
        original = originals[number % len(originals)]["crystal_structure"]
        replaced = {
            symbol: draw.choice(GROUP_OF.get(symbol, [symbol]))
            for symbol in set(original["species"])
        }
        a, b, c, *angles = original["lattice_parameters"]
        stretch = draw.uniform(0.97, 1.03)
        yield {
            "material_id": f"synthetic-{number:08}",
            "band_gap": round(
                originals[number % len(originals)]["band_gap"] + 10 * (stretch - 1), 4
            ),
            "crystal_structure": {
                "lattice_parameters": [round(length * stretch, 5) for length in (a, b, c)] + angles,
                "species": [replaced[symbol] for symbol in original["species"]],
                "frac_coords": original["frac_coords"],
            },
        }


def write(path: Path, n_crystals: int) -> None:
    """A file of JSON records, a line each."""
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps(record) + "\n" for record in crystals(n_crystals))


def run(*words: str) -> tuple[float, float, float]:
    """Run a command of csgcnn in a process of its own: seconds, peak GiB of it alone and with all its workers."""
    start, own, together = time.perf_counter(), 0.0, 0.0
    with psutil.Popen(
        [sys.executable, "-m", "csgcnn", *words], stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            sizes = []
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    sizes.append(one.memory_info().rss / 2**30)
            own, together = max(own, *sizes[:1], 0.0), max(together, sum(sizes))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"csgcnn {' '.join(words)} failed")
    return time.perf_counter() - start, own, together


def batch_milliseconds(
    store: GraphStore, order: torch.Tensor, size: int = 128, most: int = 2000
) -> float:
    """Time to assemble a batch of `size` crystals, in milliseconds."""
    parts = [part for part in order.split(size) if len(part) == size][:most]
    start = time.perf_counter()
    for _ in store.batches(parts):
        pass
    return 1000 * (time.perf_counter() - start) / len(parts)


def batches(folder: Path) -> None:
    """In a process of its own: opening a store, and batches of it in several orders."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    store = GraphStore.load(folder).to("cpu", resident=False)
    opened, peak = time.perf_counter() - start, peak_rss_gib()
    rows = torch.arange(len(store))
    windows = batch_milliseconds(store, store.shuffled(rows))
    scattered = batch_milliseconds(store, rows[torch.randperm(len(rows))])
    peak_of_batches = peak_rss_gib()
    resident = batch_milliseconds(store.to("cpu"), rows[torch.randperm(len(rows))])
    print(
        f"| {len(store):,} | {store.n_bytes / len(store):.0f} | {opened:.1f} s | {peak:.2f} GiB | {windows:.2f} ms | "
        f"{scattered:.2f} ms | {peak_of_batches:.2f} GiB | {resident:.2f} ms |",
        flush=True,
    )


def build(size: int, place: Path, workers: int) -> None:
    """Build the graphs of `size` crystals."""
    data, graphs = place / f"{size}.jsonl.gz", place / f"{size}.graphs"
    if not data.exists():
        write(data, size)
    shutil.rmtree(graphs, ignore_errors=True)
    seconds, own, together = run(
        "build", f"dataset.path={data}", f"output={graphs}", f"workers={workers}", CGCNN[-1]
    )
    mib = sum(path.stat().st_size for path in graphs.iterdir()) / 2**20
    speed = f"{seconds:.0f} s | {size / seconds:,.0f}/s"
    print(
        f"| {size:,} | {workers} | {speed} | {own:.2f} GiB | {together:.2f} GiB | {mib:.0f} |",
        flush=True,
    )


def train(size: int, place: Path) -> None:
    """Train an epoch on graphs in files."""
    words = [
        "trainer.max_epochs=1",
        "trainer.batch_size=128",
        "trainer.resident_gib=1e-9",
        "trainer.progress=false",
    ]
    target = [f"dataset.path={place / f'{size}.graphs'}", "dataset.targets=[band_gap]"]
    seconds, own, _ = run(
        "train", *target, *words, *CGCNN, f"hydra.run.dir={place}/run-{size}-{time.time_ns()}"
    )
    print(f"| {size:,} | {seconds:.0f} s | {own:.2f} GiB |", flush=True)


def head(*columns: str) -> None:
    """The head of a table."""
    print(f"\n| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--folder", type=Path, help="where the data are made, and stay; else a temporary folder"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--batches", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batches:
        batches(options.batches)
        return
    sizes = [1000] if options.quick else options.sizes
    with tempfile.TemporaryDirectory() as temporary:
        place = options.folder or Path(temporary)
        head(
            "crystals",
            "processes",
            "built in",
            "rate",
            "peak, main process",
            "peak, all processes",
            "MiB",
        )
        for size in sizes:
            for workers in [1, 2] if size < 1_000_000 else [2]:
                build(size, place, workers)
        times = ("batch of 128, windows", "batch, all over", "peak with these", "batch, in memory")
        head("crystals", "bytes each", "opened in", "peak", *times)
        for size in sizes:
            subprocess.run(
                [sys.executable, __file__, "--batches", place / f"{size}.graphs"], check=True
            )
        head("crystals", "an epoch, validation and test", "peak")
        for size in sizes:
            train(size, place)


if __name__ == "__main__":
    main()
