"""The text of `csgcnn COMMAND --help`: usage, groups, every key with its description, examples."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.hydra import Hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from csgcnn.cli.usage import USAGES
from csgcnn.config.compose import as_argument
from csgcnn.config.keys import command_keys, described_keys
from csgcnn.config.override import ALIASES
from csgcnn.config.settings.setting import MISSING, Key
from csgcnn.config.tree import select

MAX_WIDTH = 100
INDENT = 32
MAX_VALUE = 40

Options = Mapping[str, Sequence[str]]


def help_text(command: str, cfg: DictConfig, options: Options, width: int | None = None) -> str:
    """Return the help of a command with the values of a composed configuration.

    Args:
        command: Name of the command.
        cfg: Its configuration, with the node `hydra`.
        options: Options of each group.
        width: Columns of the terminal.
    """
    width = min(width or shutil.get_terminal_size().columns, MAX_WIDTH)
    usage = USAGES[command]
    parts = [*_wrap(f"csgcnn {command}: {usage.summary}", width), "", f"usage: {usage.usage}"]
    parts += ["", usage.notes] if usage.notes else []
    if options:
        aliases = ", ".join(f"{alias}= is short for {name}=" for alias, name in ALIASES.items())
        parts += ["", *_wrap(f"groups (group=option; {aliases})", width)]
        parts += [_entry(group, ", ".join(options[group]), width) for group in options]
    for section, keys in sections(command, plain_config(cfg)).items():
        option = cfg.hydra.runtime.choices.get(section)
        parts += ["", f"{section}={option}" if isinstance(option, str) else section]
        parts += [_entry(_assignment(*item), description(item[1]), width) for item in keys]
    parts += ["", "examples", *(f"  {line}" for line in usage.examples.splitlines())]
    parts += ["", f"flags of Hydra (--multirun, --cfg, --info): csgcnn {command} --hydra-help"]
    return "\n".join(parts)


def options_of(hydra: Hydra, cfg: DictConfig) -> dict[str, list[str]]:
    """Return the options of each group of a composed configuration.

    Args:
        hydra: Hydra, which knows the folders of configurations.
        cfg: The configuration, with the node `hydra`.
    """
    loader = hydra.config_loader
    groups = set(loader.list_groups("")) - {"hydra"}
    own = [name for name in map(str, cfg) if name in groups]
    others = sorted(groups & set(map(str, cfg.hydra.runtime.choices)) - set(own))
    return {name: loader.get_group_options(name) for name in [*own, *others]}


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """Return a composed configuration as plain data, without the node `hydra`."""
    own = OmegaConf.masked_copy(cfg, [key for key in map(str, cfg) if key != "hydra"])
    try:
        plain: Any = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException:
        plain = OmegaConf.to_container(own, resolve=False)
    return dict(plain)


def sections(command: str, config: Mapping[str, Any]) -> dict[str, list[tuple[str, Key, Any]]]:
    """Return the keys of a configuration by section: full name, description, value.

    Args:
        command: Name of the command, which reads the keys.
        config: A plain configuration.
    """
    keys = command_keys(command)
    found: dict[str, list[tuple[str, Key, Any]]] = {}
    for name, key in described_keys(config, keys):
        if not key.is_read:
            continue
        section = name.rpartition(".")[0] if name in keys else name.partition(".")[0]
        found.setdefault(section or "run", []).append((name, key, value_of(name, key, config)))
    return found


def value_of(name: str, key: Key, config: Mapping[str, Any]) -> Any:
    """Return the value of a key in a plain configuration, or its default.

    Args:
        name: Full name of the key.
        key: Its description.
        config: The configuration.
    """
    section, _, last = name.rpartition(".")
    parent = select(config, section) if section else config
    return parent[last] if isinstance(parent, Mapping) and last in parent else key.default


def description(key: Key) -> str:
    """Return the help text of a key: effect, unit, allowed values, needs, meaning of null."""
    facts = [key.setting.unit and f"in {key.setting.unit}"]
    if key.setting.choices:
        facts.append(key.setting.expected())
    elif key.setting.is_bounded:
        facts.append(key.expected)
    if key.setting.read_by:
        name, _, values = key.setting.read_by.partition("=")
        facts.append(f"needs {name}={key.setting.readers}" if values else f"needs {name}")
    facts.append(key.setting.null and f"null: {key.setting.null}")
    given = "; ".join(filter(None, facts))
    return f"{key.setting.help} [{given}]" if given else key.setting.help


def _assignment(name: str, _: Key, value: Any) -> str:
    shown = as_argument(value)
    shown = shown if len(shown) <= MAX_VALUE else f"{shown[: MAX_VALUE - 3]}..."
    return f"{name} (required)" if value == MISSING else f"{name}={shown}"


def _entry(name: str, text: str, width: int) -> str:
    """Return a name and its text in two columns; a long name gets a line of its own."""
    lines = _wrap(text, width - INDENT)
    first = f"  {name}".ljust(INDENT)
    if len(first) > INDENT - 1 and not first.endswith(" "):
        return "\n".join([f"  {name}", *(" " * INDENT + line for line in lines)])
    return "\n".join([first + lines[0], *(" " * INDENT + line for line in lines[1:])]).rstrip()


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
