"""Command-line arguments in the form that Hydra reads: aliases, quotes, removed keys, resume."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from csgcnn.config.compose import quoted
from csgcnn.config.keys import section_keys
from csgcnn.config.locations import CONF
from csgcnn.config.override import ALIASES, Override, parse_override
from csgcnn.config.paths import user_path
from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.settings.removed import REMOVED_KEYS
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
    keys = section_keys(COMMANDS[command])
    dicts = tuple(name for name, key in keys.items() if key.type.startswith("dict"))
    is_sweep = "--multirun" in arguments or "-m" in arguments
    flags, overrides = [], []
    for before, text in pairwise(["", *arguments]):
        is_value_of_flag = text.startswith("-") or before.startswith("--config")
        override = None if is_value_of_flag else parse_override(text)
        if override is None:
            flags.append(text)
            continue
        _refuse_removed(override)
        prefix, key, value = override
        if value is not None:
            parent = next((name for name in dicts if key.startswith(f"{name}.")), None)
            known = keys.get(parent or key)
            if parent:
                prefix = prefix or "++"
            if key in VERBATIM_KEYS_OF_HYDRA or (known and known.setting.verbatim):
                value = _quoted(value, is_sweep)
            entry = key[len(parent) + 1 :] if parent else ""
            if parent and "." in entry:
                # The column of a nested value; Hydra would read a dict in a dict.
                prefix, key, value = "++", parent, _entry(entry, value, is_sweep)
        overrides.append(str(Override(prefix, key, value)))
    return flags + overrides


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
    groups = {path.name for path in CONF.iterdir()} | {*ALIASES}
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


def _entry(name: str, value: str, is_sweep: bool) -> str:
    """Return a dict with one entry, or one for each of the values of a sweep."""
    values = value.split(",") if is_sweep and not _is_quoted(value) else [value]
    return ",".join(f"{{{name}: {one}}}" for one in values)


def _quoted(value: str, is_sweep: bool) -> str:
    """Quote a value, or each of the values of a sweep."""
    values = value.split(",") if is_sweep and not _is_quoted(value) else [value]
    return ",".join(map(_quote, values))


def _quote(value: str) -> str:
    return value if _is_quoted(value) or value in ("", "null", "???") else quoted(value)


def _is_quoted(value: str) -> bool:
    if len(value) < 2 or value[0] + value[-1] not in ("''", '""', "[]"):
        return False
    # 'a' if x > 0 else 'b' begins and ends with a quote, but is not in quotes
    return value[0] == "[" or not re.search(rf"(?<!\\){value[0]}", value[1:-1])
