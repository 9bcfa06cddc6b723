"""Graph building: against `get_all_neighbors`, from data file to cache, and reopening the cache."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import DATA, median_seconds, peak_rss_gib, records
from pymatgen.core import Structure

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.graphs import connect
from csgcnn.data.cache import open_dataset


def cgcnn_neighbors(structure: Structure) -> list[list[tuple[int, float]]]:
    """The original CGCNN's way: all neighbors within 8 Å, sorted, cut at 12."""
    everyone = structure.get_all_neighbors(8.0, include_index=True)
    return [
        [(n.index, n.nn_distance) for n in sorted(near, key=lambda n: n.nn_distance)[:12]]
        for near in everyone
    ]


def one_process(name: str, n: int) -> None:
    structures = []
    for record in records(name, n):
        crystal = to_crystal(record.source)
        structures.append(
            Structure(crystal.lattice, crystal.atomic_number.tolist(), crystal.frac_coords)
        )
    few = structures[: n // 10]
    theirs = len(few) / median_seconds(lambda: [cgcnn_neighbors(s) for s in few], 3)
    for label, settings in {
        "complete shells, compressed (default)": GraphSettings(),
        "complete shells": GraphSettings(compress=False),
        "truncate (CGCNN's graph)": GraphSettings(shells="truncate", compress=False),
    }.items():

        def build(settings: GraphSettings = settings) -> None:
            for i in range(0, n, 256):
                connect([to_crystal(s) for s in structures[i : i + 256]], settings)

        ours = n / median_seconds(build)
        print(
            f"| {name}, {label} | {theirs:.0f}/s | {ours:.0f}/s | {ours / theirs:.0f}x |",
            flush=True,
        )


def compression(name: str) -> str:
    """How many times fewer edges the compressed graphs of the first 2,000 rows have."""
    crystals = [to_crystal(record.source) for record in records(name, 2000)]
    full, merged = (
        sum(
            int(connect(crystals[i : i + 256], settings).n_edges.sum())
            for i in range(0, len(crystals), 256)
        )
        for settings in (GraphSettings(compress=False), GraphSettings())
    )
    return f"{full / merged:.1f}x"


def to_cache(name: str, workers: int) -> None:
    """In a process of its own, so that its peak memory can be told."""
    with tempfile.TemporaryDirectory() as folder:
        path = DATA / f"{name}.json.gz"
        start = time.perf_counter()
        store, rejected = open_dataset(
            path, GraphSettings(), cache_folder=Path(folder), workers=workers
        )
        built = time.perf_counter() - start
        start = time.perf_counter()
        open_dataset(path, GraphSettings(), cache_folder=Path(folder))
        reopened = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.npy")) / 2**20
    print(
        f"| {name}, {len(store)} crystals, {len(rejected)} rejected | {workers} | {built:.1f} s | {reopened:.2f} s | "
        f"{peak_rss_gib():.2f} GiB | {size:.0f} MiB |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--to-cache", nargs=2, metavar=("NAME", "WORKERS"))
    options = parser.parse_args()
    if options.to_cache:
        to_cache(options.to_cache[0], int(options.to_cache[1]))
        return
    print(
        "| from in-memory Structures, one process | get_all_neighbors | csgcnn | ratio |\n| --- | --- | --- | --- |"
    )
    for name in ["castelli_perovskites", "mp_gap_10k"]:
        one_process(name, 500 if options.quick else 4000)
    names = ["castelli_perovskites", "mp_gap_10k", "embedded/dielectric", "perovskites_halide_hoip"]
    print(
        "\nfull edges / compressed edges: "
        + ", ".join(f"{name} {compression(name)}" for name in names)
    )
    print(
        "\n| json.gz to saved cache | processes | build | reopen | peak RSS | cache |\n"
        + "| --- " * 6
        + "|",
        flush=True,
    )
    for name in ["mp_gap_10k"] if options.quick else ["castelli_perovskites", "matbench_mp_gap"]:
        for workers in ["1", "2"] if name == "castelli_perovskites" else ["2"]:
            command = [sys.executable, __file__, "--to-cache", name, workers]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
