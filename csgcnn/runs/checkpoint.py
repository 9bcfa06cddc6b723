"""Checkpoints: a trained model, or the state of a training, as plain data in one file.

Format 5 is a safetensors file: tensors by name, and the metadata entry `csgcnn` with everything
else as JSON (see `tensor_tree`). Readers ignore fields that they do not know, so that a new field
needs no new format. Format 4 lacked the range of the global features. Formats 1-3 were files of
`torch.save`. Reading a checkpoint executes nothing.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from csgcnn.config.grids import is_grid
from csgcnn.config.targets import plugins_in
from csgcnn.config.upgrade import removed_keys_in, upgrade_config
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER
from csgcnn.data import embeddings, training_set
from csgcnn.data.transforms import TRANSFORMS
from csgcnn.errors import UserError, first_line
from csgcnn.evaluation import conformal
from csgcnn.io import write_bytes
from csgcnn.nn.global_features import UNLIMITED
from csgcnn.runs.legacy_archives import is_legacy_archive, load_legacy
from csgcnn.runs.tensor_tree import join_tree, split_tree
from csgcnn.runs.untrusted import (
    LIMITS,
    Limits,
    RefusedError,
    TruncatedError,
    checked_tree,
    reading,
)

FORMAT = 5
KIND, METADATA = "csgcnn checkpoint", "csgcnn"  # the latter is the entry of the metadata
INPUT_FIELDS = {"name", "categories", "columns", "is_reference", "is_fidelity"}
REQUIRED = ("config", "targets", "elements", "state_dict")
ADDED_IN_3 = {"ensemble": 1, "init_from": None, "init_parts": "all"}  # keys of the configuration
MEAN_OF_FEATURES = re.compile(r"(^|\.)global_features\.mean$")
LARGEST_FLOAT = 1e300
# Characters that do not control a terminal.
TEXT = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]{0,1000}")


def save_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        content: Dicts, lists, tuples, strings, numbers, None and tensors; see `load_checkpoint`.
        path: The file.

    Raises:
        UserError: The file cannot be written.
    """
    own = {"format": FORMAT, "plugins": sorted(plugins_in(content.get("config")))}
    kept = {key: value for key, value in content.items() if key != "removed"}
    text, tensors = split_tree({**kept, **own})
    write_bytes(path, safetensors.torch.save(tensors, {METADATA: text}))


def load_checkpoint(path: Path, limits: Limits = LIMITS) -> dict[str, Any]:
    """Read a checkpoint of any format, which may be untrusted.

    Args:
        path: The file.
        limits: Largest sizes.

    Returns:
        format: Its format as a file.
        csgcnn: Version that wrote it.
        device: Type of the device that trained it, cpu or cuda; absent before version 0.2.
        config: Configuration of the training, upgraded to this version.
        removed: Sentences about keys of its configuration that no longer exist.
        plugins: Packages outside csgcnn that it names; loading it needs the opt-in of the user.
        targets, elements: Fields of each `Target`, and atomic numbers of the training rows.
        domain: What else occurs in the training rows, see `Domain.plain`; absent before format 5.
        fingerprints: Hashes of the training crystals, see `data.training_set`; may be absent.
        embeddings: Embeddings of training crystals, see `data.embeddings`; may be absent.
        conformal: Scores of calibration rows, see `evaluation.conformal`; may be absent.
        uncalibrated: Targets with standard deviations that are not calibrated; may be absent.
        inputs: Fields of each `Input` of `dataset.inputs`; absent without them.
        split, data: Ids of each part, and a digest of the data.
        metrics: Validation score.
        state_dict: Weights.
        training: State of the training, in last.ckpt.
        refit: State of its refit, in last.ckpt if it has begun.

    Raises:
        UserError: It is absent, truncated, damaged, not a csgcnn checkpoint, of a newer format,
            or exceeds a limit.
    """
    if not path.exists():
        raise UserError(f"ckpt={path}: no such file")
    content = _read(path, limits)
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is not int or version < 1 or any(key not in content for key in REQUIRED):
        fields = ", ".join(("format", *REQUIRED))
        raise UserError(f"{path} is not a {KIND}: it lacks one of {fields}")
    if version > FORMAT:
        writer = f"csgcnn {content.get('csgcnn', '?')!r:.40}"
        raise UserError(
            f"{path} has checkpoint format {version}, written by {writer}; this version reads up "
            f"to {FORMAT}: update csgcnn"
        )
    content = _upgraded(content, version)
    for key, (expected, accepts) in FIELDS.items():
        if key in content and not accepts(content[key]):
            raise UserError(f"{path} is not a {KIND}: its {key} is not {expected}")
    return content


def _read(path: Path, limits: Limits) -> Any:
    with reading(path, KIND, limits), path.open("rb") as file:
        start = file.read(16)
    if is_legacy_archive(start):
        return load_legacy(path, KIND, limits)
    with reading(path, KIND, limits) as size:
        data = path.read_bytes()
        try:
            text, tensors = _description(data, limits), safetensors.torch.load(data)
        except SafetensorError as error:
            raise TruncatedError(first_line(error)) from error
        return checked_tree(join_tree(text, tensors), size, size, limits)


def _description(data: bytes, limits: Limits) -> str:
    """Return the JSON text in the header of a safetensors file."""
    n_bytes = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{" or n_bytes > len(data) - 8:
        raise TruncatedError("it has no safetensors header")
    if n_bytes > limits.description_bytes:
        raise RefusedError(f"its header has {n_bytes:,} bytes")
    metadata = json.loads(data[8 : 8 + n_bytes]).get("__metadata__")
    text = metadata.get(METADATA) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise TruncatedError(f"its header has no entry {METADATA}")
    return text


def _upgraded(content: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the content of a file of an earlier format, with the names of this version."""
    content = dict(content)
    if version == 1:
        content.pop("training", None)  # it lacked some of what a training needs
    config = content["config"]
    if isinstance(config, dict):
        if version < 3 and isinstance(model := config.get("model", {}), dict):
            models = {"model": {"predict_std": False} | model} if "model" in config else {}
            config = ADDED_IN_3 | config | models
        content |= {"config": upgrade_config(config), "removed": removed_keys_in(config)}
    for key in ("state_dict", "training"):
        if key in content:
            content[key] = _with_present_weights(content[key])
    return content


def _with_present_weights(tree: Any) -> Any:
    """Return a tree whose weights have the names of this version, and a range without limits."""
    if not isinstance(tree, dict):
        return tree
    weights = {_present_name(name): _with_present_weights(part) for name, part in tree.items()}
    return {**_unlimited_ranges(weights), **weights}


def _unlimited_ranges(weights: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return ends of the range of global features, by their names beside those of the mean."""
    return {
        f"{name.removesuffix('mean')}{end}": torch.full(mean.shape, value)
        for name, mean in weights.items()
        if isinstance(mean, Tensor) and MEAN_OF_FEATURES.search(str(name))
        for end, value in (("low", -UNLIMITED), ("high", UNLIMITED))
    }


def _present_name(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    return re.sub(r"(^|\.)spread\.", r"\1std_head.", re.sub(r"\.centre$", ".center", name))


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(accepts, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(TEXT.fullmatch(value))


def _holds_texts_and_numbers(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_holds_texts_and_numbers, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_holds_texts_and_numbers, value))
    return _is_text(value) if isinstance(value, str) else not isinstance(value, Tensor)


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and _holds_texts_and_numbers(value)


def _is_target(target: Any) -> bool:
    if not _is_config(target):
        return False
    classes, grid = target.get("classes", ()), target.get("grid", ())
    texts = (target.get(k) or "" for k in ("unit", "derived", "label", "delta", "grid_unit"))
    return (
        isinstance(classes, list | tuple)
        and all(map(_is_text, (target.get("name"), *texts, *classes)))
        and target.get("transform", "none") in [*TRANSFORMS]  # it may be a list
        and target.get("task", "regression") in ("regression", "classification")
        and len(set(classes)) == len(classes) != 1
        and (grid == () or (is_grid(grid) and not classes))
    )


def _is_input(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != INPUT_FIELDS:
        return False
    categories, columns = value["categories"], value["columns"]
    return (
        all(isinstance(each, list | tuple) for each in (categories, columns))
        and all(map(_is_text, (value["name"], *categories, *columns)))
        and len(set(categories)) == len(categories)
        and len(columns) in (0, len(categories))
        and value["is_reference"] is False
    )


_are_strings = _list_of(lambda item: isinstance(item, str))
_are_elements = _list_of(lambda item: type(item) is int and 1 <= item <= MAX_ATOMIC_NUMBER)


def _is_domain(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    pairs, ranges = value.get("pairs"), value.get("ranges")
    return (
        isinstance(pairs, list)
        and all(_are_elements(pair) and len(pair) == 2 for pair in pairs)
        and isinstance(ranges, dict)
        and all(_is_text(name) and _is_range(ends) for name, ends in ranges.items())
        and type(value.get("isolated_atoms")) is bool
    )


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(end) in (int, float) and abs(end) <= LARGEST_FLOAT for end in value)
    )


def _is_split(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_strings, value.values()))


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "csgcnn": ("a version", _is_text),
    "device": ("cpu or cuda", _is_text),
    "config": ("a dict of texts and numbers", _is_config),
    "plugins": ("a list of packages", _are_strings),
    "targets": ("a list of targets", _list_of(_is_target)),
    "inputs": ("a list of inputs", _list_of(_is_input)),
    "elements": (f"a list of atomic numbers up to {MAX_ATOMIC_NUMBER}", _are_elements),
    "domain": ("pairs of elements, ranges and whether there are isolated atoms", _is_domain),
    "fingerprints": ("hashes of crystals", training_set.is_plain),
    "embeddings": ("embeddings of crystals", embeddings.is_plain),
    "conformal": ("scores of calibration rows", conformal.is_plain),
    "uncalibrated": ("a list of names", _list_of(_is_text)),
    "split": ("lists of ids", _is_split),
    "state_dict": ("a dict of tensors", _is_state_dict),
}
