"""Keys and options of earlier versions that no longer exist."""

from typing import Any, NamedTuple


class Removed(NamedTuple):
    """A key that was removed.

    Attributes:
        default: Its former default, with which a run computes what it computes today.
        reason: Why it was removed, and what to use instead.
    """

    default: Any
    reason: str


REMOVED_KEYS = {
    "graph.vectors": Removed(False, "it served augment=coordinate_noise only, which was removed"),
    "trainer.sync_norm": Removed(True, "batch norms are always synchronized over all ranks"),
    "augment.coordinate_noise": Removed(
        None, "it showed no measured gain; use augment=distance_noise"
    ),
}

# Names of classes in configurations and checkpoints of earlier versions.
RENAMED_TARGETS = {
    "csgcnn.nn.models.CrystalGraphNetwork": "csgcnn.nn.network.CrystalGraphNetwork",
    "csgcnn.training.losses.Weighted": "csgcnn.training.losses.WeightedRegressionLoss",
}

# Values of keys that are absent from checkpoints made before the key existed.
FORMER_DEFAULTS = {"graph": {"global_features": "none"}}
