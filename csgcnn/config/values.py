"""What the values of a configuration may be: choices, numbers, and the parts that each place may hold."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from csgcnn.config.tree import selected
from csgcnn.errors import ConfigError, nearest

CHOICES: dict[str, tuple[str | bool, ...]] = {
    "graph.shells": ("complete", "truncate"),
    "graph.compress": (True, False),
    "graph.vectors": (True, False),
    "model.predict_std": (True, False),
    "graph.global_features": ("none", "density", "lattice", "symmetry", "composition"),
    "trainer.precision": ("float32", "bfloat16"),
    "dataset.split.method": ("random", "group", "column", "fold", "matbench", "file"),
    "dataset.class_weights": ("balanced",),
    "dataset.on_error": ("raise", "skip"),
    "on_error": ("raise", "skip"),
    "order": ("highest", "lowest"),
    "split": ("train", "val", "test"),
    "init_parts": ("all", "body"),
}
# The upper bounds are far above every real use: they stop a typing error or a stranger's file before memory is short.
NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "a number above 0": (
        "trainer.grad_clip trainer.max_minutes trainer.resident_gib optimizer.lr scheduler.factor",
        lambda x: 0 < x < math.inf,
    ),
    "a number above 0, at most 50": ("graph.cutoff edge_calculator.cutoff", lambda x: 0 < x <= 50),
    "a number from 0.001 to 100": (
        "edge_calculator.step edge_calculator.scale node_features.learned.std",
        lambda x: 0.001 <= x <= 100,
    ),
    "a number of 0 or more": (
        "trainer.checkpoint_every optimizer.weight_decay loss.mse loss.l1 loss.huber augment.distance_noise.sigma"
        " augment.strain.sigma augment.coordinate_noise.sigma",
        lambda x: 0 <= x < math.inf,
    ),
    "a number from 0 to 1": (
        "augment.distance_noise.decay augment.strain.decay augment.coordinate_noise.decay",
        lambda x: 0 <= x <= 1,
    ),
    "a fraction above 0": ("dataset.split.train trainer.layer_decay", lambda x: 0 < x <= 1),
    "a fraction from 0 to below 1": (
        "dataset.split.val dataset.split.test scheduler.warmup scheduler.at",
        lambda x: 0 <= x < 1,
    ),
    "a number from 0 to below 1": (
        "trainer.ema optimizer.momentum model.dropout",
        lambda x: 0 <= x < 1,
    ),
    "an integer of 1 or more": (
        "trainer.max_epochs trainer.batch_size trainer.patience batch_size scheduler.patience top",
        lambda x: isinstance(x, int) and x >= 1,
    ),
    "an integer from 1 to 10": (
        "model.message_layers",
        lambda x: isinstance(x, int) and 1 <= x <= 10,
    ),
    "an integer from 1 to 100": (
        "ensemble model.n_convolutions pooling.steps",
        lambda x: isinstance(x, int) and 1 <= x <= 100,
    ),
    "an integer from 0 to 100": (
        "model.n_head_layers",
        lambda x: isinstance(x, int) and 0 <= x <= 100,
    ),
    "an integer from 1 to 10000": (
        "graph.max_neighbors trainer.threads trainer.workers workers model.hidden model.head_hidden"
        " model.convolution.heads edge_calculator.n_basis edge_calculator.embedding node_features.learned.dim",
        lambda x: isinstance(x, int) and 1 <= x <= 10_000,
    ),
    "an integer of 0 or more": (
        "trainer.keep_last trainer.max_skipped dataset.split.fold",
        lambda x: isinstance(x, int) and x >= 0,
    ),
    "an integer from 0 to 2^63 - 1": (
        "seed dataset.split.seed",
        lambda x: isinstance(x, int) and 0 <= x < 2**63,
    ),
}
# What each part may be made of. A checkpoint is other people's data: a prefix alone would let `csgcnn.config.os.system`
# through, and no place may hold what belongs to another.
PARTS = {
    "model": r"csgcnn\.nn\.network\.[A-Z]\w*",
    "model.convolution": r"csgcnn\.nn\.convolutions\.[A-Z]\w*",
    "edge_calculator": r"csgcnn\.nn\.edge_calculators\.[A-Z]\w*",
    "edge_calculator.radius": r"csgcnn\.crystals\.elements\.radii",
    "node_features.*": r"csgcnn\.nn\.node_features\.[A-Z]\w*",
    "node_features.*.table": r"csgcnn\.crystals\.elements\.(atom_init|onehot|bits|elemental)",
    "pooling": r"csgcnn\.nn\.pooling\.[A-Z]\w*",
    "augment.*": r"csgcnn\.data\.augment\.[A-Z]\w*",
    "loss": r"csgcnn\.training\.losses\.[A-Z]\w*",
    "optimizer": r"torch\.optim\.[A-Z]\w*",
    "scheduler": r"csgcnn\.training\.schedulers\.[a-z_]+",
}
SEVERAL = (
    "node_features",
    "augment",
)  # sections of any number of parts, by names that the user may choose
REQUIRED_PARTS = (
    "model",
    "model.convolution",
    "edge_calculator",
    "pooling",
    "loss",
    "optimizer",
    "scheduler",
)
PARTIAL = (
    "model.convolution",
    "pooling",
    "optimizer",
    "scheduler",
)  # completed later, with _partial_: true
ALLOWED_TARGETS = re.compile("|".join(PARTS.values()), re.ASCII)


def check_values(config: Mapping[str, Any]) -> None:
    """Check choices, numbers and `_target_`s of a plain configuration, which may be a stranger's.

    Raises: ConfigError, which names the key, its value and what was expected.
    """
    for key, options in CHOICES.items():
        chosen = selected(config, key)
        for value in chosen if isinstance(chosen, list) else [chosen]:
            if value is not None and value not in options:
                hint = nearest(str(value), [str(option) for option in options])
                raise ConfigError(f"{key}={value}: expected {' or '.join(map(str, options))}{hint}")
    for expected, (keys, accepts) in NUMBERS.items():
        for key in keys.split():
            value = selected(config, key)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and accepts(value)):
                raise ConfigError(f"{key}={value}: expected {expected}")
    for section in dict.fromkeys(key.partition(".")[0] for key in PARTS):
        if section in config:
            _check_parts(config[section], (section,))


def _check_parts(node: Any, place: tuple[str, ...]) -> None:
    """Check that the parts of a section are of the kind that belongs there."""
    if isinstance(node, list):
        for item in node:
            _check_parts(item, (*place, "item"))
    if not isinstance(node, Mapping):
        return
    key = ".".join((place[0], "*", *place[2:]) if place[0] in SEVERAL and len(place) > 1 else place)
    if "_target_" in node or key in REQUIRED_PARTS:
        target = node.get("_target_")
        if not (
            isinstance(target, str) and key in PARTS and re.fullmatch(PARTS[key], target, re.ASCII)
        ):
            expected = (
                f"one of {PARTS[key].replace(chr(92), '').rpartition('.')[0]}"
                if key in PARTS
                else "none here"
            )
            raise ConfigError(
                f"{'.'.join(place)}._target_: {target} is refused; expected {expected}"
            )
        if (node.get("_partial_", False) is True) != (key in PARTIAL):
            raise ConfigError(
                f"{'.'.join(place)}._partial_: expected {str(key in PARTIAL).lower()}"
            )
    for name, child in node.items():
        _check_parts(child, (*place, str(name)))


# Names of earlier versions, in configurations and checkpoints that were made with them.
RENAMED_TARGETS = {
    "csgcnn.nn.models.CrystalGraphNetwork": "csgcnn.nn.network.CrystalGraphNetwork",
    "csgcnn.training.losses.Weighted": "csgcnn.training.losses.WeightedRegressionLoss",
}


def rename_targets(node: Any) -> Any:
    """Return a plain configuration with the present names of renamed classes."""
    if isinstance(node, Mapping):
        return {
            key: RENAMED_TARGETS.get(str(value), value)
            if key == "_target_"
            else rename_targets(value)
            for key, value in node.items()
        }
    return [rename_targets(item) for item in node] if isinstance(node, list) else node
