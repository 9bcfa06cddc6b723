"""Find misspelled keys and options before Hydra is imported, which takes most of a second."""

from collections.abc import Sequence
from itertools import pairwise

from csgcnn.config.keys import command_keys, holder, section_names
from csgcnn.config.locations import group_names, option_names
from csgcnn.config.names import meant_keys, unknown_key, unread_key
from csgcnn.config.override import ALIASES, Override, full_key, parse_override
from csgcnn.config.settings.commands import TRAINING_COMMANDS
from csgcnn.config.settings.removed import REMOVED_KEYS
from csgcnn.errors import ConfigError, nearest

_FLAGS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run"),
    *("--multirun", "--shell-completion", "--config-path", "--config-name", "--config-dir"),
    *("--experimental-rerun", "--info"),
)
_SHORT_FLAGS = ("-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i")
# Other configurations may define further keys and options.
_OTHER_CONFIGURATIONS = ("--config", "-c", "hydra.searchpath", "hydra/searchpath", "resume=")
# Keys of the commands that read a file and have no configuration.
PLAIN_KEYS = {
    "report": ("output", "structures"),
    "card": ("output", "license", "name", "overwrite"),
    "import-cgcnn": ("output", "name", "unit", "overwrite"),
}
# Hydra's own completion knows no sub-commands.
HYDRA_COMPLETION = ("--shell-completion", "-sc")
USE_INSTALL_COMPLETION = "not supported; use csgcnn --install-completion [bash|zsh|fish]"


def check_spelling(command: str, arguments: Sequence[str]) -> None:
    """Check the names of keys and options as far as that is possible without Hydra.

    The composed configuration is checked for the others, such as keys of options.

    Args:
        command: Name of the command.
        arguments: Arguments that follow it.

    Raises:
        ConfigError: A key or an option does not exist, with the nearest spelling, or cannot be
            deleted.
    """
    for flag in HYDRA_COMPLETION:
        if flag in arguments:
            raise ConfigError(f"{flag} is {USE_INSTALL_COMPLETION}")
    for text, following in pairwise([*arguments, ""]):
        _check_flag(command, text, following)
    if any(text.startswith(_OTHER_CONFIGURATIONS) for text in arguments):
        return
    overrides = filter(None, map(parse_override, arguments))
    # Keys that are added or deleted come last.
    for override in sorted(overrides, key=lambda override: override.prefix != ""):
        if "@" not in override.key:
            _check_override(command, override)


def _check_flag(command: str, text: str, following: str) -> None:
    """Refuse a flag that is none of Hydra's; --epochs 10 stands for a key in other programs."""
    flag, _, value = text.partition("=")
    if not flag.startswith("-") or flag == "-" or flag.startswith(_SHORT_FLAGS):
        return
    if flag.startswith("--") and any(known.startswith(flag) for known in _FLAGS):
        return
    name = flag.lstrip("-").replace("-", "_")
    if not value and not following.startswith("-") and "=" not in following:
        value = following
    key = full_key(name)
    keys = command_keys(command)
    value = value or "VALUE"
    is_known = key in keys or key in _groups(command)
    meant = [key] if is_known else meant_keys(key, command)
    hint = f"; write {' or '.join(f'{name}={value}' for name in meant)}"
    if not meant:
        hint = nearest(flag, _FLAGS) or f"; csgcnn {command} --help lists the keys"
    raise ConfigError(f"there is no flag {flag}{hint}")


def _check_override(command: str, override: Override) -> None:
    keys = command_keys(command)
    sections = section_names(command)
    groups = _groups(command)
    key, (first, _, rest) = override.key, override.key.partition(".")
    is_section = any(name.startswith(f"{key}.") for name in keys)
    if override.prefix == "~" and (key in keys or (is_section and key not in groups)):
        raise ConfigError(f"{key} cannot be deleted; give another value")
    if first in ("hydra", *(name.partition(".")[0] for name in REMOVED_KEYS if not rest)):
        return
    if "/" in first or key in REMOVED_KEYS:
        return
    if first not in (*sections, *groups):
        raise unknown_key(key, [*sections, *groups, *ALIASES], command, override.value)
    if not rest and first in groups:
        _check_option(first, override.value or "")
    known = holder(key, keys)
    if known and not known.is_read:
        raise unread_key(key, command)
    own = [name for name in keys if name.startswith(f"{first}.")]
    if rest and own and not known and not is_section:
        raise unknown_key(key, own, command, override.value)


def _groups(command: str) -> list[str]:
    if command in TRAINING_COMMANDS:
        return group_names()
    return [] if "structures" in command_keys(command) else ["dataset"]


def _check_option(group: str, value: str) -> None:
    if not value.isidentifier() or value in ("null", "None") or group in REMOVED_KEYS:
        return
    options = option_names(group)
    if value not in options and f"{group}.{value}" not in REMOVED_KEYS:
        hint = nearest(value, options)
        raise ConfigError(f"{group} has no option {value!r}; expected {', '.join(options)}{hint}")
