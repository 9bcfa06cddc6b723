"""`csgcnn import-cgcnn`: convert a checkpoint of the original CGCNN.

Source: Xie & Grossman, Phys. Rev. Lett. 120, 145301 (2018), and txie-93/cgcnn.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csgcnn import __version__
from csgcnn.commands.outputs import check_output
from csgcnn.config.instantiate import instantiate
from csgcnn.config.validate import check_values
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER, atom_init
from csgcnn.data.targets import Target, with_unit
from csgcnn.errors import ConfigError, UserError
from csgcnn.nn.build import outline_network
from csgcnn.runs.checkpoint import save_checkpoint
from csgcnn.runs.legacy_archives import load_legacy

KIND = "checkpoint of the original CGCNN"
# Tensors whose sizes give the sizes of the network, with their numbers of dimensions.
N_DIMS = {
    "embedding.weight": 2,
    "convs.0.fc_full.weight": 2,
    "conv_to_fc.weight": 2,
    "fc_out.bias": 1,
}
# Targets of the published files by the last entry of their `data_options`.
PUBLISHED = {
    "formation_energy_per_atom": Target("formation_energy_per_atom", "eV/atom"),
    "final_energy_per_atom": Target("final_energy_per_atom", "eV/atom"),
    "band_gap": Target("band_gap", "eV"),
    "efermi": Target("efermi", "eV"),
    "bulk_moduli": Target("log10_k_vrh", "log10(GPa)"),
    "shear_moduli": Target("log10_g_vrh", "log10(GPa)"),
    "poisson_ratio": Target("poisson_ratio"),
    "metal_semi": Target("is_metal", derived="band_gap == 0"),
}


def import_cgcnn(
    path: Path,
    output: Path,
    name: str | None = None,
    unit: str | None = None,
    overwrite: bool = False,
) -> str:
    """Convert a checkpoint of the original CGCNN.

    Args:
        path: The original checkpoint.
        output: The checkpoint to write.
        name: Name of the target; None for that of the published file.
        unit: Unit of the target; None for that of the published file.
        overwrite: Whether to replace an existing file.

    Returns:
        A line about the result, for the user.

    Raises:
        UserError: The file is not such a checkpoint.
        ConfigError: Neither the file nor the arguments say what it predicts, or `output` exists.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    check_output(output, [], [path], overwrite)
    content = load_legacy(path, KIND)
    try:
        weights = _weights(content)
        config = _config(weights)
        target = _target(content, len(weights["fc_out.bias"]) > 1, name, unit, path)
        state = _state(weights, config, target.n_outputs) | _statistics(content)
        if bad := [key for key, tensor in state.items() if not tensor.isfinite().all()]:
            raise ValueError(f"{bad[0]} is not finite: the training had diverged")
    except ValueError as error:
        raise UserError(f"{path} is not a {KIND}: {error}") from error
    saved = {
        "csgcnn": __version__,
        "config": config,
        "targets": [asdict(target)],
        # the file does not say which elements it was trained on
        "elements": list(range(1, MAX_ATOMIC_NUMBER + 1)),
        "state_dict": state,
    }
    save_checkpoint(saved, output)
    return (
        f"{output} predicts {with_unit(target.name, target.unit)} as {path.name} does. Its "
        "training elements are not known; predictions do not warn of other elements."
    )


def _weights(content: Any) -> dict[Any, Any]:
    """Return the tensors of the network without the counters of batches."""
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ValueError("it has no state_dict")
    for key, n_dims in N_DIMS.items():
        if not isinstance(state.get(key), Tensor) or state[key].dim() != n_dims:
            raise ValueError(f"its state_dict has no {key}")
    hidden, n_features = state["embedding.weight"].shape
    n_gaussians = state["convs.0.fc_full.weight"].shape[1] - 2 * hidden
    if (n_features, n_gaussians) != (92, 41):
        raise ValueError(
            f"it takes {n_features} atom features and {n_gaussians} Gaussians; expected the 92 "
            "features of atom_init.json and 41 Gaussians from 0 to 8 Å"
        )
    return {k: v for k, v in state.items() if not str(k).endswith(".num_batches_tracked")}


def _config(weights: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the configuration of the original network; its weights give the sizes.

    Cutoff, number of neighbors and Gaussians are those of the original data loader, as no file
    contains them.
    """
    graph = {"cutoff": 8.0, "max_neighbors": 12, "shells": "truncate", "global_features": []}
    table = {"_target_": "csgcnn.crystals.elements.atom_init"}
    config = {
        "graph": graph,
        "model": {
            "_target_": "csgcnn.nn.network.CrystalGraphNetwork",
            "convolution": {
                "_target_": "csgcnn.nn.convolutions.GatedConvolution",
                "_partial_": True,
            },
            "hidden": len(weights["embedding.weight"]),
            "n_convolutions": sum(str(key).endswith(".fc_full.weight") for key in weights),
            "message_layers": 1,
            "norm": "batch",
            "activation": "softplus",
            "dropout": 0.0,
            "residual": "post",
            "head_hidden": len(weights["conv_to_fc.weight"]),
            "n_head_layers": 1 + sum(str(key).startswith("fcs.") for key in weights) // 2,
        },
        "edge_calculator": {
            "_target_": "csgcnn.nn.edge_calculators.GaussianDistance",
            **{"cutoff": graph["cutoff"], "step": 0.2, "learnable": False},
        },
        "node_features": {
            "atom_init": {
                "_target_": "csgcnn.nn.node_features.ElementTable",
                "table": table,
                "trainable": False,
            }
        },
        "pooling": {"_target_": "csgcnn.nn.pooling.MeanPooling", "_partial_": True},
    }
    try:
        check_values(config)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return config


def _target(
    content: Mapping[str, Any], is_class: bool, name: str | None, unit: str | None, path: Path
) -> Target:
    arguments = content.get("args")
    options = arguments.get("data_options") if isinstance(arguments, dict) else None
    option = options[-1] if isinstance(options, list) and options else None
    known = PUBLISHED.get(option) if isinstance(option, str) else None
    if known is None and (not name or (unit is None and not is_class)):
        needed = "name=…" if is_class else "name=… and unit=… (unit= if it has none)"
        raise ConfigError(f"{path} does not say what it predicts; add {needed}")
    target = known or Target("")
    task, classes = ("classification", ("0", "1")) if is_class else ("regression", ())
    unit = target.unit if unit is None else unit
    return replace(target, name=name or target.name, unit=unit, task=task, classes=classes)


def _statistics(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return mean and standard deviation of the training targets, as the scaler stores them."""
    stored = content.get("normalizer")
    found = {key: stored.get(key) if isinstance(stored, dict) else None for key in ("mean", "std")}
    if not all(
        isinstance(value, float | Tensor) and torch.as_tensor(value).numel() == 1
        for value in found.values()
    ):
        raise ValueError("its normalizer has no mean and std")
    return {
        f"scaler.{key}": torch.as_tensor(value).float().reshape(1) for key, value in found.items()
    }


def _state(
    weights: Mapping[Any, Any], config: Mapping[str, Any], n_outputs: int
) -> dict[str, Tensor]:
    """Return the weights by the names of this package, with the constant tables of the network."""
    layers = _layer_names(config["model"])
    expected = outline_network(config, [n_outputs]).state_dict()
    state, used = dict[str, Tensor](), set[str]()
    for name, tensor in expected.items():
        layer, _, kind = name.rpartition(".")
        if layer not in layers:
            continue
        original = f"{layers[layer]}.{kind}"
        found = weights.get(original, torch.empty(0))
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            raise ValueError(f"its {original} is not {list(tensor.shape)}")
        state[name] = found.float().contiguous()
        used.add(original)
    if unknown := weights.keys() - used:
        raise ValueError(f"the original has no {min(map(ascii, unknown)):.60}")
    return state | {
        "node_features.parts.atom_init.table": torch.tensor(atom_init()),
        "edge_calculator.center": instantiate(config["edge_calculator"]).center,
    }


def _layer_names(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the original layers by those of this package."""
    layers = {"embedding": "embedding", "head.layers.0": "conv_to_fc", "head.out": "fc_out"}
    parts = {"convolution.linear": "fc_full", "convolution.message_norm": "bn1", "norm": "bn2"}
    for i in range(model["n_convolutions"]):
        layers |= {f"blocks.{i}.{name}": f"convs.{i}.{part}" for name, part in parts.items()}
    return layers | {f"head.layers.{i}": f"fcs.{i - 1}" for i in range(1, model["n_head_layers"])}
