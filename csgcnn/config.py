"""The configuration: checks, objects built from it, paths and run directories."""

import importlib
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

import csgcnn.schemas  # noqa: F401  (registers them)
from csgcnn.errors import ConfigError, UserError

PACKAGE = Path(__file__).resolve().parent
# A wheel holds the configuration inside the package, a checkout (or an editable install) beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

TRAIN_SECTIONS = "trainer graph dataset model edge_calculator node_features pooling loss optimizer scheduler"
CHOICES: dict[str, tuple[str, ...]] = {
    "graph.shells": ("complete", "truncate"),
    "graph.global_features": ("none", "lattice", "symmetry", "composition"),
    "trainer.precision": ("float32", "bfloat16"),
    "dataset.split.method": ("random", "group", "column", "fold", "file"),
    "dataset.class_weights": ("balanced",),
    "dataset.on_error": ("raise", "skip"),
    "on_error": ("raise", "skip"),
    "split": ("train", "val", "test"),
}
NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "a number above 0": (
        "graph.cutoff trainer.grad_clip optimizer.lr edge_calculator.cutoff edge_calculator.step"
        " edge_calculator.scale scheduler.factor",
        lambda x: 0 < x < math.inf,
    ),
    "a number of 0 or more": (
        "optimizer.weight_decay loss.mse loss.l1 loss.huber augment.distance_noise.sigma augment.strain.sigma"
        " augment.coordinate_noise.sigma",
        lambda x: 0 <= x < math.inf,
    ),
    "a number from 0 to 1": (
        "augment.distance_noise.decay augment.strain.decay augment.coordinate_noise.decay",
        lambda x: 0 <= x <= 1,
    ),
    "a fraction above 0": ("dataset.split.train", lambda x: 0 < x <= 1),
    "a fraction from 0 to below 1": ("dataset.split.val dataset.split.test scheduler.warmup", lambda x: 0 <= x < 1),
    "a number from 0 to below 1": ("trainer.ema optimizer.momentum model.dropout", lambda x: 0 <= x < 1),
    "an integer of 1 or more": (
        "graph.max_neighbors trainer.max_epochs trainer.batch_size trainer.patience trainer.threads trainer.workers"
        " batch_size workers model.hidden model.n_convolutions model.head_hidden edge_calculator.n_basis"
        " edge_calculator.embedding model.message_layers model.convolution.heads pooling.steps scheduler.patience"
        " node_features.learned.dim",
        lambda x: isinstance(x, int) and x >= 1,
    ),
    "an integer of 0 or more": (
        "seed dataset.split.seed dataset.split.fold model.n_head_layers",
        lambda x: isinstance(x, int) and x >= 0,
    ),
}


def validate(cfg: DictConfig) -> None:
    """Check that everything is given and that the values make sense, whichever command `cfg` belongs to.

    Raises: ConfigError, which names the key, its value and what was expected.
    """
    _require_values(cfg)
    for section in TRAIN_SECTIONS.split() if "trainer" in cfg else ():
        if not isinstance(cfg.get(section), DictConfig):
            raise ConfigError(f"{section}={cfg.get(section)}: expected an option or keys, see --help")
    for key, options in CHOICES.items():
        chosen = OmegaConf.select(cfg, key)
        for value in chosen if isinstance(chosen, ListConfig) else [chosen]:
            if value is not None and value not in options:
                hint = nearest(str(value), options)
                raise ConfigError(f"{key}={value}: expected {' or '.join(options)}{hint}")
    for expected, (keys, accepts) in NUMBERS.items():
        for key in keys.split():
            value = OmegaConf.select(cfg, key)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and accepts(value)):
                raise ConfigError(f"{key}={value}: expected {expected}")
    if "graph" in cfg:
        _validate_vectors(cfg)
    if "dataset" in cfg:
        _validate_split(cfg.dataset.split)
        _validate_tasks(cfg)


def _validate_vectors(cfg: DictConfig) -> None:
    if cfg.graph.vectors and cfg.graph.compress:
        raise ConfigError(
            "graph.vectors=true: expected graph.compress=false with it, for merged edges have no direction"
        )
    if "coordinate_noise" in cfg.augment and not cfg.graph.vectors:
        raise ConfigError("augment=coordinate_noise: expected graph.vectors=true graph.compress=false, as it sets them")


def _require_values(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        wanted = ", ".join(f"{key}=…" for key in missing)
        hint = f" ({cfg.dataset.hint})" if "dataset.path" in missing and cfg.dataset.hint else ""
        raise ConfigError(f"please give {wanted}{hint}")


def _validate_split(split: DictConfig) -> None:
    key = "dataset.split"
    total = split.train + split.val + split.test
    if split.method in ("random", "group") and total > 1 + 1e-9:
        raise ConfigError(f"{key}: train + val + test = {total:g}, expected at most 1")
    if split.method in ("group", "column", "fold") and not split.column:
        raise ConfigError(f"{key}.method={split.method} needs the name of a column: {key}.column=…")
    if split.method == "file" and not split.file:
        raise ConfigError(f"{key}.method=file needs a split file: {key}.file=…")
    if split.stratify and split.method != "random":
        raise ConfigError(f"{key}.stratify={split.stratify}: only for {key}.method=random, not {split.method}")


def _validate_tasks(cfg: DictConfig) -> None:
    tasks = ("regression", "classification")
    for name, task in cfg.dataset.tasks.items():
        if task not in tasks:
            raise ConfigError(f"dataset.tasks.{name}={task}: expected {' or '.join(tasks)}{nearest(str(task), tasks)}")
    for name, weight in cfg.dataset.task_weights.items():
        if not 0 < weight < math.inf:
            raise ConfigError(f"dataset.task_weights.{name}={weight}: expected a number above 0")
    if cfg.dataset.task_weights and OmegaConf.select(cfg, "trainer.learn_task_weights"):
        raise ConfigError("trainer.learn_task_weights=true learns the weights: leave dataset.task_weights out")


def nearest(word: str, options: Sequence[str]) -> str:
    """The end of an error message that proposes the option spelled most like `word`, or nothing."""
    matches = get_close_matches(word, options, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else ""


# A checkpoint is other people's data: a prefix alone would let `csgcnn.config.os.system` through.
ALLOWED_TARGETS = re.compile(
    r"csgcnn\.nn\.[a-z_]+\.[A-Z]\w*"
    r"|csgcnn\.data\.augment\.[A-Z]\w*"
    r"|csgcnn\.training\.losses\.[A-Z]\w*"
    r"|csgcnn\.training\.schedulers\.[a-z_]+"
    r"|csgcnn\.crystals\.elements\.(atom_init|onehot|bits|elemental|radii)"
    r"|torch\.optim\.[A-Z]\w*",
    re.ASCII,
)


def build(node: DictConfig | Mapping[str, Any], **runtime: Any) -> Any:
    """Make the object whose class is `_target_` and whose arguments are the other keys and `runtime`.

    With `_partial_: true` a callable that waits for the rest; without `_target_` a dict of objects.

    Raises: ConfigError for a target outside ALLOWED_TARGETS, a special key of Hydra, or wrong arguments.
    """
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    return _construct(plain, runtime)


def _construct(node: Any, runtime: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_construct(item, {}) for item in node]
    if not isinstance(node, Mapping):
        return node
    special = ("_target_", "_partial_")
    for key in node:
        if re.fullmatch(r"_\w+_", str(key)) and key not in special:
            raise ConfigError(f"{key} is not accepted in a configuration; expected the names of arguments")
    arguments = {key: _construct(value, {}) for key, value in node.items() if key not in special} | runtime
    if "_target_" not in node:
        return arguments
    target = _locate(node["_target_"])
    _check_arguments(node["_target_"], target, arguments)
    if node.get("_partial_"):
        return partial(target, **arguments)
    try:
        return target(**arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{node['_target_']}: {error}") from error


def _locate(target: Any) -> Callable[..., Any]:
    if not (isinstance(target, str) and ALLOWED_TARGETS.fullmatch(target)):
        raise ConfigError(f"_target_: {target} is refused; expected a part of csgcnn or of torch.optim")
    module_name, _, attribute = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ConfigError(f"_target_: {target} does not exist in this version of csgcnn") from error
    home = "torch.optim." if module_name == "torch.optim" else "csgcnn."
    if not callable(found) or not str(getattr(found, "__module__", "")).startswith(home):
        raise ConfigError(f"_target_: {target} is refused: it is no class or function defined in {home[:-1]}")
    return found


def _check_arguments(name: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in arguments:
        if key not in parameters:
            raise ConfigError(f"{key} is no argument of {name}{nearest(key, list(parameters))}")


def user_path(text: str) -> Path:
    """The path a user typed, with ~ expanded."""
    return Path(text).expanduser()


def data_path(text: str, hint: str = "") -> Path:
    """Find a data file or folder: as typed, else in the checkout that holds conf/.

    Raises: UserError listing the places looked at, with the data set's `hint`.
    """
    roots = [Path.cwd()] if CONF.parent == PACKAGE else [Path.cwd(), CONF.parent]
    places = list(dict.fromkeys(root / user_path(text) for root in roots))  # one, if `text` is absolute
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"no data at {' or '.join(map(str, places))}"
        + (f" ({hint})" if hint else "")
        + "; give dataset.path=PATH, or the folder of all data sets in the environment: CSGCNN_DATA=FOLDER"
    )


def claim_directory(path: str) -> str:
    """Make the directory `path`, or `path`-1, `path`-2, ... if another run has it; returns its name."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    for name in chain([path], (f"{path}-{attempt}" for attempt in count(1))):
        with suppress(FileExistsError):
            os.mkdir(name)  # atomic: of a hundred runs started in one second each gets its own
            break
    return name


OmegaConf.register_new_resolver("unique_dir", claim_directory, use_cache=True, replace=True)


REPEAT = """\
# csgcnn train --config-dir THIS_FOLDER --config-name config repeats the run in a new folder:
hydra:
  job: {name: train, chdir: false}
  output_subdir: null
  run: {dir: "${unique_dir:runs/${now:%Y-%m-%d}/${now:%H-%M-%S}_repeat}"}
"""


def save_resolved(cfg: DictConfig, path: Path) -> None:
    """Write `cfg` as YAML with every interpolation replaced by its value, ready to be run again."""
    path.write_text(OmegaConf.to_yaml(cfg, resolve=True) + REPEAT, encoding="utf-8")
