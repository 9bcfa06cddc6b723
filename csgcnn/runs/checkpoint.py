"""Checkpoints: plain data that executes nothing when loaded."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from csgcnn.config.upgrade import removed_keys_in, upgrade_config
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER
from csgcnn.errors import UserError
from csgcnn.io import write_bytes
from csgcnn.runs.plain_data import load_plain

FORMAT = 3  # 2: `training` holds all that a training needs to go on; 3: weights may be those of an ensemble
REQUIRED = ("config", "targets", "elements", "state_dict")


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "training"}


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    config = content["config"]
    if not isinstance(config, dict) or not isinstance(config.get("model", {}), dict):
        return content
    model = {"predict_std": False} | config.get("model", {})
    return {**content, "config": ADDED | config | ({"model": model} if "model" in config else {})}


ADDED = {"ensemble": 1, "init_from": None, "init_parts": "all"}  # to the configuration, in format 3
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _from_1,
    2: _from_2,
}  # format n -> format n + 1


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint of dicts, lists, strings, numbers and tensors: whole or not at all."""
    buffer = io.BytesIO()  # a full disk is then told by the system, not by torch's writer
    torch.save({"format": FORMAT, **content}, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, upgraded to the present format; nothing in the file is executed.

    Raises:
        UserError: it is absent, truncated, no csgcnn checkpoint, more than plain data, or of a newer format.
    """
    content = load_plain(path)
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is not int or version < 1 or any(key not in content for key in REQUIRED):
        raise UserError(
            f"{path} is not a csgcnn checkpoint: it lacks one of format, {', '.join(REQUIRED)}"
        )
    if version > FORMAT:
        raise UserError(
            f"{path} has checkpoint format {version}, written by csgcnn {content.get('csgcnn', '?')!r:.40}; "
            f"this version reads up to {FORMAT}: please update csgcnn"
        )
    for old in range(version, FORMAT):
        content = UPGRADES[old](content)
    config = content["config"]
    if isinstance(config, dict):
        content = {**content, "config": upgrade_config(config), "removed": removed_keys_in(config)}
    content |= {
        key: _with_present_names(content[key])
        for key in ("state_dict", "training")
        if key in content
    }
    for key, (expected, accepts) in EXPECTED.items():
        if key in content and not accepts(content[key]):
            raise UserError(f"{path} is not a csgcnn checkpoint: its {key} is not {expected}")
    return content


def _with_present_names(tree: Any) -> Any:
    """Return weights by their names in this version, in dicts of any depth."""
    if not isinstance(tree, dict):
        return tree
    return {_present_name(name): _with_present_names(part) for name, part in tree.items()}


def _present_name(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    return re.sub(r"(^|\.)spread\.", r"\1std_head.", re.sub(r"\.centre$", ".center", name))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and TEXT.fullmatch(value) is not None


def _has_only_texts_and_numbers(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_has_only_texts_and_numbers, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_has_only_texts_and_numbers, value))
    return _is_text(value) if isinstance(value, str) else not isinstance(value, torch.Tensor)


def _is_target(target: Any) -> bool:
    if not isinstance(target, dict) or not isinstance(target.get("classes", ()), list | tuple):
        return False
    classes, optional = (
        target.get("classes", ()),
        (target.get("unit", ""), target.get("derived") or ""),
    )
    return (
        all(map(_is_text, (target.get("name"), *optional, *classes)))
        and target.get("task", "regression") in ("regression", "classification")
        and len(set(classes)) == len(classes) != 1
    )


TEXT = re.compile(
    r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]{0,1000}"
)  # what does not steer a terminal
EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "csgcnn": ("a version", _is_text),
    "config": (
        "a dict of texts and numbers",
        lambda config: isinstance(config, dict) and _has_only_texts_and_numbers(config),
    ),
    "targets": (
        "a list of targets",
        lambda targets: (
            isinstance(targets, list)
            and _has_only_texts_and_numbers(targets)
            and all(map(_is_target, targets))
        ),
    ),
    "elements": (
        f"a list of atomic numbers up to {MAX_ATOMIC_NUMBER}",
        lambda elements: (
            isinstance(elements, list)
            and all(type(z) is int and 1 <= z <= MAX_ATOMIC_NUMBER for z in elements)
        ),
    ),
    "split": (
        "lists of ids",
        lambda split: (
            isinstance(split, dict)
            and all(
                isinstance(ids, list) and all(isinstance(id_, str) for id_ in ids)
                for ids in split.values()
            )
        ),
    ),
    "state_dict": (
        "a dict of tensors",
        lambda state: (
            isinstance(state, dict)
            and all(
                isinstance(name, str) and isinstance(value, torch.Tensor)
                for name, value in state.items()
            )
        ),
    ),
}
