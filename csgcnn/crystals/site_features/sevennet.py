"""SevenNet-l3i5, an equivariant potential of 89 elements."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.site_features.potential import Array, Potential
from csgcnn.crystals.site_values import atoms_with_values

_N_LAYERS, _N_CHANNELS = 5, 128


class SevenNet(Potential):
    """The scalar channels behind each of the five convolutions of SevenNet-l3i5.

    Park et al., J. Chem. Theory Comput. 20, 4857 (2024). Trained on energies, forces and stresses
    of Materials Project structures (MPtrj); MIT license. Its cutoff is 5 Å.
    """

    name = "sevennet"
    package = "sevenn"
    install = "csgcnn[sevennet]"
    weights = "pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth"
    weights_hash = "a7ff190d41efe5b8317a03d20a468e4036a1a3e64e0b14fdbab64ac3f4bfc09d"
    n_layers, n_channels = _N_LAYERS, _N_CHANNELS
    trained_on = "energies, forces and stresses of Materials Project structures (MPtrj)"
    # all up to Pu but Po to Ra
    elements = frozenset(range(1, 95)) - {84, 85, 86, 87, 88}

    def compute(self, crystals: Sequence[Crystal], device: str) -> Array:
        """Compute the features [n_sites, n_layers, n_channels] of all sites of some crystals.

        Args:
            crystals: The crystals.
            device: Device that computes.
        """
        import sevenn._keys as keys
        import torch

        network, layers = _network(self.weights_file(), device)
        graphs = [_graph(crystal, network.cutoff) for crystal in crystals]
        n_sites = [len(crystal.atomic_number) for crystal in crystals]
        first = np.cumsum([0, *n_sites[:-1]])
        edges = [graph[keys.EDGE_IDX] + start for graph, start in zip(graphs, first, strict=True)]
        vectors = np.concatenate([graph[keys.EDGE_VEC] for graph in graphs]).astype(np.float32)
        elements = np.concatenate([crystal.atomic_number for crystal in crystals]).astype(np.int64)
        data: Any = {
            keys.ATOMIC_NUMBERS: torch.from_numpy(elements).to(device),
            keys.EDGE_IDX: torch.from_numpy(np.concatenate(edges, axis=1)).to(device),
            keys.EDGE_VEC: torch.from_numpy(vectors).to(device),
        }
        data[keys.NODE_FEATURE] = network.z_to_onehot_tensor.to(device)[data[keys.ATOMIC_NUMBERS]]
        found = []
        with torch.no_grad():
            for name, layer in layers:
                data = layer(data)
                if name.endswith("_equivariant_gate"):
                    found.append(data[keys.NODE_FEATURE][:, :_N_CHANNELS])
        return torch.stack(found, dim=1).cpu().numpy()


def _graph(crystal: Crystal, cutoff: float) -> Any:
    from sevenn.train.dataload import unlabeled_atoms_to_graph

    return unlabeled_atoms_to_graph(atoms_with_values(crystal), cutoff)


@cache
def _network(weights: Path, device: str) -> tuple[Any, list[tuple[str, Any]]]:
    """Return the network and its layers up to the last convolution."""
    from sevenn.util import load_checkpoint

    network = load_checkpoint(weights).build_model().to(device).eval()
    layers = list(network.named_children())
    last = [name for name, _ in layers].index(f"{_N_LAYERS - 1}_equivariant_gate")
    return network, layers[: last + 1]
