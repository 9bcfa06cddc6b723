"""Arguments of the Python functions, as overrides and configurations of the commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from csgcnn.commands.frames import is_frame, write_frame
from csgcnn.config.compose import compose, to_overrides
from csgcnn.config.keys import section_keys
from csgcnn.config.locations import group_names, option_names
from csgcnn.config.override import ALIASES, SHORT_NAMES
from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.tree import leaves
from csgcnn.errors import ConfigError, first_line, nearest

DATA_FILE = "dataset.jsonl.gz"


def dataset_keys(dataset: Any, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that select a data set, which is written to the folder if needed.

    Args:
        dataset: Option of the group `dataset`, path, DataFrame, or None for the default.
        folder: Folder for the file of a DataFrame.
        settings: The other arguments.
    """
    if dataset is None:
        return {}
    if is_frame(dataset):
        column = settings.get("dataset.structure_column")
        return {"dataset": "csv", "dataset.hint": ""} | write_frame(
            dataset, folder / DATA_FILE, column
        )
    if str(dataset) in option_names("dataset") and not Path(dataset).exists():
        return {"dataset": str(dataset)}
    return {"dataset": "csv", "dataset.hint": "", "dataset.path": str(dataset)}


def full_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by the keys of the command line.

    Raises:
        ConfigError: There is no such key.
    """
    keys = {SHORT_NAMES.get(name, name): value for name, value in settings.items()}
    known = {*group_names(), *ALIASES, *SHORT_NAMES}
    known |= {name.partition(".")[0] for name in section_keys(COMMANDS["train"])}
    for name in keys:
        if name.partition(".")[0] not in known:
            raise ConfigError(f"there is no argument {name}{nearest(name, sorted(known))}")
    return keys


def _with_entries(command: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which entries of a dict, such as dataset.units.gap, are in the dict."""
    keys = section_keys(COMMANDS[command])
    dicts = [name for name, key in keys.items() if key.type.startswith("dict")]
    found: dict[str, Any] = {}
    for key, value in settings.items():
        parent = next((name for name in dicts if key.startswith(f"{name}.")), None)
        if parent:
            found[parent] = {**found.get(parent, {}), key.removeprefix(f"{parent}."): value}
        else:
            found[key] = {**(value or {}), **found[key]} if key in found else value
    return found


def names(keys: Mapping[str, Any]) -> list[str]:
    """Return the full names of the keys that settings set; a dict sets one for each entry."""
    return [name for key, value in keys.items() for name, _ in leaves(value, key)]


def compose_settings(
    command: str, settings: Mapping[str, Any], config_dir: Path | None = None
) -> DictConfig:
    """Return the configuration of a command.

    Args:
        command: Name of the command.
        settings: Values by key of the command line.
        config_dir: Folder of a run, whose configuration is used instead of the one of the command.

    Raises:
        ConfigError: A key or value is wrong.
    """
    try:
        return compose(
            command,
            to_overrides(_with_entries(command, settings)),
            config_dirs=[config_dir] if config_dir else [],
            config_name="config" if config_dir else None,
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error.__cause__ or error)) from error
