"""Build objects from a configuration, from an allow-list of classes."""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from csgcnn.config.targets import SPECIAL, is_allowed, plugin_of
from csgcnn.errors import ConfigError, nearest


def instantiate(node: DictConfig | Mapping[str, Any], **runtime: Any) -> Any:
    """Build the object that a node of the configuration describes.

    Args:
        node: `_target_` names the class or function, the other keys are its arguments. With
            `_partial_: true` a callable is returned that waits for the other arguments; without
            `_target_` a dict of objects.
        **runtime: Further arguments.

    Returns:
        The object.

    Raises:
        ConfigError: The target is not allowed, or an argument is wrong.
    """
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    return _construct(plain, runtime)


def _construct(node: Any, runtime: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_construct(item, {}) for item in node]
    if not isinstance(node, Mapping):
        return node
    for key in node:
        if re.fullmatch(r"_\w+_", str(key)) and key not in SPECIAL:
            raise ConfigError(f"{key} is not accepted; expected the names of arguments")
    arguments = {key: _construct(value, {}) for key, value in node.items() if key not in SPECIAL}
    arguments |= runtime
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
    if not is_allowed(target):
        raise ConfigError(
            f"_target_: {target} is refused; expected a class of csgcnn or torch.optim"
        )
    module_name, _, attribute = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigError(
            f"_target_: {target} does not exist; is {error.name} installed?"
        ) from error
    home = str(getattr(found, "__module__", ""))
    family = plugin_of(target) or ("torch.optim" if module_name == "torch.optim" else None)
    is_at_home = home == module_name or (family is not None and f"{home}.".startswith(f"{family}."))
    if not callable(found) or not is_at_home:
        raise ConfigError(f"_target_: {target} is not a class or function defined in {module_name}")
    return found


def accepted_arguments(target: str) -> list[str] | None:
    """Return the names of arguments that a class or function accepts; None: any.

    Args:
        target: Its full name, which must be allowed as `_target_`.

    Raises:
        ConfigError: It is not allowed, or does not exist.
    """
    return _parameters(_locate(target))


def _parameters(target: Callable[..., Any]) -> list[str] | None:
    parameters = inspect.signature(target).parameters
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if any_name else list(parameters)


def _check_arguments(name: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    known = _parameters(target)
    for key in arguments:
        if known is not None and key not in known:
            raise ConfigError(f"{key} is no argument of {name}{nearest(key, known)}")
