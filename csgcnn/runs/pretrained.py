"""The weights that come with the package, as a source of site features."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from csgcnn.config.locations import PRETRAINED
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.site_features.potential import Array, Potential, register_potential
from csgcnn.data.training_set import FINGERPRINT_KEYS

if TYPE_CHECKING:
    from torch import Tensor

    from csgcnn.data.store import GraphStore
    from csgcnn.runs.models import TrainedModel


@register_potential
class Pretrained(Potential):
    """The atom features behind each of the three blocks of the network of `init_from=pretrained`.

    It was trained on band gaps and formation energies, see data/README.md.
    """

    name = "pretrained"
    package = install = "csgcnn"
    package_version = "0.2.0"  # the first with these weights
    weights = PRETRAINED.name
    weights_hash = "1aff5e498e0ebaa8968880065ab94ba822ae555093e7b96fafa1d69133cc252d"
    n_layers, n_channels = 3, 64
    trained_on = "band gaps and formation energies, mostly of Materials Project structures"
    # those of the training rows: up to Pu, without Ar and Po to Ra
    elements = frozenset(range(1, 95)) - {18, 84, 85, 86, 87, 88}

    def weights_file(self) -> Path:
        """Return the checkpoint within the package."""
        return PRETRAINED

    def compute(self, crystals: Sequence[Crystal], device: str) -> Array:
        """Compute the features [n_sites, n_layers, n_channels] of all sites of some crystals.

        Args:
            crystals: The crystals.
            device: Device that computes.
        """
        import torch

        from csgcnn.data.store import GraphStore
        from csgcnn.nn.network import CrystalGraphNetwork

        model = _model(device)
        assert isinstance(model.network, CrystalGraphNetwork)
        settings = replace(model.graph, compress=False)
        store = GraphStore(connect(crystals, settings), [""] * len(crystals), {}, settings)
        with torch.no_grad():
            batch = store.to(torch.device(device)).batch(torch.arange(len(crystals)))
            features: Array = torch.stack(model.network.atom_features(batch), dim=1).cpu().numpy()
        return features


def n_trained_on(store: "GraphStore", rows: "Tensor") -> int:
    """Return how many crystals were among the training rows; 0 if that cannot be known.

    Args:
        store: Graphs of the crystals.
        rows: Rows [n_rows] int64, on the host.
    """
    model = _model("cpu")
    if any(getattr(store.settings, key) != getattr(model.graph, key) for key in FINGERPRINT_KEYS):
        return 0
    return sum(map(bool, model.training_set.contains(store, rows)))


@cache
def _model(device: str) -> "TrainedModel":
    from csgcnn.runs.models import load_model

    model = load_model([PRETRAINED], device)
    model.network.to(device).eval()
    return model
