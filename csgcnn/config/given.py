"""Keys that the user gave: on the command line, or in configuration files of their own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from csgcnn.config.tree import leaves
from csgcnn.config.upgrade import is_run, read_config
from csgcnn.errors import ConfigError, nearest


def given_keys(overrides: Sequence[str]) -> list[str]:
    """Return the full names of the keys that overrides set.

    Args:
        overrides: Overrides in the form that Hydra reads.
    """
    found: list[str] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_delete() or override.is_sweep_override():
            continue
        value = override.value()
        names = leaves(value, override.key_or_group) if isinstance(value, Mapping) else ()
        found += [name for name, _ in names] or [override.key_or_group]
    return found


def check_hydra_keys(overrides: Sequence[str]) -> None:
    """Check that the keys of the section `hydra` that overrides add exist.

    Args:
        overrides: Overrides of the section, in the form that Hydra reads.

    Raises:
        ConfigError: A key does not exist.
    """
    for name in given_keys(overrides):
        node: Any = OmegaConf.structured(HydraConf)
        for part in name.split(".")[1:]:
            kind = OmegaConf.get_type(node)
            if kind is None or not is_dataclass(kind):
                break
            known = [item.name for item in fields(kind)]
            if part not in known:
                hint = nearest(part, known)
                raise ConfigError(f"there is no key {name}: {part} is unknown{hint}")
            node = node._get_node(part)


def keys_of_files(node: DictConfig, folders: Sequence[Path], name: str) -> list[str]:
    """Return the full names of the keys that a user's configuration and options set.

    The configuration of a run is none of these: it holds all keys.

    Args:
        node: The node `hydra` of the composed configuration.
        folders: Folders of the user's configurations.
        name: Name of the configuration that was composed.
    """
    found: list[str] = []
    for folder in folders:
        config = read_config(folder / f"{name.removesuffix('.yaml')}.yaml")
        found += [] if is_run(config) else _keys(config)
        for group, chosen in node.runtime.choices.items():
            if str(group).startswith("hydra/"):
                continue
            for option in [chosen] if isinstance(chosen, str) else chosen or []:
                path = folder / str(group) / f"{option}.yaml"
                if path.is_file():
                    is_global = "@package _global_" in path.read_text(encoding="utf-8")
                    section = "" if is_global else str(group).replace("/", ".")
                    found += _keys(read_config(path), section)
    return found


def _keys(config: Mapping[str, Any], section: str = "") -> Iterator[str]:
    own = {key: value for key, value in config.items() if key not in ("defaults", "hydra")}
    return (name for name, _ in leaves(own, section))
