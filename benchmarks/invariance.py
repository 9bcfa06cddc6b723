"""How much predictions change with the description of a crystal: all embedded crystals, the three operators."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from csgcnn import load
from csgcnn.crystals.crystal import Crystal, to_crystal
from csgcnn.crystals.datasets import read_records
from csgcnn.crystals.graphs import CrystalGraphs, connect
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.store import GraphStore
from csgcnn.evaluation.inference import predict_rows
from csgcnn.predictor import Predictor

DATA = Path(__file__).parents[1] / "data"
SETS = ("dielectric", "elastic", "formation_energy")
OPERATORS = ("csgcnn", "csgann", "csginn")
DRAWS = 20  # of the noise, to find the crystals that lie on a tolerance
CHUNK = 64

Array = NDArray[np.float64]


def trained(operator: str, epochs: int) -> Predictor:
    """A network trained on the band gaps of the dielectric set, in eV."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            f"model={operator}",
            f"trainer.max_epochs={epochs}",
            "trainer.progress=false",
            "trainer.device=cpu",
        ]
        words += [
            f"dataset.path={DATA / 'dielectric.json.gz'}",
            "trainer.threads=1",
            f"hydra.run.dir={folder}/run",
        ]
        subprocess.run(
            [sys.executable, "-m", "csgcnn", "train", *words], check=True, stdout=subprocess.DEVNULL
        )
        return load(Path(folder, "run", "checkpoints", "best.ckpt"))


def sizes(graphs: CrystalGraphs) -> Array:
    """Nodes, edges, and neighbors per site of each crystal, the same for all its descriptions: [n_graphs, 3]."""
    graph = np.repeat(np.arange(len(graphs)), graphs.n_edges)
    center = graphs.edge_index[1] + (np.cumsum(graphs.n_atoms) - graphs.n_atoms)[graph]
    count = np.bincount(
        graph, graphs.edge_multiplicity * graphs.atom_multiplicity[center], minlength=len(graphs)
    )
    return np.stack([graphs.n_atoms, graphs.n_edges, (count / graphs.n_sites).round(6)], axis=1)


def predict(
    networks: Sequence[Predictor],
    crystals: Sequence[Crystal],
    compress: bool = True,
    batch_size: int = CHUNK,
) -> tuple[Array, Array]:
    """What each network predicts [n_networks, n_crystals], and the sizes of the graphs [n_crystals, 3]."""
    settings, found, graph_sizes = replace(networks[0].graph, compress=compress), [], []
    for i in range(0, len(crystals), CHUNK):
        graphs = connect(crystals[i : i + CHUNK], settings)
        store = GraphStore(graphs, [str(row) for row in range(len(graphs))], {}, settings)
        rows = torch.arange(len(store))
        found.append(
            [
                predict_rows(each.network, store, rows, batch_size)[:, 0].double().numpy()
                for each in networks
            ]
        )
        graph_sizes.append(sizes(graphs))
    return np.concatenate(found, axis=1), np.concatenate(graph_sizes)


def tell(
    name: str, change: Array, spread: Array, ids: Sequence[str], n_changed: int | str = ""
) -> None:
    """Print a row of the table; change [n_networks, n_crystals] in eV."""
    cells = [name, str(len(ids)), str(n_changed)]
    for of_operator, deviation in zip(change, spread, strict=True):
        worst = int(of_operator.argmax())
        largest, most = of_operator[worst], np.quantile(of_operator, 0.999)
        cells.append(
            f"{largest:.1e}, {most:.1e}, {largest / deviation:.1e}; {ids[worst]}"
            if largest
            else "0"
        )
    print(f"| {' | '.join(cells)} |", flush=True)


def tell_borderline(
    networks: Sequence[Predictor], crystals: Sequence[Crystal], ids: Sequence[str]
) -> None:
    """Print the crystals whose graph changes in any of several draws of the noise, and how much they change."""
    rng = np.random.default_rng(1)
    before, own = predict(networks, crystals)
    different, change = np.zeros(own.shape, dtype=int), np.zeros(before.shape)
    for _ in range(DRAWS):
        after, others = predict(
            networks, [SAME_CRYSTAL["noise of 1e-6 Å"](crystal, rng) for crystal in crystals]
        )
        different += own != others
        change = np.maximum(change, np.abs(after - before))
    rows = np.flatnonzero(different.any(axis=1))
    print(
        f"\nGraphs that change in any of {DRAWS} draws of the noise: {len(rows)} of {len(crystals)}"
    )
    print(f"\n| crystal | draws with other nodes | edges | neighbors | {' | '.join(OPERATORS)} |")
    print("| --- " * 7 + "|")
    for row in rows:
        print(
            f"| {ids[row]} | {' | '.join([*map(str, different[row]), *(f'{c:.1e} eV' for c in change[:, row])])} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every 20th crystal, 3 epochs")
    options = parser.parse_args()
    start = time.perf_counter()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    records = [record for name in SETS for record in read_records(DATA / f"{name}.json.gz")]
    records = records[:: 20 if options.quick else 1]
    ids, crystals = (
        [record.id for record in records],
        [to_crystal(record.source) for record in records],
    )
    epochs = 3 if options.quick else 20
    networks = [trained(operator, epochs) for operator in OPERATORS]
    before, own = predict(networks, crystals)
    spread = before.std(axis=1)
    told = ", ".join(
        f"{operator} {deviation:.2f} eV"
        for operator, deviation in zip(OPERATORS, spread, strict=True)
    )
    print(
        f"{len(crystals)} crystals, {epochs} epochs on band gaps; standard deviations of the predictions: {told}\n"
    )
    print(
        "Largest change in eV, 99.9 % are below in eV, largest in standard deviations; the crystal where it is\n"
    )
    print(f"| description | crystals | graphs changed | {' | '.join(OPERATORS)} |\n{'| --- ' * 6}|")
    rng = np.random.default_rng(0)
    for name, transform in SAME_CRYSTAL.items():
        others = {
            row: other
            for row, crystal in enumerate(crystals)
            if (other := transform(crystal, rng)) is not None
        }
        rows = list(others)
        after, theirs = predict(networks, list(others.values()))
        n_changed = (own[rows] != theirs).any(axis=1).sum()
        tell(name, np.abs(after - before[:, rows]), spread, [ids[row] for row in rows], n_changed)
    tell(
        "compress=false",
        np.abs(predict(networks, crystals, compress=False)[0] - before),
        spread,
        ids,
    )
    alone = predict(networks, crystals[::5], batch_size=1)[0]
    tell("one by one", np.abs(alone - before[:, ::5]), spread, ids[::5])
    tell_borderline(networks, crystals, ids)
    print(f"\n{time.perf_counter() - start:.0f} s, one thread")


if __name__ == "__main__":
    main()
