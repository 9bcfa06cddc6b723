"""The configuration: checks, objects built from it, paths and run directories."""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

import csgcnn.config.schemas  # noqa: F401  (registers them)
from csgcnn.config.values import ALLOWED_TARGETS
from csgcnn.errors import ConfigError, nearest


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
            raise ConfigError(
                f"{key} is not accepted in a configuration; expected the names of arguments"
            )
    arguments = {
        key: _construct(value, {}) for key, value in node.items() if key not in special
    } | runtime
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
        raise ConfigError(
            f"_target_: {target} is refused; expected a part of csgcnn or of torch.optim"
        )
    module_name, _, attribute = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ConfigError(f"_target_: {target} does not exist in this version of csgcnn") from error
    home = str(getattr(found, "__module__", ""))
    is_at_home = home == module_name or (
        module_name == "torch.optim" and home.startswith("torch.optim.")
    )
    if not callable(found) or not is_at_home:
        raise ConfigError(
            f"_target_: {target} is refused: it is no class or function defined in {module_name}"
        )
    return found


def _check_arguments(name: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in arguments:
        if key not in parameters:
            raise ConfigError(f"{key} is no argument of {name}{nearest(key, list(parameters))}")
