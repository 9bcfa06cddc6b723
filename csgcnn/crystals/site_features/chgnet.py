"""CHGNet 0.3.0, a potential with charges from magnetic moments, of 94 elements."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.site_features.potential import Array, Potential


class CHGNet(Potential):
    """The features of the atoms behind each of the four convolutions of CHGNet 0.3.0.

    Deng et al., Nature Machine Intelligence 5, 1031 (2023). Trained on energies, forces, stresses
    and magnetic moments of Materials Project structures (MPtrj); BSD license. Its cutoff is 6 Å.
    """

    name = "chgnet"
    package = "chgnet"
    install = "csgcnn[chgnet]"
    weights = "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"
    weights_hash = "d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1"
    n_layers, n_channels = 4, 64
    trained_on = (
        "energies, forces, stresses and magnetic moments of Materials Project structures (MPtrj)"
    )
    elements = frozenset(range(1, 95))

    def compute(self, crystals: Sequence[Crystal], device: str) -> Array:
        """Compute the features [n_sites, n_layers, n_channels] of all sites of some crystals.

        Args:
            crystals: The crystals.
            device: Device that computes.
        """
        import torch

        network = _network(device)
        graphs = [network.graph_converter(_structure(crystal)).to(device) for crystal in crystals]
        found: list[torch.Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output))
            for layer in network.atom_conv_layers
        ]
        try:
            with torch.no_grad():
                network(graphs, task="e")
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found, dim=1).cpu().numpy()


def _structure(crystal: Crystal) -> Any:
    from pymatgen.core import Structure

    species = [SYMBOLS[z] for z in crystal.atomic_number]
    return Structure(crystal.lattice, species, crystal.frac_coords)


@cache
def _network(device: str) -> Any:
    from chgnet.model import CHGNet as Network

    network = Network.load(model_name="0.3.0", use_device=device, verbose=False).eval()
    # atoms without neighbors are reported with the graphs
    network.graph_converter.set_isolated_atom_response("ignore")
    return network
