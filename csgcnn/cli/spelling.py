"""Find misspelled keys and options before Hydra is imported, which takes most of a second."""

from collections.abc import Iterable, Sequence
from dataclasses import fields

from csgcnn.config.keys import section_keys
from csgcnn.config.locations import CONF
from csgcnn.config.override import ALIASES, Override, parse_override
from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.settings.removed import REMOVED_KEYS
from csgcnn.errors import ConfigError, nearest

# Other configurations may define further keys and options.
_OTHER_CONFIGURATIONS = ("--config", "-c", "hydra.searchpath", "hydra/searchpath", "resume=")
# Hydra's own completion knows no sub-commands.
HYDRA_COMPLETION = ("--shell-completion", "-sc")
USE_INSTALL_COMPLETION = "not supported; use csgcnn --install-completion [bash|zsh|fish]"


def check_spelling(command: str, arguments: Sequence[str]) -> None:
    """Check the names of keys and options as far as that is possible without Hydra.

    Hydra checks the others: entries that are added or deleted, and keys of options.

    Args:
        command: Name of the command.
        arguments: Arguments that follow it.

    Raises:
        ConfigError: A key or an option does not exist; the message gives the nearest spelling.
    """
    for flag in HYDRA_COMPLETION:
        if flag in arguments:
            raise ConfigError(f"{flag} is {USE_INSTALL_COMPLETION}")
    if any(text.startswith(_OTHER_CONFIGURATIONS) for text in arguments):
        return
    for override in filter(None, map(parse_override, arguments)):
        if not override.prefix and override.value is not None and "@" not in override.key:
            _check_override(command, override)


def _check_override(command: str, override: Override) -> None:
    settings = COMMANDS[command]
    keys, sections = section_keys(settings), [item.name for item in fields(settings)]
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    first, _, rest = override.key.partition(".")
    if first in ("hydra", *(key.partition(".")[0] for key in REMOVED_KEYS if not rest)):
        return
    if "/" in first or override.key in keys:
        return
    if first not in (*sections, *groups):
        raise _unknown(override.key, [*sections, *groups, *ALIASES], keys)
    if not rest and first in groups:
        _check_option(first, override.value or "")
    own = [key for key in keys if key.startswith(f"{first}.")]
    if rest and own and override.key not in REMOVED_KEYS:
        parents = {name for name, key in keys.items() if key.type.startswith("dict")}
        if not any(override.key.startswith(f"{parent}.") for parent in parents):
            raise _unknown(override.key, own, keys)


def _check_option(group: str, value: str) -> None:
    if not value.isidentifier() or value in ("null", "None") or group in REMOVED_KEYS:
        return
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if value not in options and f"{group}.{value}" not in REMOVED_KEYS:
        hint = nearest(value, options)
        raise ConfigError(f"{group} has no option {value!r}; expected {', '.join(options)}{hint}")


def _unknown(key: str, names: Sequence[str], keys: Iterable[str]) -> ConfigError:
    hint = nearest(key, names)
    if not hint:
        same_name = [name for name in keys if name.endswith(f".{key.rpartition('.')[2]}")]
        hint = f"; expected {', '.join(sorted(names))}"
        if same_name:
            hint = f"; did you mean {' or '.join(same_name)}?"
    return ConfigError(f"there is no key {key}{hint}")
