"""Name the potentials of a configuration as they are installed."""

from omegaconf import DictConfig

from csgcnn.commands.prepare import plain
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.site_features.potential import pinned
from csgcnn.errors import ConfigError
from csgcnn.runs import pretrained  # noqa: F401 (registers its potential)


def pin_site_features(cfg: DictConfig) -> None:
    """Complete graph.site_features: with what node features need, and with installed versions.

    Args:
        cfg: Configuration with the section graph, which is changed.

    Raises:
        ConfigError: A potential is unknown or not installed, or pinned to another version.
    """
    graph = GraphSettings(**plain(cfg.graph))
    parts = plain(cfg.node_features).values() if "node_features" in cfg else ()
    needed = [part["potential"] for part in parts if "potential" in part]
    names = {name.partition(" ")[0]: name for name in (*needed, *graph.site_features)}
    if graph.site_layers and not names:
        raise ConfigError(
            f"graph.site_layers={list(graph.site_layers)} needs graph.site_features or a node "
            "feature of a potential, such as node_features=[atom_init,learned,sevennet]"
        )
    cfg.graph.site_features = pinned([*names.values()])
