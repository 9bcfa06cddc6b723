"""Build the network that a configuration describes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

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


def outline_network(
    config: Mapping[str, Any], n_outputs: Sequence[int], input_sizes: Sequence[int] = ()
) -> CrystalGraphNetwork:
    """Build a network without the memory of its weights, as a configuration may ask for any size.

    `load_state_dict(weights, assign=True)` gives it weights.

    Args:
        config: Likewise of `build_network`.
        n_outputs: Likewise.
        input_sizes: Likewise.
    """
    with _Outline():
        return build_network(config, n_outputs, input_sizes)


class _Outline(TorchFunctionMode):
    """Allocate the matrices of layers on the device "meta", and initialize nothing.

    `torch.device("meta")` would do it for all tensors, but some functions that initialize tensors
    there import torch's compiler, which takes 2 s.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function, unless it initializes a tensor."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _columns(part: Mapping[str, Any], columns: Mapping[str, slice]) -> dict[str, slice]:
    """Return the columns of the site features that a node feature reads, if it reads some."""
    return {"columns": columns[part["potential"]]} if "potential" in part else {}
