"""Command-line arguments in the form that Hydra reads: aliases, quotes, removed keys, resume."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from csgcnn.config.free_text import (
    as_dict_key,
    as_value,
    decoded,
    encoded,
    is_quoted,
    list_of_text,
    split_items,
)
from csgcnn.config.keys import command_keys
from csgcnn.config.locations import group_names
from csgcnn.config.override import ALIASES, Override, parse_override
from csgcnn.config.paths import user_path
from csgcnn.config.settings.removed import REMOVED_KEYS
from csgcnn.config.settings.setting import Key
from csgcnn.errors import ConfigError
from csgcnn.runs.locate import find_run

CONFIG_FLAGS = ("--config-", "-cd", "-cn", "-cp")
# Keys of Hydra that hold paths.
VERBATIM_KEYS_OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir")


def canonical(command: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments as Hydra reads them.

    Flags come first. Aliases are replaced by full keys, paths and comparisons are quoted, and an
    entry of a dict, such as dataset.units.band_gap, may be new and have a dotted name.

    Args:
        command: Name of the command.
        arguments: Arguments that follow the command.

    Raises:
        ConfigError: A key or an option was removed.
    """
    is_sweep = "--multirun" in arguments or "-m" in arguments
    flags, overrides = [], []
    for before, text in pairwise(["", *arguments]):
        is_value_of_flag = text.startswith("-") or before.startswith("--config")
        override = None if is_value_of_flag else parse_override(text)
        if override is None:
            flags.append(text)
            continue
        _refuse_removed(override)
        overrides.append(str(_quoted(override, command_keys(command), is_sweep)))
    return flags + overrides


def as_typed(message: str, command: str, arguments: Sequence[str]) -> str:
    """Return a message with the overrides that it repeats in the form that the user typed.

    Args:
        message: Message about the arguments that `canonical` returned.
        command: Name of the command.
        arguments: Arguments that the user gave.
    """
    for text in filter(parse_override, arguments):
        (internal,) = canonical(command, [text])
        message = message.replace(internal, text)
    return decoded(message)


def opted_in(arguments: Iterable[str]) -> list[str]:
    """Return the packages that `plugins=[...]` on the command line allows."""
    parsed = (parse_override(text) for text in arguments)
    values = [override.value or "" for override in parsed if override and override.key == "plugins"]
    return sorted({name for value in values for name in re.findall(r"[^\s\[\],'\"]+", value)})


def resumed(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with those that `resume=DIR` stands for: its folder and configuration.

    The configuration of the run is used unless an option of a group is chosen.

    Raises:
        UserError: The folder holds no run.
        ConfigError: A sweep cannot resume one run.
    """
    parsed = [override for override in map(parse_override, arguments) if override is not None]
    chosen = [
        (override.value or "").strip("'\"") for override in parsed if override.key == "resume"
    ]
    if not chosen or chosen[-1] in ("", "null", "auto"):
        return list(arguments)
    given = chosen[-1]
    if "--multirun" in arguments or "-m" in arguments:
        raise ConfigError(
            f"resume={given} resumes one run; for a sweep give resume=auto and its hydra.sweep.dir"
        )
    folder = str(find_run(user_path(given)))
    places = [override.value for override in parsed if override.key == "hydra.run.dir"]
    if any(user_path((place or "").strip("'\"")) != Path(folder) for place in places):
        raise ConfigError(f"hydra.run.dir has no effect: resume={given} continues in {folder}")
    groups = {*group_names(), *ALIASES}
    has_config = any(override.key in groups for override in parsed) or any(
        text.startswith(CONFIG_FLAGS) for text in arguments
    )
    config = [] if has_config else ["--config-dir", folder, "--config-name", "config"]
    return [*config, *arguments, f"hydra.run.dir={folder}"]


def _refuse_removed(override: Override) -> None:
    for removed, (_, reason) in REMOVED_KEYS.items():
        group, _, option = removed.partition(".")
        options: list[Any] = re.findall(r"\w+", override.value or "")
        if override.key == removed or (override.key == group and option in options):
            shown = f"{group}={option}" if override.key == group else removed
            raise ConfigError(f"{shown} no longer exists: {reason}")


def _quoted(override: Override, keys: Mapping[str, Key], is_sweep: bool) -> Override:
    """Return an override with the quotes that free text needs."""
    prefix, name, value = override
    parent = next((known for known in _dicts(keys) if name.startswith(f"{known}.")), None)
    key = keys.get(parent or name)
    entry = name[len(parent) + 1 :] if parent else ""
    is_word = re.fullmatch(r"[A-Za-z_]\w*", entry, re.ASCII)
    if prefix == "~" and parent and not is_word:
        name = f"{parent}.{encoded(entry)}"
        return Override(prefix, name, None if value is None else as_value(value))
    if value is None or not (key or name in VERBATIM_KEYS_OF_HYDRA):
        return override
    is_text = key is None or key.setting.verbatim or key.setting.is_path
    if name in _dicts(keys) and value.startswith("{"):
        return Override(prefix or "++", name, _dict(value, is_text))
    values = split_items(value) if is_sweep else [value]
    values = [_text(one) for one in values] if is_text else values
    if parent and not is_word:
        values = [one or "''" for one in values]
        # Hydra would read a dot as a dict in a dict, and refuse other characters.
        entries = (f"{{{as_dict_key(entry)}: {one}}}" for one in values)
        return Override("++", parent, ",".join(entries))
    return Override(prefix or "++" * bool(parent), name, ",".join(values))


def _dicts(keys: Mapping[str, Key]) -> list[str]:
    return [name for name, key in keys.items() if key.type.startswith("dict")]


def _dict(value: str, is_text: bool) -> str:
    """Return {Eg (eV): eV} with the quotes that it needs, unless it has some."""
    items = [item.partition(":") for item in split_items(value[1:-1])]
    if re.search(r"[\\'\"]", value) or not all(colon for _, colon, _ in items):
        return value
    texts = (
        f"{as_dict_key(name.strip())}: {_text(one.strip()) if is_text else one.strip()}"
        for name, _, one in items
    )
    return f"{{{', '.join(texts)}}}"


def _text(value: str) -> str:
    """Quote a text, or the items of a list."""
    if value in ("", "null", "???") or is_quoted(value):
        return value
    is_list = value.startswith("[") and value.endswith("]")
    return list_of_text(value) if is_list else as_value(value)
