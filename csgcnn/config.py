"""The configuration: checks, objects built from it, paths and run directories."""

import importlib
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import chain, count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import csgcnn.schemas  # noqa: F401  (registers them)
from csgcnn.errors import ConfigError, UserError
from csgcnn.files import write_text
from csgcnn.values import ALLOWED_TARGETS, check_values, nearest

PACKAGE = Path(__file__).resolve().parent
# A wheel holds the configuration inside the package, a checkout (or an editable install) beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

ALIASES = {"edge": "edge_calculator", "global_features": "graph.global_features"}
TRAIN_SECTIONS = "trainer graph dataset model edge_calculator node_features pooling loss optimizer scheduler"


def validate(cfg: DictConfig) -> None:
    """Check that everything is given and that the values make sense, whichever command `cfg` belongs to.

    Raises: ConfigError, which names the key, its value and what was expected.
    """
    _require_values(cfg)
    for section in TRAIN_SECTIONS.split() if "trainer" in cfg else ():
        if not isinstance(cfg.get(section), DictConfig):
            raise ConfigError(f"{section}={cfg.get(section)}: expected an option or keys, see --help")
    check_values(_plain(cfg))
    if "graph" in cfg:
        _validate_vectors(cfg)
    if "loss" in cfg:
        _validate_std(cfg)
    if OmegaConf.select(cfg, "trainer.freeze_body") and not cfg.init_from:
        raise ConfigError("trainer.freeze_body=true: expected init_from=CHECKPOINT with it, whose body stays as it is")
    if "dataset" in cfg:
        _validate_split(cfg.dataset.split)
        _validate_tasks(cfg)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).partition("\n")[0]) from error


def _validate_vectors(cfg: DictConfig) -> None:
    if cfg.graph.vectors and cfg.graph.compress:
        raise ConfigError(
            "graph.vectors=true: expected graph.compress=false with it, for merged edges have no direction"
        )
    if "coordinate_noise" in cfg.get("augment", ()) and not cfg.graph.vectors:
        raise ConfigError("augment=coordinate_noise: expected graph.vectors=true graph.compress=false, as it sets them")


def _validate_std(cfg: DictConfig) -> None:
    is_likelihood = str(cfg.loss.get("_target_")).endswith(".Likelihood")
    if is_likelihood != bool(cfg.model.get("predict_std")):
        raise ConfigError(
            f"model.predict_std={str(not is_likelihood).lower()}: expected true with loss=gaussian and loss=laplace, "
            "which set it, and false with every other loss"
        )


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
    if split.stratify and split.method not in ("random", "matbench"):
        raise ConfigError(f"{key}.stratify={split.stratify}: for {key}.method=random or matbench, not {split.method}")


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
    home = str(getattr(found, "__module__", ""))
    is_at_home = home == module_name or (module_name == "torch.optim" and home.startswith("torch.optim."))
    if not callable(found) or not is_at_home:
        raise ConfigError(f"_target_: {target} is refused: it is no class or function defined in {module_name}")
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


def benchmark_directory(task: str | None, recipe: str, words: str) -> str:
    """Where a benchmark lies; the same `words` of the command line, but for its folds, go on with the same one.

    Raises: ConfigError if there is no task.
    """
    if not task:
        raise ConfigError(f"please give task=…, one of {', '.join(sorted(p.stem for p in CONF.glob('task/*.yaml')))}")
    return f"runs/{task}/{recipe}" + (f"_{blake2b(words.encode(), digest_size=4).hexdigest()}" if words else "")


OmegaConf.register_new_resolver("unique_dir", claim_directory, use_cache=True, replace=True)
OmegaConf.register_new_resolver("benchmark_dir", benchmark_directory, replace=True)


REPEAT = """\
# csgcnn train --config-dir THIS_FOLDER --config-name config repeats the run in a new folder:
defaults: [trainer_schema@trainer, graph_schema@graph, dataset_schema@dataset, _self_]
hydra:
  job: {name: train, chdir: false}
  job_logging: {formatters: {plain: {format: "%(message)s"}}, handlers: {console: {formatter: plain}}}
  output_subdir: null
  run: {dir: "${unique_dir:runs/${now:%Y-%m-%d}/${now:%H-%M-%S}_repeat}"}
"""


def save_resolved(cfg: DictConfig, path: Path) -> None:
    """Write `cfg` as YAML with every interpolation replaced by its value, ready to be run again."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.merge(cfg, {"resume": None}), resolve=True) + REPEAT)
