"""Bring configurations of earlier versions up to date."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from csgcnn.config.hydra_guard import check_folder_size
from csgcnn.config.keys import command_keys, described_keys
from csgcnn.config.settings.removed import FORMER_DEFAULTS, REMOVED_KEYS, RENAMED_TARGETS
from csgcnn.config.settings.setting import MISSING
from csgcnn.config.tree import leaves
from csgcnn.errors import ConfigError

# The defaults list in config.yaml of a run.
RUN_DEFAULTS = ["train_schema", "_self_"]


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain configuration without removed keys, with the present names of classes.

    A section that lacks a key which is newer than the section gets the value that the key had
    before it existed.

    Args:
        config: A plain configuration of any version.
    """
    upgraded = _upgraded(config, "")
    for section, values in FORMER_DEFAULTS.items():
        if isinstance(upgraded.get(section), dict):
            upgraded[section] = values | upgraded[section]
    return upgraded


def complete_leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the full keys and values of a run, with all keys that its configuration lacks.

    A key that is newer than the run has the value that it had before it existed: its default, or
    that of `FORMER_DEFAULTS`. A removed key is left out unless it changed what the run computed.

    Args:
        config: The plain configuration of a run of any version.
    """
    upgraded = upgrade_config(config)
    own = dict(leaves(upgraded))
    removed = {
        key: value
        for key, value in leaves(config)
        if key in REMOVED_KEYS and value != REMOVED_KEYS[key].default
    }
    defaults = {
        name: list(key.default) if isinstance(key.default, tuple) else key.default
        for name, key in described_keys(upgraded, command_keys("train"))
        if key.default != MISSING
    }
    complete = own | removed | {key: defaults[key] for key in defaults if key not in own}
    # an empty dict has no keys
    return {key: value for key, value in complete.items() if value != {}}


def removed_keys_in(config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each removed key whose value changed what a run computed.

    Args:
        config: A plain configuration of any version.
    """
    found = []
    for key, removed in REMOVED_KEYS.items():
        section, _, name = key.partition(".")
        node = config.get(section)
        if isinstance(node, Mapping) and name in node and node[name] != removed.default:
            found.append(f"{key} no longer exists: {removed.reason}")
    return found


def upgraded_file(path: Path) -> dict[str, Any] | None:
    """Return a configuration in the form of this version, or None where it is up to date.

    Raises:
        ConfigError: It has a removed key that changed what the run computed.
    """
    config = read_config(path)
    if removed := removed_keys_in(config):
        raise ConfigError(f"{path}: {'; '.join(removed)}")
    upgraded = _upgraded(config, "")
    if is_run(config):
        upgraded = upgrade_config(config) | {"defaults": RUN_DEFAULTS}
    return None if upgraded == config else upgraded


def is_run(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration is the config.yaml of a run."""
    defaults = config.get("defaults") or []
    return "graph_schema@graph" in defaults or defaults == RUN_DEFAULTS


def read_config(path: Path) -> dict[str, Any]:
    """Return a configuration as it is written, or nothing where it is absent or unreadable."""
    if not path.is_file():
        return {}
    check_folder_size(path.parent)
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        # Hydra says what is wrong.
        return {}
    return config if isinstance(config, dict) else {}


def _upgraded(node: Any, path: str) -> Any:
    if isinstance(node, list):
        return [_upgraded(item, path) for item in node]
    if not isinstance(node, Mapping):
        return node
    kept = {key: value for key, value in node.items() if f"{path}{key}" not in REMOVED_KEYS}
    return {
        key: RENAMED_TARGETS.get(str(value), value)
        if key == "_target_"
        else _upgraded(value, f"{path}{key}.")
        for key, value in kept.items()
    }
