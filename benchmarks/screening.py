"""Measure `csgcnn predict`: rate, memory and stages for CIFs, a data file and a store of graphs."""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common import (
    CGCNN,
    data_file,
    peak_rss_gib,
    print_header,
    print_row,
    records,
    run_script,
    structures,
    train,
)

# The rest is imported where it is used: processes that build graphs import this file, and their
# memory would be larger than with csgcnn predict.
if TYPE_CHECKING:
    from csgcnn.config.settings.graph import GraphSettings
    from csgcnn.data.store import GraphStore
    from csgcnn.predictor import Predictor

CHUNK = 256
STAGES = ("read", "graph", "network", "write")
MOST = 10_000  # crystals whose stages are timed


def write_cifs(name: str, n: int, folder: Path) -> None:
    some = records(name, n)
    folder.mkdir()
    for record, structure in zip(some, structures(some), strict=True):
        structure.to(str(folder / f"{record.id}.cif"), fmt="cif")


def write_store(source: Path, folder: Path) -> None:
    from csgcnn.config.settings.graph import GraphSettings
    from csgcnn.data.cache import open_dataset

    settings = GraphSettings(global_features="none")
    store = open_dataset(source, settings, cache_folder=folder.parent / "cache").store
    folder.mkdir()
    store.save(folder)


def measure_rate(ckpt: Path, source: Path, workers: int) -> None:
    """Print the rate and the memory of a prediction; imports are not counted."""
    from csgcnn.commands.predict import predict
    from csgcnn.config.compose import compose, to_overrides

    # Warnings about structures would be printed within the table.
    logging.disable()
    before = peak_rss_gib()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "predictions.csv")
        keys = {"ckpt": str(ckpt), "structures": str(source), "output": str(output)}
        keys["on_error"] = "skip"
        cfg = compose("predict", [*to_overrides(keys), f"workers={workers}"])
        start = time.perf_counter()
        predict(cfg)
        seconds = time.perf_counter() - start
        n = output.read_bytes().count(b"\n") - 1
    memory = [f"{gib:.2f} GiB" for gib in (before, peak_rss_gib())]
    print_row(source.name, n, workers, f"{seconds:.1f} s", f"{n / seconds:.0f}/s", *memory)


class Stopwatch:
    """Add up the seconds of stages."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.last = time.perf_counter()

    def lap(self, stage: str | None = None) -> None:
        """Add the time since the last call to a stage, or to none."""
        now = time.perf_counter()
        if stage:
            self.seconds[stage] += now - self.last
        self.last = now


def read_stores(
    source: Path, settings: "GraphSettings", watch: Stopwatch
) -> "Iterator[GraphStore]":
    """Yield graphs in chunks, from structures or from built graphs."""
    from itertools import islice

    from csgcnn.crystals.graphs import find_neighbors, to_graphs
    from csgcnn.crystals.site_features.compute import site_features
    from csgcnn.crystals.structure_inputs import iter_structures
    from csgcnn.crystals.structures import to_crystal
    from csgcnn.data.store import GraphStore
    from csgcnn.data.store_files import is_store

    watch.lap()
    if is_store(source):
        store = GraphStore.load(source)
        watch.lap("read")
        yield store
        return
    some = islice(iter_structures([source]), MOST)
    while chunk := list(islice(some, CHUNK)):
        crystals = [to_crystal(record.source) for record in chunk]
        watch.lap("read")
        neighbors = [find_neighbors(crystal, settings) for crystal in crystals]
        graphs = to_graphs(crystals, neighbors, settings, site_features(crystals, settings))
        store = GraphStore(graphs, [record.id for record in chunk], {}, settings)
        watch.lap("graph")
        yield store


def predict_stores(predictor: "Predictor", source: Path, watch: Stopwatch) -> int:
    """Predict crystals as `csgcnn predict` does, and return their number."""
    from csgcnn.runs.tables import predicted_rows
    from csgcnn.screening.partial_table import Part, PartialTable

    n_done = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        PartialTable(Path(folder, "out.csv"), {}, resume=False) as table,
    ):
        for store in read_stores(source, predictor.graph, watch):
            n = min(MOST, len(store))
            for first in range(0, n, CHUNK):
                watch.lap()
                chunk = predictor.predict_rows(store, range(first, min(first + CHUNK, n)), CHUNK)
                watch.lap("network")
                cells = predicted_rows(chunk.values, predictor.targets)
                rows = [
                    [id_, *(f"{cell:.6g}" for cell in row)]
                    for id_, row in zip(chunk.ids, cells, strict=True)
                ]
                table.add(Part(rows))
                watch.lap("write")
            n_done += n
    return n_done


def measure_stages(ckpt: Path, source: Path) -> None:
    """Print the microseconds per crystal of each stage, in one process."""
    import torch

    from csgcnn.predictor import Predictor

    predictor, watch = Predictor.load(ckpt), Stopwatch()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    n = predict_stores(predictor, source, watch)
    print_row(source.name, *(f"{1e6 * watch.seconds[stage] / n:.0f}" for stage in STAGES))


def write_sources(
    options: argparse.Namespace, folder: Path
) -> tuple[list[Path], list[Path], list[Path]]:
    """Return folders of CIFs, data files and stores to predict; write those that are missing."""
    names = ["dielectric"] if options.quick else options.data
    cifs = [folder / "cifs"] if options.cifs else []
    for path in cifs:
        write_cifs(names[0], 300 if options.quick else options.cifs, path)
    files = [data_file(name) for name in names]
    stores = options.store or [folder / f"{name} (store)" for name in names]
    for file, store in zip(files, stores, strict=False):
        if not store.exists():
            write_store(file, store)
    return cifs, files, stores


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an included data set, 300 CIFs")
    parser.add_argument("--cifs", type=int, metavar="N", default=8000, help="number of CIF files")
    sets = ["mp_gap_10k", "matbench_mp_gap"]
    parser.add_argument("--data", nargs="*", metavar="NAME", default=sets)
    help_text = "folders of built graphs, instead of those of the data sets"
    parser.add_argument("--store", type=Path, nargs="*", help=help_text)
    parser.add_argument("--only", nargs="*", choices=["rate", "stages"], default=["rate", "stages"])
    parser.add_argument("--measure-rate", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--measure-stages", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.measure_rate:
        ckpt, source, workers = options.measure_rate
        return measure_rate(Path(ckpt), Path(source), int(workers))
    if options.measure_stages:
        return measure_stages(*map(Path, options.measure_stages))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ckpt = train(folder / "run", "trainer.max_epochs=1", *CGCNN)
        cifs, files, stores = write_sources(options, folder)
        if "rate" in options.only:
            columns = ("processes", "time", "rate", "RSS at the start", "peak RSS")
            print_header("source", "crystals", *columns)
            for source in [*cifs, *files, *stores]:
                for workers in (1, 2):
                    run_script(__file__, "--measure-rate", ckpt, source, workers)
        if "stages" in options.only:
            print_header("µs per crystal, one process", *STAGES)
            for source in [*cifs, files[0], stores[0]]:
                run_script(__file__, "--measure-stages", ckpt, source)
    return None


if __name__ == "__main__":
    main()
