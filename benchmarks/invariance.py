"""Measure how predictions depend on the description of a crystal, for each model."""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import INCLUDED, print_header, print_row, records, train
from numpy.typing import NDArray

from csgcnn import load
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import CrystalGraphs, connect
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.store import GraphStore
from csgcnn.evaluation.inference import predict_rows
from csgcnn.predictor import Predictor

MODELS = ("csgcnn", "csgann", "csginn")
# Draws of the noise, which find crystals whose distances lie on a tolerance.
DRAWS = 20
NOISE = "noise of 1e-6 Å"
CHUNK = 64

Array = NDArray[np.float64]


def trained(model: str, epochs: int) -> Predictor:
    """Return a network trained on the band gaps of the dielectric set, in eV."""
    keys = [f"trainer.max_epochs={epochs}", "trainer.device=cpu", "trainer.threads=1"]
    with tempfile.TemporaryDirectory() as folder:
        return load(train(Path(folder, "run"), f"model={model}", *keys))


def sizes(graphs: CrystalGraphs) -> Array:
    """Return nodes, edges and neighbors per site of each crystal: [n_graphs, 3]."""
    graph = np.repeat(np.arange(len(graphs)), graphs.n_edges)
    center = graphs.edge_index[1] + (np.cumsum(graphs.n_atoms) - graphs.n_atoms)[graph]
    weight = graphs.edge_multiplicity * graphs.atom_multiplicity[center]
    count = np.bincount(graph, weight, minlength=len(graphs))
    return np.stack([graphs.n_atoms, graphs.n_edges, (count / graphs.n_sites).round(6)], axis=1)


@dataclass
class Comparison:
    """Crystals, their predictions by several networks, and the sizes of their graphs."""

    networks: list[Predictor]
    ids: list[str]
    crystals: list[Crystal]

    def __post_init__(self) -> None:
        self.before, self.sizes = self.predict(self.crystals)
        self.std = self.before.std(axis=1)

    def predict(
        self, crystals: Sequence[Crystal], compress: bool = True, batch_size: int = CHUNK
    ) -> tuple[Array, Array]:
        """Predict crystals.

        Args:
            crystals: Crystals.
            compress: Whether to compress their graphs.
            batch_size: Crystals per forward pass.

        Returns:
            Predictions [n_networks, n_crystals] and sizes of the graphs [n_crystals, 3].
        """
        settings = replace(self.networks[0].graph, compress=compress)
        predictions, graph_sizes = [], []
        for i in range(0, len(crystals), CHUNK):
            graphs = connect(crystals[i : i + CHUNK], settings)
            store = GraphStore(graphs, [str(row) for row in range(len(graphs))], {}, settings)
            rows = torch.arange(len(store))
            predictions.append(
                [
                    predict_rows(each.network, store, rows, batch_size)[:, 0].double().numpy()
                    for each in self.networks
                ]
            )
            graph_sizes.append(sizes(graphs))
        return np.concatenate(predictions, axis=1), np.concatenate(graph_sizes)

    def print_changes(
        self, name: str, after: Array, rows: Sequence[int], n_changed: int | str = ""
    ) -> None:
        """Print a row of the table; `after`: predictions of the rows [n_networks, n_rows]."""
        cells = [name, str(len(rows)), str(n_changed)]
        changes = np.abs(after - self.before[:, rows])
        for change, std in zip(changes, self.std, strict=True):
            worst = int(change.argmax())
            values = (change[worst], np.quantile(change, 0.999), change[worst] / std)
            text = f"{', '.join(f'{value:.1e}' for value in values)}; {self.ids[rows[worst]]}"
            cells.append(text if change[worst] else "0")
        print_row(*cells)

    def print_transforms(self) -> None:
        """Print the changes under each transformation of the crystals."""
        rng = np.random.default_rng(0)
        for name, transform in SAME_CRYSTAL.items():
            described = {
                row: other
                for row, crystal in enumerate(self.crystals)
                if (other := transform(crystal, rng)) is not None
            }
            rows = [*described]
            after, other_sizes = self.predict([*described.values()])
            n_changed = (self.sizes[rows] != other_sizes).any(axis=1).sum()
            self.print_changes(name, after, rows, n_changed)
        every = range(len(self.crystals))
        self.print_changes("compress=false", self.predict(self.crystals, compress=False)[0], every)
        alone = self.predict(self.crystals[::5], batch_size=1)[0]
        self.print_changes("one crystal per batch", alone, every[::5])

    def print_borderline(self) -> None:
        """Print the crystals whose graph changes in any of several draws of the noise."""
        rng = np.random.default_rng(1)
        n_different = np.zeros(self.sizes.shape, dtype=int)
        change = np.zeros(self.before.shape)
        for _ in range(DRAWS):
            shaken = [SAME_CRYSTAL[NOISE](crystal, rng) for crystal in self.crystals]
            after, other_sizes = self.predict([each for each in shaken if each is not None])
            n_different += self.sizes != other_sizes
            change = np.maximum(change, np.abs(after - self.before))
        rows = np.flatnonzero(n_different.any(axis=1))
        print(f"\nGraphs that change in any of {DRAWS} draws of the noise: {len(rows)}")
        print_header("crystal", "draws with other nodes", "edges", "neighbors", *MODELS)
        for row in rows:
            print_row(self.ids[row], *n_different[row], *(f"{c:.1e} eV" for c in change[:, row]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every 20th crystal, 3 epochs")
    options = parser.parse_args()
    start = time.perf_counter()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    some = [record for name in INCLUDED for record in records(name)]
    some = some[:: 20 if options.quick else 1]
    epochs = 3 if options.quick else 20
    comparison = Comparison(
        [trained(model, epochs) for model in MODELS],
        [record.id for record in some],
        [to_crystal(record.source) for record in some],
    )
    stds = zip(MODELS, comparison.std, strict=True)
    text = ", ".join(f"{model} {std:.2f} eV" for model, std in stds)
    print(f"{len(some)} crystals, {epochs} epochs; standard deviations of the predictions: {text}")
    print(
        "Changes: largest in eV, 99.9th percentile in eV, largest in standard deviations; crystal"
    )
    print_header("description", "crystals", "graphs changed", *MODELS)
    comparison.print_transforms()
    comparison.print_borderline()
    print(f"\n{time.perf_counter() - start:.0f} s, one thread")


if __name__ == "__main__":
    main()
