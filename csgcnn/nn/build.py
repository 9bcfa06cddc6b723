"""Build the network that a configuration describes."""

from collections.abc import Mapping, Sequence
from typing import Any

from csgcnn.config.instantiate import instantiate
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.site_features.potential import site_columns, site_widths
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.nn.references import build_reference


def build_network(
    config: Mapping[str, Any], n_outputs: Sequence[int], input_sizes: Sequence[int] = ()
) -> CrystalGraphNetwork:
    """Build the network that a configuration describes.

    Args:
        config: A configuration with the groups model, node_features, edge_calculator, pooling and
            graph; head and dataset may be absent, as in those of earlier versions.
        n_outputs: Outputs per target: 1 for regression; for classification one per class.
        input_sizes: Number of categories of each input beside the structure; 0: a number.

    Returns:
        The network with random weights.

    Raises:
        ConfigError: An option is unknown or a value is wrong.
    """
    settings = GraphSettings(**config["graph"])
    columns = site_columns(settings)
    node_features = {
        name: instantiate(part, **_columns(part, columns))
        for name, part in config["node_features"].items()
    }
    parts = {name: instantiate(config[name]) for name in ("edge_calculator", "pooling")}
    parts["kernel_head"] = instantiate(config.get("head") or {})
    parts["site_widths"] = site_widths(settings)
    parts["reference"] = build_reference((config.get("dataset") or {}).get("delta"), n_outputs)
    parts["input_sizes"] = input_sizes
    return instantiate(
        config["model"],
        # models of plugins need not know what is not used
        **{name: part for name, part in parts.items() if part},
        node_features=node_features,
        n_outputs=n_outputs,
        n_global=len(descriptor_names(settings.global_features)),
    )


def _columns(part: Mapping[str, Any], columns: Mapping[str, slice]) -> dict[str, slice]:
    """Return the columns of the site features that a node feature reads, if it reads some."""
    return {"columns": columns[part["potential"]]} if "potential" in part else {}
