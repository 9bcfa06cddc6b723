"""Bring configurations of earlier versions up to date."""

from collections.abc import Mapping
from typing import Any

from csgcnn.config.settings.removed import FORMER_DEFAULTS, REMOVED_KEYS, RENAMED_TARGETS


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
