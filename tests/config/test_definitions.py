"""A key is defined once: in config/settings, or in the constructor of its option."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from csgcnn.config.compose import compose
from csgcnn.config.keys import command_keys, described_keys, holder, option_keys
from csgcnn.config.locations import CONF, PACKAGE
from csgcnn.config.settings.commands import COMMANDS, TRAINING_COMMANDS
from csgcnn.config.settings.removed import REMOVED_KEYS
from csgcnn.config.settings.setting import MISSING, Key
from csgcnn.config.tree import leaves, select

SETTINGS = PACKAGE / "config" / "settings"
OPTION_GROUPS = (
    *("model", "edge_calculator", "node_features", "pooling", "head", "augment"),
    *("loss", "optimizer", "scheduler", "logger"),
)
OPTIONS = [
    (group, path.stem) for group in OPTION_GROUPS for path in sorted((CONF / group).glob("*.yaml"))
]
# Options that exist to give a key another value than its default.
VARIANTS = {
    "loss": {"mse", "l1", "huber", "distribution"},
    "model": {"activation", "residual"},
    "model=cogn": {
        *("hidden", "n_convolutions", "message_layers", "norm", "activation", "residual"),
        *("n_head_layers", "initialization"),
    },
}


@cache
def compose_option(group: str, option: str) -> dict[str, Any]:
    cfg = compose("train", [f"{group}={option}"])
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return dict(plain)


def nodes(path: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the nodes with a `_target_`, by full name."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for name, child in node.items():
            yield from nodes(f"{path}.{name}", child)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_key_of_an_option_is_described_with_its_default(group: str, option: str) -> None:
    variants = VARIANTS.get(f"{group}={option}", VARIANTS.get(group, ()))
    for path, node in nodes(group, compose_option(group, option)[group]):
        keys = option_keys(node["_target_"])
        for name, value in node.items():
            if name.startswith("_") or isinstance(value, dict):
                continue
            assert name in keys, f"{path}.{name} has no Setting in {node['_target_']}"
            default, is_variant = keys[name].default, name in variants
            if default != MISSING and not is_variant and group != "optimizer":
                assert value == default, f"{path}.{name}"
        required = {name for name, key in keys.items() if key.default == MISSING}
        assert required <= node.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_command_is_described(command: str) -> None:
    plain: Any = OmegaConf.to_container(compose(command), resolve=False)
    keys = dict(described_keys(plain, command_keys(command)))
    for name, value in leaves(plain):
        if name.rpartition(".")[2].startswith("_") or value in ({}, MISSING):
            continue
        assert holder(name, keys) is not None, name


def described() -> Iterator[tuple[str, Key]]:
    for command in COMMANDS:
        for name, key in command_keys(command).items():
            yield f"{command}: {name}", key
    for group, option in OPTIONS:
        for name, key in described_keys({group: compose_option(group, option)[group]}, {}):
            yield f"{group}={option}: {name}", key


def test_every_description_is_a_sentence_and_its_default_is_in_its_range() -> None:
    for name, key in described():
        assert re.fullmatch(r"[A-Za-z].*\.", key.setting.help, re.DOTALL), name
        assert key.setting.effect in ("result", "execution", "seed"), name
        is_given = key.default not in (MISSING, None) and not isinstance(key.default, dict | list)
        if is_given:
            assert key.accepts(key.default), name
        if key.default is None:
            assert "None" in key.kinds or "Any" in key.kinds, name
            assert key.setting.null, f"{name}: null has no description"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_values_of_conf_are_the_defaults_of_the_settings(command: str) -> None:
    overrides = ["dataset=cif_folder"] if command in TRAINING_COMMANDS else []
    plain: Any = OmegaConf.to_container(compose(command, overrides), resolve=False)
    for name, key in command_keys(command).items():
        if name not in ("recipe", "dataset.hint"):
            value = select(plain, name)
            assert value == key.default, name


def names_in(module: ast.Module) -> Iterator[str]:
    """Yield the texts in collections, regular expressions and tables of constants."""
    constants = [item for item in module.body if isinstance(item, ast.Assign | ast.AnnAssign)]
    for item in (item for constant in constants for item in ast.walk(constant)):
        if isinstance(item, ast.Dict):
            keys = (key for key in item.keys if isinstance(key, ast.Constant))
            yield from (key.value for key in keys if isinstance(key.value, str))
    for child in ast.walk(module):
        if isinstance(child, ast.Set | ast.List | ast.Tuple):
            items = list(child.elts)
        elif isinstance(child, ast.Call) and ast.unparse(child.func).startswith("re."):
            items = list(child.args)
        else:
            continue
        for item in items:
            if isinstance(item, ast.Constant) and isinstance(item.value, str):
                yield item.value


def test_no_other_module_lists_keys() -> None:
    known = {
        name
        for command in COMMANDS
        for name in command_keys(command)
        if "." in name and not name.startswith("task.")
    }
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if SETTINGS not in path.parents:
            texts = set(names_in(ast.parse(path.read_text(encoding="utf-8"))))
            listed = sorted(known & texts)
            # One name alone is a reference; several are a list that drifts.
            found += [f"{path.relative_to(PACKAGE)}: {listed}"] if len(listed) > 1 else []
    assert not found, "derive the list from config/settings"


@pytest.mark.parametrize(
    "fields", [{"grad_clip", "patience"}, {"cutoff", "max_neighbors"}, {"stratify", "fold"}]
)
def test_no_other_class_has_the_fields_of_a_section(fields: set[str]) -> None:
    holders = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                own = {
                    ast.unparse(item.target)
                    for item in node.body
                    if isinstance(item, ast.AnnAssign)
                }
                holders += [path] if fields <= own else []
    assert [SETTINGS in path.parents for path in holders] == [True]


def test_removed_keys_do_not_exist() -> None:
    keys = command_keys("train")
    assert not REMOVED_KEYS.keys() & keys.keys()
    assert not Path(CONF / "augment" / "coordinate_noise.yaml").exists()
