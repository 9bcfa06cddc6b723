"""Measure graph building: against pymatgen's two searches, from data file to cache, reopening."""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    data_file,
    median_seconds,
    peak_rss_gib,
    print_header,
    print_row,
    records,
    run_script,
    structures,
)
from numpy.typing import NDArray
from pymatgen.core import Structure

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.cache import open_dataset

CHUNK = 256
GRAPHS = {
    "complete shells, compressed (default)": GraphSettings(),
    "complete shells": GraphSettings(compress=False),
    "truncate (graph of CGCNN)": GraphSettings(shells="truncate", compress=False),
}


def cgcnn_neighbors(structure: Structure) -> list[list[tuple[int, float]]]:
    """Return the neighbors of the original CGCNN: the nearest 12 of all within 8 Å."""
    return [
        [(n.index, n.nn_distance) for n in sorted(found, key=lambda n: n.nn_distance)[:12]]
        for found in structure.get_all_neighbors(8.0, include_index=True)
    ]


def careful_neighbors(structure: Structure) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the same neighbors from arrays, as a careful user finds them."""
    center, neighbor, _, distance = structure.get_neighbor_list(8.0)
    order = np.lexsort((distance, center))
    center, neighbor, distance = center[order], neighbor[order], distance[order]
    first = np.searchsorted(center, np.arange(len(structure)))
    kept = np.arange(len(center)) - first[center] < 12
    return center[kept], neighbor[kept], distance[kept]


def compare(name: str, n: int) -> None:
    """Print the rates of one process, from structures in memory to graphs; all runs alternate."""
    some = structures(records(name, n))
    few = some[: n // 10]

    def build(settings: GraphSettings) -> None:
        for i in range(0, n, CHUNK):
            connect([to_crystal(s) for s in some[i : i + CHUNK]], settings)

    works: list[Callable[[], object]] = [
        lambda: [cgcnn_neighbors(s) for s in few],
        lambda: [careful_neighbors(s) for s in some],
        *(partial(build, settings) for settings in GRAPHS.values()),
    ]
    runs = [[median_seconds(work, 1) for work in works] for _ in range(7)]
    seconds = np.median(runs, axis=0)
    peer, careful, *rates = np.array([len(few), *[n] * (len(works) - 1)]) / seconds
    for label, rate in zip(GRAPHS, rates, strict=True):
        peers = (f"{peer:.0f}/s", f"{careful:.0f}/s")
        ratios = (f"{rate / peer:.0f}x", f"{rate / careful:.1f}x")
        print_row(f"{name}, {label}", *peers, f"{rate:.0f}/s", *ratios)


def compression(name: str) -> str:
    """Return the factor by which compression lowers the number of edges of 2,000 crystals."""
    crystals = [to_crystal(record.source) for record in records(name, 2000)]
    chunks = [crystals[i : i + CHUNK] for i in range(0, len(crystals), CHUNK)]
    full, compressed = (
        sum(int(connect(chunk, GraphSettings(compress=compress)).n_edges.sum()) for chunk in chunks)
        for compress in (False, True)
    )
    return f"{full / compressed:.1f}x"


def to_cache(name: str, workers: int) -> None:
    """Print the time, memory and size of a cache of graphs."""
    with tempfile.TemporaryDirectory() as folder:
        cache, seconds = Path(folder), []
        for _ in ("build", "reopen"):
            start = time.perf_counter()
            store, rejected, _ = open_dataset(
                data_file(name), GraphSettings(), cache_folder=cache, workers=workers
            )
            seconds.append(time.perf_counter() - start)
        size = sum(file.stat().st_size for file in cache.rglob("*.npy")) / 2**20
    print_row(
        f"{name}, {len(store)} crystals, {len(rejected)} rejected",
        workers,
        f"{seconds[0]:.1f} s",
        f"{seconds[1]:.2f} s",
        f"{peak_rss_gib():.2f} GiB",
        f"{size:.0f} MiB",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer crystals")
    parser.add_argument("--to-cache", nargs=2, metavar=("NAME", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.to_cache:
        to_cache(options.to_cache[0], int(options.to_cache[1]))
        return
    peers = ("get_all_neighbors", "get_neighbor_list")
    print_header("from structures in memory, one process", *peers, "csgcnn", "ratio to each", "")
    for name in ("castelli_perovskites", "mp_gap_10k"):
        compare(name, 500 if options.quick else 2000)
    print_header("data set", "full edges / compressed edges")
    for name in ("castelli_perovskites", "mp_gap_10k", "dielectric", "perovskites_halide_hoip"):
        print_row(name, compression(name))
    print_header("json.gz to cache", "processes", "build", "reopen", "peak RSS", "cache")
    full = [("castelli_perovskites", 1), ("castelli_perovskites", 2), ("matbench_mp_gap", 2)]
    for name, workers in [("mp_gap_10k", 2)] if options.quick else full:
        run_script(__file__, "--to-cache", name, workers, threads=1)


if __name__ == "__main__":
    main()
