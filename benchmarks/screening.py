"""Screening with `csgcnn predict`: rate, memory and what bounds them, from CIFs, a data-set file, a store of graphs."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import CGCNN, DATA, peak_rss_gib

# The rest is imported where it is used: processes that build graphs import this file, as they do csgcnn's front door.

CHUNK = 256


def write_cifs(name: str, n: int, folder: Path) -> None:
    from pymatgen.core import Structure

    from csgcnn.crystals.crystal import to_crystal
    from csgcnn.crystals.datasets import read_records

    for record in read_records(DATA / f"{name}.json.gz")[:n]:
        crystal = to_crystal(record.source)
        structure = Structure(crystal.lattice, crystal.atomic_number.tolist(), crystal.frac_coords)
        structure.to(str(folder / f"{record.id}.cif"), fmt="cif")


def write_store(source: Path, folder: Path) -> None:
    from csgcnn.config.settings.graph import GraphSettings
    from csgcnn.data.cache import open_dataset

    store, _ = open_dataset(source, GraphSettings(), cache_folder=folder.parent / "cache")
    folder.mkdir()
    store.save(folder)


def one_run(ckpt: Path, source: Path, workers: int) -> None:
    """In a process of its own, so that its peak memory can be told; imports are not counted."""
    from csgcnn.config.schemas import PredictConfig
    from omegaconf import OmegaConf

    from csgcnn.commands.predict import predict

    start_rss = peak_rss_gib()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "predictions.csv")
        config = PredictConfig(
            str(ckpt), str(source), str(output), on_error="skip", workers=workers
        )
        start = time.perf_counter()
        predict(OmegaConf.structured(config))
        seconds = time.perf_counter() - start
        n = output.read_bytes().count(b"\n") - 1
    print(
        f"| {source.name} | {n} | {workers} | {seconds:.1f} s | {n / seconds:.0f}/s | {start_rss:.2f} GiB "
        f"| {peak_rss_gib():.2f} GiB |",
        flush=True,
    )


def stages(ckpt: Path, source: Path, n: int) -> None:
    """Microseconds of one process for a crystal: reading, graph, batch and network, writing."""
    import torch

    from csgcnn.commands.predict import _short
    from csgcnn.crystals.crystal import to_crystal
    from csgcnn.crystals.graphs import find_neighbors, to_graphs
    from csgcnn.crystals.structure_inputs import iter_structures
    from csgcnn.data.store import GraphStore
    from csgcnn.predictor import Predictor
    from csgcnn.runs.tables import predicted_cells
    from csgcnn.screening.partial_table import PartialTable

    seconds = dict.fromkeys(("read", "graph", "network", "write"), 0.0)
    predictor = Predictor.load(ckpt)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    clock = time.perf_counter
    done, start = 0, clock()
    if (source / "meta.json").exists():
        stores = [GraphStore.load(source)]
        n = min(n, len(stores[0]))
        seconds["read"] = clock() - start  # of the whole store
    else:
        stores, records = [], iter(iter_structures([source]))
        while done < n:
            start = clock()
            chunk = [record for _, record in zip(range(CHUNK), records, strict=False)]
            crystals = [to_crystal(record.source) for record in chunk]
            between = clock()
            settings = predictor.graph
            graphs = to_graphs(
                crystals, [find_neighbors(crystal, settings) for crystal in crystals], settings
            )
            seconds["read"] += between - start
            seconds["graph"] += clock() - between
            stores.append(GraphStore(graphs, [record.id for record in chunk], {}, settings))
            done += len(chunk)
            if len(chunk) < CHUNK:
                break
    with (
        tempfile.TemporaryDirectory() as folder,
        PartialTable(Path(folder, "out.csv"), {}, resume=False) as table,
    ):
        done = 0
        for store in stores:
            for first in range(0, min(n, len(store)), CHUNK):
                start = clock()
                chunk = predictor.predict_rows(
                    store, range(first, min(first + CHUNK, len(store))), CHUNK
                )
                between = clock()
                cells = (predicted_cells(row, predictor.targets) for row in chunk.values.tolist())
                table.add(
                    [[id_, *map(_short, row)] for id_, row in zip(chunk.ids, cells, strict=True)]
                )
                seconds["network"] += between - start
                seconds["write"] += clock() - between
                done += len(chunk.ids)
    told = " | ".join(f"{1e6 * spent / done:.0f}" for spent in seconds.values())
    print(f"| {source.name} | {told} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--cifs", type=int, metavar="N", default=8000, help="CIF files to write and read"
    )
    parser.add_argument(
        "--data", nargs="*", metavar="NAME", default=["mp_gap_10k", "matbench_mp_gap"]
    )
    parser.add_argument(
        "--store",
        type=Path,
        nargs="*",
        help="folders of graphs, in place of those of the data sets",
    )
    parser.add_argument("--only", nargs="*", choices=["rate", "stages"], default=["rate", "stages"])
    parser.add_argument("--one", nargs=3, metavar=("CKPT", "SOURCE", "WORKERS"))
    parser.add_argument("--stages", nargs=3, metavar=("CKPT", "SOURCE", "N"))
    options = parser.parse_args()
    if options.one or options.stages:
        ckpt, source, number = options.one or options.stages
        (one_run if options.one else stages)(Path(ckpt), Path(source), int(number))
        return
    names = options.data[:1] if options.quick else options.data
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        words = [
            "train",
            *CGCNN,
            "trainer.max_epochs=1",
            "hydra.run.dir=run",
            "trainer.progress=false",
        ]
        included = {
            key: value for key, value in os.environ.items() if key != "CSGCNN_DATA"
        }  # trained on the default
        program = [sys.executable, "-m", "csgcnn", *words]
        subprocess.run(program, check=True, cwd=place, stdout=subprocess.DEVNULL, env=included)
        ckpt = place / "run" / "checkpoints" / "best.ckpt"
        (cifs := place / "cifs").mkdir()
        n_cifs = 300 if options.quick else options.cifs
        write_cifs("mp_gap_10k", n_cifs, cifs)
        files = [DATA / f"{name}.json.gz" for name in names]
        stores = options.store or [place / f"{name} (store)" for name in names]
        for file, store in zip(files, stores, strict=False):
            if not store.exists():
                write_store(file, store)
        sources = [cifs] * bool(n_cifs) + [*files, *stores]
        if "rate" in options.only:
            print(
                "| source | crystals | processes | time | rate | RSS at the start | peak RSS |\n"
                + "| --- " * 7
                + "|"
            )
            for source in sources:
                for workers in ("1", "2"):
                    run("--one", ckpt, source, workers)
        if "stages" in options.only:
            print(
                "\n| microseconds a crystal, one process | read | graph | network | write |\n"
                + "| --- " * 5
                + "|",
                flush=True,
            )
            for source in [cifs] * bool(n_cifs) + [files[0], stores[0]]:
                run("--stages", ckpt, source, 10_000)


def run(*words: object) -> None:
    subprocess.run([sys.executable, "-W", "ignore", __file__, *map(str, words)], check=True)


if __name__ == "__main__":
    main()
