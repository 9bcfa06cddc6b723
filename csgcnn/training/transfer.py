"""Beginning with the weights of another training: its body, and its head where that answers the same question."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from csgcnn.config.keys import described_key, section_keys
from csgcnn.config.settings.run import RunSettings
from csgcnn.config.tree import leaves, select
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.nn import network

HEAD = tuple(f"{name}." for name in network.HEAD)
BODY_KEYS = ("model", "node_features", "edge_calculator", "pooling", "graph.global_features")
SEVERAL = ("node_features",)  # of which one may have more than the other

Weights = Mapping[str, Tensor]


def weights_to_take(
    source: str,
    content: Mapping[str, Any],
    model: Weights,
    config: Mapping[str, Any],
    targets: Sequence[Target],
    parts: str,
) -> tuple[dict[str, Tensor], str]:
    """The weights of a checkpoint's `content` that the state `model` begins with, and a sentence that tells which.

    `parts`: all, or body alone. The head is taken only if its targets (names, units, classes) are those to be learned;
    with it goes the scaler, in whose units it answers. Of an ensemble the first member is taken.

    Raises:
        UserError: the bodies differ; the message names the keys of the configuration.
    """
    theirs = dict(_first_member(content["state_dict"]))
    body = [name for name in model if not name.startswith(HEAD)]
    differing = [
        f"{key}={there} (here {here})"
        for key, here, there in _differences(config, content["config"])
    ]
    differing += [
        name for name in body if name not in theirs or theirs[name].shape != model[name].shape
    ]
    if differing:
        more = ", …" * (len(differing) > 4)
        raise UserError(
            f"init_from={source}: its body is another one; it has {', '.join(differing[:4])}{more}"
        )
    head = [name for name in model if name.startswith(HEAD)]
    why = _why_a_new_head(content, model, theirs, head, targets, parts)
    taken = {name: theirs[name] for name in (body if why else [*body, *head])}
    n_weights = sum(tensor.numel() for tensor in taken.values())
    told = f"{len(taken)} of {len(model)} tensors, {n_weights:,} numbers: body"
    return taken, f"{told}; the head begins anew, {why}" if why else f"{told} and head"


def _first_member(state: Weights) -> Iterator[tuple[str, Tensor]]:
    prefix = "members.0." if any(name.startswith("members.0.") for name in state) else ""
    for name, tensor in state.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), tensor


def _why_a_new_head(
    content: Mapping[str, Any],
    model: Weights,
    theirs: Weights,
    head: Sequence[str],
    targets: Sequence[Target],
    parts: str,
) -> str:
    known = [Target(**target) for target in content["targets"]]
    if parts == "body":
        return "as init_parts=body says"
    if [_question(target) for target in known] != [_question(target) for target in targets]:
        asked, learned = (
            ", ".join(target.name for target in listed) for listed in (targets, known)
        )
        return (
            f"it learned {learned}, not {asked}"
            if asked != learned
            else "its units or classes differ"
        )
    if any(name not in theirs or theirs[name].shape != model[name].shape for name in head):
        return "it has other layers"
    return ""


def _question(target: Target) -> tuple[Any, ...]:
    return target.name, target.unit, target.task, tuple(target.classes)


def _differences(
    config: Mapping[str, Any], other: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Keys of what makes the body whose values differ: here, there."""
    for key in BODY_KEYS:
        here, there = (dict(leaves(select(tree, key), key)) for tree in (config, other))
        for name in sorted(
            here.keys() | there.keys() if key in SEVERAL else here.keys() & there.keys()
        ):
            if here.get(name) != there.get(name) and _is_of_body(name, config):
                yield name, here.get(name), there.get(name)


def _is_of_body(name: str, config: Mapping[str, Any]) -> bool:
    key = described_key(name, config, section_keys(RunSettings))
    return key is None or key.setting.body
