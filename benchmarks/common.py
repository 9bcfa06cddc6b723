"""What the benchmarks share: data, timing, memory."""

import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from csgcnn.crystals.datasets import read_records
from csgcnn.crystals.records import Record

CGCNN = [
    "model=csgcnn",
    "node_features=atom_init",
    "graph.global_features=none",
]  # its network, that of the peers
DATA = Path(os.environ.get("CSGCNN_DATA", Path(__file__).parents[2] / "shared" / "data")).resolve()


def records(name: str, n: int | None = None) -> list[Record]:
    """The first `n` records of a data set in `$CSGCNN_DATA`."""
    return read_records(DATA / f"{name}.json.gz")[:n]


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of `work`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_rss_gib() -> float:
    """Largest memory of this process and of any one of its children so far, added up."""
    kib = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    )
    return kib / 2**20
