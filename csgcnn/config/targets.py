"""Which classes a configuration may name: what each place may hold, and plugins.

A checkpoint is untrusted input. The allow-list names modules and not only the package, because
`csgcnn.config.paths.os.system` lies in the package, too.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from csgcnn.errors import ConfigError

PLACES = {
    "model": r"csgcnn\.nn\.network\.[A-Z]\w*",
    "model.convolution": r"csgcnn\.nn\.convolutions\.[A-Z]\w*",
    "edge_calculator": r"csgcnn\.nn\.edge_calculators\.[A-Z]\w*",
    "edge_calculator.radius": r"csgcnn\.crystals\.elements\.radii",
    "node_features.*": r"csgcnn\.nn\.node_features\.[A-Z]\w*",
    "node_features.*.table": r"csgcnn\.crystals\.elements\.(atom_init|onehot|bits|elemental)",
    "head": r"csgcnn\.nn\.kernel_heads\.[A-Z]\w*",
    "pooling": r"csgcnn\.nn\.pooling\.[A-Z]\w*",
    "augment.*": r"csgcnn\.data\.augment\.[A-Z]\w*",
    "loss": r"csgcnn\.training\.losses\.[A-Z]\w*",
    "optimizer": r"torch\.optim\.[A-Z]\w*",
    "scheduler": r"csgcnn\.training\.schedulers\.[a-z_]+",
    "logger.*": r"csgcnn\.runs\.loggers\.[a-z]+\.[A-Z]\w*",
}
# any number of parts, by names of the user's choice
NAMED_SECTIONS = ("node_features", "augment", "logger")
REQUIRED = (
    *("model", "model.convolution", "edge_calculator", "pooling"),
    *("loss", "optimizer", "scheduler"),
)
SPECIAL = ("_target_", "_partial_")  # keys that are no arguments
PARTIAL = ("model.convolution", "pooling", "head", "optimizer", "scheduler")  # completed when built
_BUILT_IN = re.compile("|".join(PLACES.values()), re.ASCII)
_PLUGIN_TARGET = re.compile(r"([A-Za-z]\w*)(\.[A-Za-z_]\w*)+", re.ASCII)

_allowed: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())


@contextmanager
def plugins_allowed(packages: Iterable[str]) -> Iterator[None]:
    """Allow classes of these packages as `_target_` within the block.

    Args:
        packages: Names of top-level packages, as the user gave them.

    Raises:
        ConfigError: A name is not the name of a package.
    """
    names = frozenset(packages)
    for name in names:
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise ConfigError(f"plugins={name}: expected names of packages, such as my_package")
    token = _allowed.set(_allowed.get() | names)
    try:
        yield
    finally:
        _allowed.reset(token)


def allowed_plugins() -> frozenset[str]:
    """Return the packages whose classes may be named: opted in, or installed as plugins."""
    return _allowed.get() | _installed_plugins(tuple(sys.path))


@cache
def _installed_plugins(_: tuple[str, ...]) -> frozenset[str]:
    """Return the packages with an entry point, which are searched once for each `sys.path`."""
    points = entry_points(group="csgcnn.plugins")
    return frozenset(point.value.partition(".")[0] for point in points)


def plugin_of(target: object) -> str | None:
    """Return the top-level package of a `_target_` that may be a plugin, else None.

    csgcnn, torch and the standard library are not plugins.
    """
    match = _PLUGIN_TARGET.fullmatch(target) if isinstance(target, str) else None
    if match is None or match[1] in {"csgcnn", "torch", *sys.stdlib_module_names}:
        return None
    return match[1]


def plugins_in(config: Any) -> set[str]:
    """Return the packages outside csgcnn that the `_target_`s of a configuration name."""
    if isinstance(config, Mapping):
        own = plugin_of(config.get("_target_"))
        nested = (plugins_in(child) for child in config.values())
        return set().union({own} if own else (), *nested)
    return set().union(*map(plugins_in, config)) if isinstance(config, list) else set()


def is_allowed(target: object) -> bool:
    """Return whether a configuration may name this class or function at any place."""
    if isinstance(target, str) and _BUILT_IN.fullmatch(target):
        return True
    return plugin_of(target) in allowed_plugins()


def check_targets(config: Mapping[str, Any]) -> None:
    """Check that every `_target_` names a class that belongs at its place.

    Args:
        config: A plain configuration, which may be untrusted.

    Raises:
        ConfigError: One does not, or it belongs to a package that was not opted in.
    """
    for section in dict.fromkeys(place.partition(".")[0] for place in PLACES):
        if section in config:
            _check_node(config[section], (section,))


def _check_node(node: Any, path: tuple[str, ...]) -> None:
    if isinstance(node, list):
        for item in node:
            _check_node(item, (*path, "item"))
    if not isinstance(node, Mapping):
        return
    is_named = path[0] in NAMED_SECTIONS and len(path) > 1
    place = ".".join((path[0], "*", *path[2:]) if is_named else path)
    if "_target_" in node or place in REQUIRED:
        _check_target(".".join(path), place, node)
    for name, child in node.items():
        _check_node(child, (*path, str(name)))


def _check_target(key: str, place: str, node: Mapping[str, Any]) -> None:
    target = node.get("_target_")
    package = plugin_of(target)
    if package and place in PLACES and package not in allowed_plugins():
        raise ConfigError(
            f"{key}._target_: {target} belongs to the package {package}, which runs its own code; "
            f"if you trust it, add plugins=[{package}]"
        )
    is_built_in = (
        place in PLACES
        and isinstance(target, str)
        and re.fullmatch(PLACES[place], target, re.ASCII)
    )
    if not (is_built_in or (package and place in PLACES)):
        expected = "none here"
        if place in PLACES:
            module = PLACES[place].replace("\\", "").rpartition(".")[0]
            expected = f"a class of {module}, or of a plugin"
        raise ConfigError(f"{key}._target_: {target} is refused; expected {expected}")
    if (node.get("_partial_", False) is True) != (place in PARTIAL):
        raise ConfigError(f"{key}._partial_: expected {str(place in PARTIAL).lower()}")
