"""Names of keys: which exist, which a command reads, and which one was meant by a wrong one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from csgcnn.config.keys import command_keys, described_keys, holder, option_keys, section_names
from csgcnn.config.override import OTHER_NAMES, SHORT_NAMES
from csgcnn.config.settings.setting import Key
from csgcnn.config.targets import SPECIAL
from csgcnn.config.tree import leaves, select
from csgcnn.errors import ConfigError, nearest


def unknown_key(
    name: str, known: Sequence[str], command: str, value: str | None = None
) -> ConfigError:
    """Return the error of a key that does not exist, with the key that was probably meant.

    Args:
        name: Full name that was given.
        known: Full names that exist at its place.
        command: Name of the command.
        value: Value that was given, repeated in the advice.
    """
    meant = meant_keys(name, command)
    if meant:
        hint = f"; did you mean {' or '.join(meant)}?"
        hint += f" Write {meant[0]}={value}" if value and len(meant) == 1 else ""
    else:
        hint = nearest(name, known) or f"; expected {', '.join(sorted(set(known)))}"
    return ConfigError(f"there is no key {name}{hint}")


def meant_keys(name: str, command: str) -> list[str]:
    """Return the key that other programs call so, or the keys with the same last part.

    Args:
        name: Name that is not that of a key.
        command: Name of the command, which reads the keys.
    """
    read = [key for key, found in command_keys(command).items() if found.is_read]
    sections = {*section_names(command)}
    last = name.rpartition(".")[2].lower().replace("-", "_")
    short = (SHORT_NAMES | OTHER_NAMES).get(last, "")
    is_option = short.partition(".")[0] in sections - {key.partition(".")[0] for key in read}
    if short in read or is_option or (short.startswith("hydra.") and command == "train"):
        return [short]
    return [key for key in read if key.rpartition(".")[2] == last][:3]


def unread_key(name: str, command: str) -> ConfigError:
    """Return the error of a key that exists, but that the command does not read.

    Args:
        name: The key.
        command: Name of the command.
    """
    return ConfigError(f"{name} has no effect on csgcnn {command}; omit it")


def check_names(config: Mapping[str, Any], command: str, given: Sequence[str]) -> None:
    """Check that every key of a configuration exists.

    Args:
        config: A plain configuration.
        command: Name of the command.
        given: Full names of the keys that the user gave.

    Raises:
        ConfigError: A key does not exist; the message gives the nearest spelling. Or the recipe
            sets a key that the chosen option does not have.
    """
    keys = command_keys(command)
    described = {key.partition(".")[0] for key in keys}
    sections = section_names(command)
    for name, value in leaves(config):
        first = name.partition(".")[0]
        if first in described:
            if holder(name, keys) is None and not (value == {} and first == name):
                siblings = [key for key in keys if key.startswith(f"{first}.")]
                raise unknown_key(name, siblings, command)
        elif first not in sections:
            raise unknown_key(name, sections, command, None if "." in name else str(value))
    for section in sections:
        if section not in described:
            for key, reason in _unknown_arguments(section, config.get(section)):
                is_given = any(name == key or name.startswith(f"{key}.") for name in given)
                if (recipe := config.get("recipe")) and not is_given:
                    reason = f"recipe={recipe} sets it for another option; ~{key} leaves it out"
                raise ConfigError(f"{key}: {reason}")


def _unknown_arguments(path: str, node: Any) -> Iterator[tuple[str, str]]:
    """Yield keys that the class or function that a `_target_` names does not accept, and why."""
    if not isinstance(node, Mapping):
        return
    target = node.get("_target_")
    known = _arguments(str(target), node) if target else None
    for name, child in node.items():
        key, is_part = f"{path}.{name}", isinstance(child, Mapping)
        if name not in SPECIAL and not is_part and known is not None and name not in known:
            yield key, f"{name} is no argument of {target}{nearest(name, known)}"
        if name not in SPECIAL and target is None and not is_part:
            # A part that no option began is left out as a whole.
            yield path if "." in path else key, f"{name}: expected a part with a _target_"
        yield from _unknown_arguments(key, child)


def _arguments(target: str, node: Mapping[str, Any]) -> list[str] | None:
    """Return the names of arguments that may be given; None: any.

    Only classes outside the package are imported, and only for a name without a description.
    """
    known = list(option_keys(target))
    if target.startswith("csgcnn."):
        return known
    if all(name in known or name in SPECIAL for name in node):
        return None
    # omegaconf takes long to import
    from csgcnn.config.instantiate import accepted_arguments

    return accepted_arguments(target)


def check_given(config: Mapping[str, Any], command: str, given: Sequence[str]) -> None:
    """Check that every key that the user gave has an effect.

    Args:
        config: A plain configuration.
        command: Name of the command.
        given: Full names of the keys that the user gave.

    Raises:
        ConfigError: The command does not read a key, or the value of another key leaves it unread.
    """
    keys = dict(described_keys(config, command_keys(command)))
    for name in given:
        key = holder(name, keys)
        if key is None:
            continue
        if not key.is_read:
            raise unread_key(name, command)
        parent = name.rpartition(".")[0]
        section, value = select(config, parent) if parent else config, select(config, name)
        asks_for_nothing = value is None or value is False
        if name in keys and not asks_for_nothing and not key.setting.is_read(section):
            raise ConfigError(f"{name}={value} needs {_needed(parent, key, section)}")


def check_columns(config: Mapping[str, Any], typed: Sequence[str]) -> None:
    """Check that the columns whose units, weights or expressions were typed are used.

    Options may describe further columns of their data.

    Args:
        config: A plain configuration of a training.
        typed: Full names of the keys of the command line.

    Raises:
        ConfigError: A column is no target, and nothing else reads it; or the weight of a target is
            compared with no other.
    """
    dataset = config["dataset"]
    targets = dataset["targets"]
    if targets is None:
        return
    weights = [name for name in typed if name.startswith("dataset.task_weights")]
    if weights and len(targets) == 1:
        raise ConfigError(f"{weights[0]} has no effect on one target, {targets[0]}; omit it")
    split = dataset["split"]
    read = (dataset["weight_column"], dataset["delta"], split["column"], split["stratify"])
    read += (dataset["fidelity"], *(dataset["inputs"] or ()), *dataset["fidelities"].values())
    for key, used in (("units", targets), ("derived", [*targets, *read])):
        for name in typed:
            column = name.removeprefix(f"dataset.{key}.")
            if column != name and column not in used:
                hint = nearest(column, targets) if key == "units" else ""
                hint = hint or f"; the targets are {', '.join(targets)}"
                raise ConfigError(f"{name} has no effect: {column} is not a target{hint}")


def _needed(parent: str, key: Key, section: Mapping[str, Any]) -> str:
    other, _, values = key.setting.read_by.partition("=")
    name = f"{parent}.{other}" if parent else other
    if not values:
        return f"{name}=…, without which it has no effect"
    found = section.get(other)
    if isinstance(found, Mapping):
        name += ".TARGET"
    is_value = isinstance(found, str | int | float)
    return f"{name}={key.setting.readers}" + (f", not {found}" if is_value else "")
