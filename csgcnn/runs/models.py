"""Rebuild trained networks from checkpoints, one or an ensemble of several."""

import glob
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.targets import allowed_plugins, plugins_in
from csgcnn.config.validate import check_values
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.site_features.potential import (
    PotentialError,
    n_site_features,
    pinned,
)
from csgcnn.data.batch import GraphBatch
from csgcnn.data.domain import Domain
from csgcnn.data.embeddings import Embeddings
from csgcnn.data.inputs import Input, reference_inputs
from csgcnn.data.targets import Target, have_std, output_sizes
from csgcnn.data.training_set import TrainingSet
from csgcnn.errors import ConfigError, UserError, one_line
from csgcnn.evaluation.conformal import ConformalScores
from csgcnn.hardware import find_device
from csgcnn.nn.build import outline_network
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.runs import pretrained  # noqa: F401 (registers its potential)
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.locate import find_checkpoint

log = logging.getLogger(__name__)

# Errors of building a network that an untrusted configuration describes.
_MISFITS = (
    ArithmeticError,
    AttributeError,
    ConfigError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained network with all that prediction needs.

    Attributes:
        network: The network, on the CPU.
        graph: Settings of the graphs that it reads.
        targets: What it predicts.
        domain: What occurred in its training set.
        training_set: The training crystals.
        split: Ids of the train, val and test rows, if they are known.
        is_laplace: Whether its standard deviations are those of Laplace distributions.
        trained_on: Type of the device that trained it, cpu or cuda, if it is known.
        embeddings: Embeddings of training crystals by the network, or by the first member of an
            ensemble, if they are stored.
        uncalibrated: Names of the numbers whose standard deviations are not calibrated.
        inputs: What it reads beside the structure, without the column of `dataset.delta`.
        conformal: Scores of calibration rows, if they are stored.
    """

    network: CrystalGraphNetwork | Ensemble
    graph: GraphSettings
    targets: list[Target]
    domain: Domain
    training_set: TrainingSet
    split: dict[str, list[str]] | None = None
    is_laplace: bool = False
    trained_on: str = ""
    embeddings: Embeddings | None = None
    uncalibrated: Sequence[str] = ()
    inputs: Sequence[Input] = ()
    conformal: ConformalScores | None = None


def load_model(paths: Sequence[Path], device: torch.device | str = "cpu") -> TrainedModel:
    """Rebuild a model from its checkpoint alone, or an ensemble from several.

    Args:
        paths: Checkpoints, which are untrusted.
        device: Device that will compute. A note is logged if that is the CPU and a GPU trained.

    Raises:
        UserError: A file is not a usable checkpoint, or their targets or graphs differ.
        ConfigError: A checkpoint needs a plugin that is not allowed, or there is no such device.
    """
    is_cpu = find_device(device).type == "cpu"
    members = [_load_one(path) for path in paths]
    if is_cpu and any(member.trained_on == "cuda" for member in members):
        log.info("the model was trained on a GPU; predictions on the CPU differ by rounding")
    return members[0] if len(members) == 1 else _join(members, paths)


def checkpoint_paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files that paths and patterns such as `runs/*/checkpoints/best.ckpt` name.

    Args:
        given: One or several paths or patterns, of checkpoints, runs or sweeps.

    Raises:
        UserError: No file matches a pattern, nothing is given, or a folder holds no checkpoint.
    """
    found: list[Path] = []
    for item in [given] if isinstance(given, str | Path) else given:
        path = Path(item).expanduser()
        matches = [path]
        if glob.has_magic(str(path)) and not path.exists():
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not matches:
            raise UserError(f"ckpt={item}: no file matches it")
        found += [find_checkpoint(match, "ckpt") for match in matches]
    if not found:
        raise UserError("ckpt=[]: expected a checkpoint, or several")
    return found


def differing_settings(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return the keys whose values differ, with both values.

    Args:
        one: Settings.
        other: Settings with the same keys.
    """
    return [(key, one[key], other[key]) for key in one if one[key] != other[key]]


def _load_one(path: Path) -> TrainedModel:
    content = load_checkpoint(path)
    config = content["config"]
    if missing := plugins_in(config) - allowed_plugins():
        names = ", ".join(sorted(missing))
        raise ConfigError(
            f"{path} needs code of {names}, which is not part of csgcnn; if you trust it, add "
            f"plugins=[{names}]"
        )
    try:
        check_values(config)
        targets = [Target(**target) for target in content["targets"]]
        graph = GraphSettings(**config["graph"])
        pinned(graph.site_features)
        inputs = list(map(Input.from_plain, content.get("inputs", ())))
        network = _network(config, targets, inputs, content["state_dict"])
        width = _check_forward(network, graph, len(inputs) + len(reference_inputs(targets)))
        embeddings = Embeddings.from_plain(content.get("embeddings"))
        if embeddings and len(embeddings.mean) != width:
            raise ValueError(f"its embeddings have {len(embeddings.mean)} features, not {width}")
        n_networks = config.get("ensemble", 1)
        scores = ConformalScores.from_plain(content.get("conformal"), targets, n_networks)
    except PotentialError as error:
        raise UserError(f"{path}: {error}") from error
    except _MISFITS as error:
        raise UserError(
            f"{path}: its weights do not fit its own configuration: {one_line(error)}"
        ) from error
    domain = Domain.from_plain(content["elements"], content.get("domain"))
    split = content.get("split")
    training_set = TrainingSet.from_plain(split and split.get("train"), content.get("fingerprints"))
    is_laplace = config.get("loss", {}).get("distribution") == "laplace"
    return TrainedModel(
        network,
        graph,
        targets,
        domain,
        training_set,
        split,
        is_laplace,
        trained_on=content.get("device", ""),
        embeddings=embeddings,
        uncalibrated=content.get("uncalibrated", ()) if network.has_std else (),
        inputs=inputs,
        conformal=scores,
    )


def _network(
    config: Mapping[str, Any],
    targets: Sequence[Target],
    inputs: Sequence[Input],
    state: Mapping[str, Tensor],
) -> CrystalGraphNetwork | Ensemble:
    if not targets:
        raise ValueError("it has no targets")
    if bad := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{bad[0]} is not finite: the training had diverged")
    sizes = [len(one.categories) for one in inputs]
    n_members = config.get("ensemble", 1)
    members = [outline_network(config, output_sizes(targets), sizes) for _ in range(n_members)]
    network = members[0] if len(members) == 1 else Ensemble(members, have_std(targets))
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    weights = {
        name: tensor.to(dtypes.get(name, tensor.dtype)).contiguous()
        for name, tensor in state.items()
    }
    network.load_state_dict(weights, assign=True)
    return network


@torch.inference_mode()
def _check_forward(
    network: CrystalGraphNetwork | Ensemble, settings: GraphSettings, n_inputs: int
) -> int:
    """Predict one atom with one neighbor: an error here would occur for every crystal.

    Returns:
        The number of features of an embedding.
    """
    one, first = torch.ones(1), torch.zeros(1, dtype=torch.long)
    sites = torch.zeros(1, n_site_features(settings), dtype=torch.float16)
    descriptors = torch.zeros(1, len(descriptor_names(settings.global_features)))
    edge_index = first.expand(2, 1)
    inputs = torch.zeros(1, n_inputs) if n_inputs else None
    batch = GraphBatch(first + 1, one, sites, first, edge_index, one, one, descriptors, 1, inputs)
    pooled = network.eval().pooled(batch)
    network.with_std(batch, pooled)
    return pooled.shape[1]


def _join(members: Sequence[TrainedModel], paths: Sequence[Path]) -> TrainedModel:
    first = members[0]
    for member, path in zip(members, paths, strict=True):
        if difference := _difference(first, member):
            raise UserError(f"{paths[0]} and {path} are no ensemble: they differ in {difference}")
    networks = [network for member in members for network in _networks(member)]
    domain = Domain.shared([member.domain for member in members])
    training_set = TrainingSet.union([member.training_set for member in members])
    split = _common_split(members)
    return TrainedModel(
        Ensemble(networks, have_std(first.targets)),
        first.graph,
        first.targets,
        domain,
        training_set,
        split,
        all(member.is_laplace for member in members),
        embeddings=first.embeddings,
        uncalibrated=[t.name for t in first.targets if not (t.classes or t.grid)],
        inputs=first.inputs,
    )


def _networks(model: TrainedModel) -> list[CrystalGraphNetwork]:
    """Return the members of an ensemble, without its scale of the standard deviations."""
    network = model.network
    members = network.members if isinstance(network, Ensemble) else [network]
    return [cast(CrystalGraphNetwork, member) for member in members]


def _difference(one: TrainedModel, other: TrainedModel) -> str:
    """Describe how the targets or the graphs of two models differ."""
    names = [[target.name for target in model.targets] for model in (one, other)]
    if names[0] != names[1]:
        return f"targets ({' and '.join(', '.join(of_model) for of_model in names)})"
    if list(one.inputs) != list(other.inputs):
        return "inputs or their categories"
    settings = [
        {f"graph.{key}": value for key, value in asdict(model.graph).items()}
        | {
            f"{target.name}.{key}": value
            for target in model.targets
            for key, value in asdict(target).items()
        }
        for model in (one, other)
    ]
    return ", ".join(f"{key} ({a} and {b})" for key, a, b in differing_settings(*settings))


def _common_split(members: Sequence[TrainedModel]) -> dict[str, list[str]] | None:
    """Return the union of the train rows, and the rows that are in another part for all."""
    splits = [member.split for member in members if member.split]
    if len(splits) < len(members):
        return None
    train = dict.fromkeys(id_ for split in splits for id_ in split["train"])
    others = {
        part: set.intersection(*(set(split.get(part, ())) for split in splits))
        for part in splits[0]
    }
    common = {part: [id_ for id_ in splits[0][part] if id_ in ids] for part, ids in others.items()}
    return {**common, "train": [*train]}
