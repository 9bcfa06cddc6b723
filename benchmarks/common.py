"""Data sets, trainings, timing and tables that the benchmarks share."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from csgcnn.config.paths import INCLUDED_DATA
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.datasets import iter_records
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal

# Other libraries are imported where they are used: processes that build graphs import this file.
if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pymatgen.core import Structure

    from csgcnn.commands.prepare import Prepared

INCLUDED = ("dielectric", "elastic", "formation_energy")
DATA = Path(os.environ.get("CSGCNN_DATA", Path(__file__).parents[2] / "shared" / "data")).resolve()
# Targets of the larger data sets.
TARGETS = {"castelli_perovskites": "e_form", "mp_gap_10k": "band_gap"}
# The network of CGCNN, which is also that of the peers.
CGCNN = ["model=csgcnn", "node_features=atom_init", "graph.global_features=none"]


def data_file(name: str) -> Path:
    """Return the file of an included data set, or of one in $CSGCNN_DATA."""
    return (INCLUDED_DATA if name in INCLUDED else DATA) / f"{name}.json.gz"


def records(name: str, n: int | None = None, step: int = 1) -> list[Record]:
    """Return the first `n` records of a data set, or every `step`-th of them."""
    return list(islice(iter_records(data_file(name)), 0, n, step))


def to_structure(crystal: Crystal) -> "Structure":
    from pymatgen.core import Structure

    return Structure(crystal.lattice, crystal.atomic_number.tolist(), crystal.frac_coords)


def structures(some: Sequence[Record]) -> "list[Structure]":
    """Return pymatgen's structures of records."""
    return [to_structure(to_crystal(record.source)) for record in some]


def run_csgcnn(*arguments: str) -> None:
    """Run a command of csgcnn in a process of its own, and stop if it fails."""
    command = [sys.executable, "-m", "csgcnn", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"csgcnn {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def run_script(script: str, *arguments: object, threads: int | None = None) -> None:
    """Run a benchmark script in a process of its own, so that its peak memory can be measured.

    Args:
        script: The script.
        arguments: Its arguments.
        threads: CPU threads of torch; None: as in this process.
    """
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    command = [sys.executable, "-W", "ignore", script, *map(str, arguments)]
    subprocess.run(command, check=True, env=environment)


def train(folder: Path, *overrides: str) -> Path:
    """Run `csgcnn train`.

    Args:
        folder: The run directory.
        overrides: Overrides of the command line.

    Returns:
        The checkpoint of the best epoch.
    """
    settings = ["trainer.progress=false", "trainer.figures=false", f"hydra.run.dir={folder}"]
    run_csgcnn("train", *settings, *overrides)
    return folder / "checkpoints" / "best.ckpt"


def prepare_training(overrides: Sequence[str]) -> "tuple[DictConfig, Prepared]":
    """Prepare a training with one thread in this process.

    Args:
        overrides: Overrides of `csgcnn train`.

    Returns:
        Its configuration, and its data.
    """
    from csgcnn.cli.overrides import canonical
    from csgcnn.commands.prepare import prepare
    from csgcnn.config.compose import compose
    from csgcnn.config.validate import validate
    from csgcnn.data.record_reports import RecordReports

    execution = ["trainer.progress=false", "trainer.threads=1", "trainer.workers=1"]
    cfg = compose("train", canonical("train", [*overrides, *execution]))
    validate(cfg, "train")
    return cfg, prepare(cfg, RecordReports.within(Path(tempfile.gettempdir())))


def print_header(*columns: str) -> None:
    """Print the header of a Markdown table."""
    print(f"\n| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|", flush=True)


def print_row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median wall time of some work."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_rss_gib() -> float:
    """Return the peak memory of this process plus that of its largest child so far."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20
