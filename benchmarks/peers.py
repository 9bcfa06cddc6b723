"""Measure the training rates of the packages that a user would take instead.

A peer that is not installed is left out: `pip install --no-deps cgcnn2 matgl alignn`, then `pip
install lightning boto3 huggingface_hub torchdata jarvis-tools pydantic-settings lmdb`.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import count
from typing import Any, cast

import torch
from common import TARGETS, data_file, print_header, print_row, records, structures
from pymatgen.core import Structure
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader as GraphLoader
from training import (
    MODELS,
    PLAIN,
    Step,
    adamw,
    pyg_graphs,
    pyg_training,
    rates,
    take_step,
    training,
)

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.data.cache import open_dataset
from csgcnn.hardware import select_device

# Crystals from which the peers draw their batches.
N_CRYSTALS = 640


def of_cgcnn(some: Sequence[Structure], targets: Tensor, batch_size: int) -> Step:
    """Return training steps of the original CGCNN, as the package cgcnn2 distributes it."""
    from cgcnn2.data import collate_pool
    from cgcnn2.model import CrystalGraphConvNet
    from original_models import original_inputs
    from torch.utils.data import DataLoader

    inputs = [original_inputs(structure)[:3] for structure in some]
    rows = [(one, y, i) for i, (one, y) in enumerate(zip(inputs, targets, strict=True))]
    loader = DataLoader(
        cast(Any, rows), batch_size, shuffle=True, drop_last=True, collate_fn=collate_pool
    )
    model = CrystalGraphConvNet(92, 41, 64, 3, 128, 1)
    return _steps(model, lambda batch: (model(*batch[0])[0], batch[1]), loader)


def of_megnet(some: Sequence[Structure], targets: Tensor, batch_size: int) -> Step:
    """Return training steps of MEGNet as published, of matgl."""
    from matgl.config import DEFAULT_ELEMENTS
    from matgl.ext.pymatgen import Structure2Graph
    from matgl.models import MEGNet

    converter, graphs = Structure2Graph(DEFAULT_ELEMENTS, 4.0), []
    for structure, y in zip(some, targets, strict=True):
        found, lattice, _ = converter.get_graph(structure)
        position = torch.tensor(structure.cart_coords, dtype=torch.float32)
        shift = found.pbc_offset.float() @ torch.as_tensor(lattice).float().view(3, 3)
        graph = Data(pos=position, edge_index=found.edge_index, pbc_offshift=shift, y=y[None])
        graph.node_type = found.node_type
        graphs.append(graph)
    loader = GraphLoader(graphs, batch_size, shuffle=True, drop_last=True)
    model, state = MEGNet(), torch.zeros(batch_size, 2)
    return _steps(model, lambda batch: (model(batch, state).view(-1, 1), batch.y), loader)


def of_alignn(some: Sequence[Structure], targets: Tensor, batch_size: int) -> Step:
    """Return training steps of ALIGNN as published: 4 + 4 layers, width 256, 12 neighbors."""
    from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure, ALIGNNAtomWisePureConfig
    from alignn.torch_graph_builder import batch_torch_graph_pairs, build_pure_torch_graph
    from jarvis.core.atoms import Atoms
    from torch.utils.data import DataLoader

    rows = []
    for structure, y in zip(some, targets, strict=True):
        elements = [site.specie.symbol for site in structure]
        atoms = Atoms(structure.lattice.matrix, structure.frac_coords, elements)
        rows.append((build_pure_torch_graph(atoms, 8.0, max_neighbors=12), y))

    def collated(batch: Sequence[Any]) -> tuple[Any, Tensor]:
        graph, line_graph = batch_torch_graph_pairs([pair for pair, _ in batch])
        return (graph, line_graph, torch.zeros(len(batch), 3, 3)), torch.stack(
            [y for _, y in batch]
        )

    loader = DataLoader(
        cast(Any, rows), batch_size, shuffle=True, drop_last=True, collate_fn=collated
    )
    config = ALIGNNAtomWisePureConfig(
        name="alignn_atomwise_pure",
        alignn_layers=4,
        gcn_layers=4,
        hidden_features=256,
        atom_input_features=92,
        calculate_gradient=False,
        use_penalty=False,
        energy_mult_natoms=False,
    )
    model = ALIGNNAtomWisePure(config)
    return _steps(model, lambda batch: (model(batch[0])["out"].view(-1, 1), batch[1]), loader)


# Package, label and steps of each peer.
PEERS: list[tuple[str, str, Callable[[Sequence[Structure], Tensor, int], Step]]] = [
    ("cgcnn2", "CGCNN, `cgcnn2`", of_cgcnn),
    ("matgl", "MEGNet, `matgl`", of_megnet),
    ("alignn", "ALIGNN, `alignn`", of_alignn),
]


def _steps(model: nn.Module, forward: Callable[[Any], tuple[Tensor, Tensor]], loader: Any) -> Step:
    """Return training steps of a peer."""
    model.train()
    optimizer = adamw(model)
    batches: Iterator[Any] = (batch for _ in count() for batch in loader)

    def step() -> None:
        take_step(*forward(next(batches)), optimizer)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--batch", type=int, default=64, help="crystals per step")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each")
    options = parser.parse_args()
    select_device("cpu", options.threads)
    torch.manual_seed(0)
    print(f"{options.threads} threads, torch {torch.__version__}, batch {options.batch}")
    print_header("data", "network", "crystals/s", "the default is faster by")
    for name, target in TARGETS.items():
        store, plain = (
            open_dataset(data_file(name), settings).store for settings in (GraphSettings(), PLAIN)
        )
        values = store.numbers([target]).float()
        some = structures(records(name, N_CRYSTALS))
        steps = {
            f"csgcnn, {label}": training(build(), store, values, options.batch)
            for label, build in MODELS.items()
        }
        graphs = pyg_graphs(plain, values, N_CRYSTALS)
        steps["CGConv of PyG, by hand"] = pyg_training(graphs, options.batch)
        for package, label, steps_of in PEERS:
            if find_spec(package):
                steps[label] = steps_of(some, values[:N_CRYSTALS], options.batch)
        found = rates(steps, options.batch, options.steps)
        for label, rate in found.items():
            print_row(name, label, f"{rate:.0f}/s", f"{found['csgcnn, default'] / rate:.1f}x")


if __name__ == "__main__":
    main()
