"""Configurations of a user: a plain YAML file holds overrides of the configuration of a command."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from omegaconf import OmegaConf

from csgcnn.config.locations import CONF, group_names
from csgcnn.config.override import full_key
from csgcnn.config.upgrade import read_config, upgraded_file
from csgcnn.errors import ConfigError


@contextmanager
def user_folders(folder: Path, name: str, command: str) -> Iterator[list[Path]]:
    """Provide the folders in which Hydra finds a user's configuration and options.

    Args:
        folder: Folder that the user gave.
        name: Name of the configuration.
        command: Command, whose configuration a file without a defaults list overrides.

    Yields:
        The folders, the first one has precedence.
    """
    path = folder / f"{name.removesuffix('.yaml')}.yaml"
    with TemporaryDirectory(prefix="csgcnn-") as temporary:
        config, is_searched = _plain(path, Path(temporary)), True
        if config is None:
            written = upgraded_file(path)
        else:
            written = _completed(config, read_config(CONF / f"{command}.yaml"))
            # The folder may be any folder: it is searched only if it holds options.
            is_searched = any((folder / group).is_dir() for group in group_names())
        if written is not None:
            OmegaConf.save(OmegaConf.create(written), Path(temporary, path.name))
        yield [*[Path(temporary)] * (written is not None), *[folder] * is_searched]


def _plain(path: Path, temporary: Path) -> dict[str, Any] | None:
    """Return the content of a file without a defaults list, else None.

    Raises:
        ConfigError: The file is not YAML, or holds something other than keys.
    """
    if not path.is_file():
        return None
    # A copy: reading checks the size of the whole folder.
    config = read_config(Path(shutil.copy(path, temporary)))
    if not config:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.MarkedYAMLError as error:
            where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise ConfigError(f"{path}{where}: {error.problem}; expected YAML") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: expected text in UTF-8") from error
        if content and not isinstance(content, Mapping):
            raise ConfigError(f"{path}: expected lines with a key and its value, such as seed: 1")
        if content:
            # Hydra says what is wrong.
            return None
    return None if "defaults" in config else config


def _completed(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the defaults list of a command and the options that it names.

    Args:
        config: Keys, which may be dotted, and options by group.
        base: Content of the file of the command in `conf/`.
    """
    groups = group_names()
    own: Any = OmegaConf.create({"hydra": base.get("hydra", {})})
    chosen: dict[str, Any] = {}
    for name, value in config.items():
        key = full_key(str(name))
        if key in groups and not isinstance(value, Mapping):
            chosen[key] = value
        else:
            OmegaConf.update(own, key, value, merge=True, force_add=True)
    listed = [entry for entry in base["defaults"] if entry != "_self_"]
    for entry in listed:
        if isinstance(entry, dict) and (group := next(iter(entry))) in chosen:
            entry[group] = chosen.pop(group)
    options = [{f"override {group}": option} for group, option in chosen.items()]
    keys: Any = OmegaConf.to_container(own)
    return {"defaults": [*listed, *options, "_self_"], **keys}
