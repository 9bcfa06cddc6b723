"""Every key of a configuration with its description, collected from where it is defined.

Keys of a run are fields of the classes in `config.settings`; keys of an option are annotated
arguments of the class or function that its `_target_` names: annotated in place, or with a name
that is assigned such an annotation. The arguments are read from the source, without importing it:
importing torch would take seconds, and `--help` must not wait.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.settings.optimizer import optimizer_keys
from csgcnn.config.settings.setting import MISSING, Effect, Key, Setting
from csgcnn.config.targets import is_allowed

# The options of the group logger, and the group itself, change no result.
RECORDING = Key("logger", "Any", None, Setting("Records of the training.", effect="execution"))


def command_keys(command: str) -> dict[str, Key]:
    """Return the keys of a command by their full names, without those of options."""
    return _section_keys(COMMANDS[command])


def section_names(command: str) -> list[str]:
    """Return the sections of the configuration of a command, with the keys at its root."""
    return [item.name for item in fields(COMMANDS[command])]


@cache
def _section_keys(section: type) -> dict[str, Key]:
    """Return the keys of a settings class by their full names, nested sections included."""
    hints, found = get_type_hints(section), dict[str, Key]()
    for item in fields(section):
        hint = hints[item.name]
        if is_dataclass(hint):
            unread = item.metadata.get("unread", ())
            for name, key in _section_keys(hint).items():  # type: ignore[arg-type]
                is_read = key.is_read and name.partition(".")[0] not in unread
                found[f"{item.name}.{name}"] = replace(key, is_read=is_read)
        elif "setting" in item.metadata:
            default = item.default
            if item.default_factory is not NO_DEFAULT:
                default = item.default_factory()
            name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
            name = name.replace("typing.", "")
            found[item.name] = Key(item.name, name, default, item.metadata["setting"])
    return found


@cache
def option_keys(target: str) -> dict[str, Key]:
    """Return the keys of an option: the annotated arguments of what `_target_` names.

    Args:
        target: Full name of a class or function.

    Returns:
        The keys by their names; none if the source cannot be found.
    """
    module, _, name = target.rpartition(".")
    if module == "torch.optim":
        return optimizer_keys(name)
    home, node = _definition(module, name)
    if isinstance(node, ast.FunctionDef):
        return dict(_annotated_arguments(home, node))
    while isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.FunctionDef) and child.name == "__init__":
                return dict(_annotated_arguments(home, child))
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        home, node = _definition(home, bases[0]) if bases else (home, None)
    return {}


def _definition(module: str, name: str) -> tuple[str, ast.AST | None]:
    """Return what a name stands for in a module, and the module that defines it.

    Imports are followed within the package and into csgcnn only: looking for a module imports its
    parent packages.
    """
    node = _names(module).get(name)
    packages = ("csgcnn", module.partition(".")[0])
    if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in packages:
        original = next(item.name for item in node.names if name in (item.asname, item.name))
        return _definition(str(node.module), original)
    return module, node


@cache
def _names(module: str) -> dict[str, ast.AST]:
    """Return the classes, functions, assigned values and imports of a module by their names."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return {}
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return {}
    found: dict[str, ast.AST] = {}
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                found[node.name] = node
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.ImportFrom():
                found |= {item.asname or item.name: node for item in node.names}
    return found


def _annotated_arguments(module: str, function: ast.FunctionDef) -> Iterator[tuple[str, Key]]:
    arguments = [*function.args.posonlyargs, *function.args.args]
    defaults = [None] * (len(arguments) - len(function.args.defaults)) + function.args.defaults
    arguments, defaults = arguments + function.args.kwonlyargs, defaults + function.args.kw_defaults
    for argument, default in zip(arguments, defaults, strict=True):
        annotation: ast.AST | None = argument.annotation
        if isinstance(annotation, ast.Name):
            annotation = _definition(module, annotation.id)[1]
        match annotation:
            case ast.Subscript(
                value=ast.Name(id="Annotated"),
                slice=ast.Tuple(elts=[kind, ast.Call(func=ast.Name(id="Setting")) as call]),
            ):
                setting = Setting(
                    *map(ast.literal_eval, call.args),
                    **{str(word.arg): ast.literal_eval(word.value) for word in call.keywords},
                )
                value = MISSING if default is None else ast.literal_eval(default)
                yield argument.arg, Key(argument.arg, ast.unparse(kind), value, setting)


def described_keys(
    config: Mapping[str, Any], sections: Mapping[str, Key]
) -> Iterator[tuple[str, Key]]:
    """Yield the full name and the description of every key that a configuration can have.

    Args:
        config: A plain configuration, whose `_target_`s say which options were chosen.
        sections: Keys of the command, as `command_keys` returns them.
    """
    yield from sections.items()
    for name, node in config.items():
        if name not in {key.partition(".")[0] for key in sections}:
            yield from _keys_below(name, node)


def _keys_below(path: str, node: Any) -> Iterator[tuple[str, Key]]:
    if isinstance(node, Mapping):
        if is_allowed(target := node.get("_target_")):
            for name, key in option_keys(target).items():
                yield f"{path}.{name}", key
        for name, child in node.items():
            yield from _keys_below(f"{path}.{name}", child)


def described_key(name: str, config: Mapping[str, Any]) -> Key | None:
    """Return the description of a key of a run, or of the one that holds it as an entry of a dict.

    Args:
        name: Full name, such as dataset.units.band_gap.
        config: A plain configuration.
    """
    if found := holder(name, dict(described_keys(config, command_keys("train")))):
        return found
    return RECORDING if name.partition(".")[0] == "logger" else None


def holder(name: str, keys: Mapping[str, Key]) -> Key | None:
    """Return the key of this name, or the one that holds it as an entry of a dict.

    Args:
        name: Full name, such as dataset.units.band_gap.
        keys: Keys of the command.
    """
    if name in keys:
        return keys[name]
    parts = name.split(".")
    parents = (keys.get(".".join(parts[:n])) for n in range(len(parts) - 1, 0, -1))
    return next((key for key in parents if key and key.type.startswith("dict")), None)


def has_effect(name: str, effect: Effect) -> bool:
    """Return whether a key of a run has this effect.

    Args:
        name: Full name, such as trainer.max_epochs.
        effect: The effect to test for.
    """
    key = described_key(name, {})
    return key is not None and key.setting.effect == effect
