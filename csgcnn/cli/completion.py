"""Candidates for what a shell completes: commands, groups, options, keys, values and paths.

Neither Hydra nor torch is imported: a shell waits for the answer.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from csgcnn.cli.spelling import PLAIN_KEYS
from csgcnn.config.keys import command_keys, described_keys
from csgcnn.config.locations import CONF
from csgcnn.config.override import ALIASES, full_key, parse_override
from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.settings.setting import Key

SHELLS = ("bash", "zsh", "fish")
GENERAL_FLAGS = ("--help", "--version", "--install-completion", "--show-completion")
# Flags with the values that they take; "" for a path.
FLAGS: dict[str, Sequence[str]] = {
    "--help": (),
    "--multirun": (),
    "--cfg": ("job", "hydra", "all"),
    "--resolve": (),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--config-dir": ("",),
    "--config-name": (),
    "--hydra-help": (),
}
PATHS_OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir")
# Ends of candidates that more text follows.
OPEN_ENDS = ("=", ".", "/")


def completions(line: str, shell: str, commands: Sequence[str]) -> list[str]:
    """Return the words that the last word of a command line may become, as the shell reads them.

    Args:
        line: The command line up to the cursor.
        shell: The shell.
        commands: Names of all commands.
    """
    words, word, is_quoted = _split_line(line)
    every = dict.fromkeys(candidates(words[1:], word, commands))
    found = [item for item in every if item.startswith(word)]
    if shell == "fish" or is_quoted:
        return found
    return [re.sub(r"([\s\"'\\$`&|;<>()*?\[\]{}!#])", r"\\\1", item) for item in found]


def _split_line(line: str) -> tuple[list[str], str, bool]:
    """Return the complete words of a command line, its last word, and whether that is in quotes."""
    for quote in ("", "'", '"'):
        try:
            # The mark keeps an empty last word.
            *words, last = shlex.split(f"{line}\0{quote}", posix=True)
        except ValueError:
            continue
        # NAME=value before the program
        while words and re.match(r"\w+=", words[0]):
            del words[0]
        return words, last.removesuffix("\0"), bool(quote)
    return [], "", False


def candidates(words: Sequence[str], word: str, commands: Sequence[str]) -> Iterable[str]:
    """Return what may be typed as the last word, without regard to the part that was typed.

    Args:
        words: Words after the name of the program, before the last word.
        word: The last word.
        commands: Names of all commands.
    """
    if not words:
        return [*commands, *GENERAL_FLAGS]
    command, before = words[0], words[-1]
    if command in ("--install-completion", "--show-completion"):
        return SHELLS
    if FLAGS.get(before):
        return _paths("", word) if FLAGS[before] == ("",) else FLAGS[before]
    if word.startswith("-"):
        return FLAGS if command in COMMANDS else ("--help",)
    if command in COMMANDS:
        return _overrides(command, words[1:], word)
    if command in PLAIN_KEYS:
        own = [f"{key}=" for key in PLAIN_KEYS[command]]
        start = next((key for key in ("output=", "structures=") if word.startswith(key)), "")
        return _paths(start, word) if start else [*own, *_paths("", word)]
    return _paths("", word) if command == "table" else ()


def _overrides(command: str, words: Sequence[str], word: str) -> Iterable[str]:
    """Return overrides: names of groups and keys, or after "=" their values."""
    groups, keys = _groups(command, words), _keys(command, tuple(words))
    name, equal, value = word.partition("=")
    prefix = re.match(r"\+{0,2}|~", name)[0]  # type: ignore[index]
    if not equal:
        return [f"{prefix}{text}" for text in _names(groups, keys, name.removeprefix(prefix))]
    key = full_key(name.removeprefix(prefix))
    # An item of a list, or one of several values of a sweep.
    start = f"{name}={value[: max(value.rfind(mark) for mark in '[,') + 1]}"
    if key in groups:
        return [f"{start}{option}" for option in groups[key]]
    known = keys.get(key)
    if key in PATHS_OF_HYDRA or (known and known.setting.is_path):
        return _paths(start, word)
    return [f"{start}{text}" for text in _values(known)] if known else ()


def _names(groups: Collection[str], keys: Collection[str], word: str) -> Iterator[str]:
    """Yield names up to the next point: trainer., then trainer.ema=."""
    depth = word.count(".")
    aliases = [alias for alias, name in ALIASES.items() if name in groups or name in keys]
    yield from (f"{name}=" for name in (*groups, *aliases) if not depth)
    first = word.partition(".")[0]
    for key in keys:
        is_short = first in ALIASES and key.startswith(f"{ALIASES[first]}.")
        name = f"{first}{key.removeprefix(ALIASES[first])}" if is_short else key
        if name.startswith(word):
            parts = name.split(".")
            yield ".".join(parts[: depth + 1]) + ("=" if len(parts) == depth + 1 else ".")


def _values(key: Key) -> list[str]:
    values = [*key.setting.choices, *["true", "false"] * ("bool" in key.kinds)]
    return [*values, *["null"] * (bool(values) and "None" in key.kinds)]


def _paths(start: str, word: str) -> list[str]:
    """Return the files and folders of the folder that is being typed; folders end with /."""
    typed = word.removeprefix(start)
    folder = typed[: typed.rfind("/") + 1]
    try:
        entries = sorted(Path(folder or ".").expanduser().iterdir())
    except OSError:
        return []
    is_hidden = typed[len(folder) :].startswith(".")
    shown = [entry for entry in entries if is_hidden or not entry.name.startswith(".")]
    return [f"{start}{folder}{entry.name}{'/' * entry.is_dir()}" for entry in shown]


def _groups(command: str, words: Sequence[str]) -> dict[str, list[str]]:
    """Return the options of each group of a command, those of --config-dir included."""
    folders = [CONF, *_config_folders(words)]
    found = {}
    for group in _defaults(command):
        options = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        found[group] = sorted(options)
    return found


def _config_folders(words: Sequence[str]) -> list[Path]:
    flags = ("--config-dir", "-cd")
    return [Path(value).expanduser() for flag, value in pairwise(words) if flag in flags]


@cache
def _defaults(command: str) -> dict[str, list[str]]:
    """Return the groups of a command and the options that they have by default."""
    found: dict[str, list[str]] = {}
    for item in _read(CONF / f"{command}.yaml").get("defaults", ()):
        if isinstance(item, str) and (CONF / f"{item}.yaml").exists():
            found |= _defaults(item)
        elif isinstance(item, dict):
            for group, options in item.items():
                if not group.startswith("override"):
                    listed = options if isinstance(options, list) else [options]
                    found[group] = [option for option in listed if option]
    return found


def _keys(command: str, words: tuple[str, ...]) -> dict[str, Key]:
    """Return every key of a command, with those of the options that the words choose."""
    chosen = dict(_defaults(command))
    for override in filter(None, map(parse_override, words)):
        if override.key in chosen and override.value:
            chosen[override.key] = re.findall(r"\w+", override.value)
    config: dict[str, Any] = {}
    for group, options in chosen.items():
        for option in options:
            for folder in (CONF, *_config_folders(words)):
                content = _option(folder / group / f"{option}.yaml", group)
                config[group] = {**config.get(group, {}), **content}
    return dict(described_keys(config, command_keys(command)))


def _option(path: Path, group: str) -> dict[str, Any]:
    """Return the keys of an option below its group, included files first."""
    content = _read(path)
    is_global = "# @package _global_" in _text(path)[:200]
    own = content.get(group, {}) if is_global else content
    included: dict[str, Any] = {}
    for item in content.get("defaults", ()):
        if isinstance(item, str) and item.startswith("/"):
            included |= _read(CONF / f"{item[1:].partition('@')[0]}.yaml")
    is_config = isinstance(own, Mapping)
    return {**included, **{k: own[k] for k in own if k != "defaults"}} if is_config else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(_text(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


@cache
def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
