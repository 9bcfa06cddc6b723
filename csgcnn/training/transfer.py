"""Initial weights from another training: `init_from` and `init_parts`."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from csgcnn.config.keys import described_key
from csgcnn.config.locations import PRETRAINED
from csgcnn.config.paths import user_path
from csgcnn.config.tree import leaves, select
from csgcnn.data.inputs import Input
from csgcnn.data.targets import Target
from csgcnn.data.training_set import FINGERPRINT_KEYS, TrainingSet
from csgcnn.errors import UserError
from csgcnn.nn import network
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.locate import find_checkpoint
from csgcnn.training.trainer import Trainer

log = logging.getLogger(__name__)

HEAD = tuple(f"{name}." for name in network.HEAD)  # all other weights belong to the body
RANGE = ("global_features.low", "global_features.high")
BODY_SECTIONS = ("model", "node_features", "edge_calculator", "pooling", "graph.global_features")
MAX_SHOWN = 4  # differences in a message
# Fields of a target that say what a head predicts, and why the head is re-initialized.
MEANING = {
    "task": "tasks of the targets differ",
    "unit": "units of the targets differ",
    "classes": "classes of the targets differ",
    "transform": "dataset.transform differs",
    "delta": "dataset.delta differs",
    "grid": "dataset.grid differs",
}

Config = Mapping[str, Any]
Weights = Mapping[str, Tensor]


class Selection(NamedTuple):
    """Weights to start from.

    Attributes:
        weights: Weights by their names.
        new_head: Why the head is re-initialized; empty if its weights are taken.
    """

    weights: dict[str, Tensor]
    new_head: str


def initialize_from(trainer: Trainer, config: Config) -> None:
    """Load the weights of another training into the network, and log which.

    Args:
        trainer: A training that has not started.
        config: Its plain configuration; `init_from` names the checkpoint, or is `pretrained` for
            the weights that come with the package.

    Raises:
        UserError: There is no such file, or its network does not fit.
    """
    name = config["init_from"]
    path = PRETRAINED if name == "pretrained" else user_path(name)
    if not path.exists():
        raise UserError(f"init_from={path}: there is no such file")
    path = find_checkpoint(path, "init_from")
    content = load_checkpoint(path)
    # a kernel head is fitted to the new training rows
    state = {
        key: tensor
        for key, tensor in trainer.model.state_dict().items()
        if not key.startswith("kernel_head.")
    }
    try:
        weights, new_head = select_weights(
            content, state, config, trainer.targets, config["init_parts"], trainer.inputs
        )
    except UserError as error:
        raise UserError(f"init_from={name}: {error}") from error
    trainer.initialize({key: tensor.to(state[key]) for key, tensor in weights.items()})
    n_weights = sum(tensor.numel() for tensor in weights.values())
    summary = f"loaded {len(weights)} of {len(state)} tensors ({n_weights:,} weights)"
    summary += f"; the head is re-initialized: {new_head}" if new_head else ", body and head"
    parameters = list(trainer.model.parameters())
    n_frozen = sum(weight.numel() for weight in parameters if not weight.requires_grad)
    summary += f"; {n_frozen:,} weights are frozen" if n_frozen else ""
    log.info("init_from=%s: %s", name, summary)
    _warn_about_data(trainer, content, config)


def select_weights(
    content: Mapping[str, Any],
    state: Weights,
    config: Config,
    targets: Sequence[Target],
    parts: str = "all",
    inputs: Sequence[Input] = (),
) -> Selection:
    """Select the weights of a checkpoint that a network can start from.

    The head and the scaler are taken if the checkpoint predicts the same targets with the same
    `MEANING`. Of an ensemble the first member is taken. The range of the global features
    remains that of the new training rows.

    Args:
        content: Content of the checkpoint.
        state: State of the network.
        config: Plain configuration of the new training.
        targets: Its targets.
        parts: `all`, or `body` to re-initialize the head.
        inputs: Its inputs beside the structure.

    Raises:
        UserError: The architecture of the body differs.
    """
    other = dict(_first_member(content["state_dict"]))
    body = [name for name in state if not name.startswith((*HEAD, *RANGE))]
    differing = list(_different_keys(config, content["config"]))
    differing += [name for name in body if not _fits(name, other, state)]
    has_other_inputs = list(map(Input.from_plain, content.get("inputs", ()))) != list(inputs)
    if has_other_inputs and any(name.startswith("state.") for name in state):
        differing.insert(0, "dataset.inputs, or their categories, with model.inputs=state")
    if differing:
        more = f", and {len(differing) - MAX_SHOWN} more" * (len(differing) > MAX_SHOWN)
        raise UserError(
            f"incompatible architecture: {', '.join(differing[:MAX_SHOWN])}{more}; omit these "
            "keys, or give init_from=null"
        )
    head = [name for name in state if name.startswith(HEAD)]
    known = [Target(**target) for target in content["targets"]]
    new_head = "init_parts=body" if parts == "body" else _different_targets(known, targets)
    if not new_head and has_other_inputs:
        new_head = "dataset.inputs differ"
    if not new_head and not all(_fits(name, other, state) for name in head):
        new_head = "its layers differ"
    names = body if new_head else [*body, *head]
    return Selection({name: other[name] for name in names}, new_head)


def _first_member(state: Weights) -> Iterator[tuple[str, Tensor]]:
    prefix = "members.0." if any(name.startswith("members.0.") for name in state) else ""
    for name, tensor in state.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), tensor


def _fits(name: str, other: Weights, state: Weights) -> bool:
    return name in other and other[name].shape == state[name].shape


def _different_targets(known: Sequence[Target], targets: Sequence[Target]) -> str:
    """Return how targets differ, or an empty text."""
    before, now = (", ".join(target.name for target in each) for each in (known, targets))
    if before != now:
        return f"the checkpoint predicts {before}, not {now}"
    for field, reason in MEANING.items():
        # a checkpoint may hold lists
        there, here = ([[*getattr(target, field)] for target in each] for each in (known, targets))
        if there != here:
            return reason
    return ""


def _different_keys(config: Config, other: Config) -> Iterator[str]:
    """Yield the keys of the body with another value: "model.hidden=16 (here 8)"."""
    for section in BODY_SECTIONS:
        here, there = (dict(leaves(select(tree, section), section)) for tree in (config, other))
        # a key that only one of them has is a newer one with its default, except for a part
        names = here.keys() | there if section == "node_features" else here.keys() & there
        for name in sorted(names):
            if here.get(name) != there.get(name) and _changes_body(name, config):
                yield f"{name}={there.get(name)} (here {here.get(name)})"


def _changes_body(name: str, config: Config) -> bool:
    key = described_key(name, config)
    return key is None or key.setting.body


def _warn_about_data(trainer: Trainer, content: Mapping[str, Any], config: Config) -> None:
    # site features are those of the node features, which are compared elsewhere
    differing = {
        key: value
        for key, value in content["config"]["graph"].items()
        if value != config["graph"].get(key) and not key.startswith("site_")
    }
    is_comparable = differing.keys().isdisjoint(FINGERPRINT_KEYS)
    fingerprints = content.get("fingerprints") if is_comparable else None
    known = TrainingSet.from_plain(content.get("split", {}).get("train"), fingerprints)
    if n_known := sum(map(bool, known.contains(trainer.store, trainer.split["test"]))):
        log.warning(
            "init_from: %d test crystals were in the training set of that model; "
            "the test errors are optimistic",
            n_known,
        )
    if differing:
        keys = ", ".join(f"graph.{key}={value}" for key, value in differing.items())
        log.warning("init_from: that model was trained on other graphs: %s", keys)
