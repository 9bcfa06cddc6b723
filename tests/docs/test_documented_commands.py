import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from doc_pages import PAGES, ROOT, commands, inline_code, name_of
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from omegaconf import OmegaConf

from csgcnn.cli.main import COMMANDS
from csgcnn.cli.overrides import canonical
from csgcnn.cli.usage import USAGES
from csgcnn.config.compose import compose, full_key
from csgcnn.config.keys import command_keys, described_keys
from csgcnn.config.settings.commands import COMMANDS as SETTINGS
from csgcnn.config.settings.removed import REMOVED_KEYS
from csgcnn.config.validate import check_values

CONF = ROOT / "conf"
GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}
TEXTS = {name_of(page): page.read_text(encoding="utf-8") for page in PAGES}
TEXTS |= {f"{name} --help": f"```\n{usage.examples}\n```\n" for name, usage in USAGES.items()}
OPEN_SECTIONS = {
    f"dataset.{name}"
    for name in (
        *("units", "derived", "tasks", "task_weights", "transform", "labels"),
        *("grid", "grid_units", "grid_loss"),
    )
}
MISSPELLED = (
    "modle=csgcnn",
    "model=csgcn",
    "trainer.max_epochs=two",
)  # docs/performance.md times them
OPTION_GROUPS = GROUPS - {"dataset", "experiment", "hparams", "notes", "recipe"}


@cache
def plain_config(command: str, *overrides: str) -> dict[str, Any]:
    config = OmegaConf.to_container(compose(command, overrides), resolve=True)
    return cast(dict[str, Any], config)


@cache
def option_exists(group: str, option: str) -> bool:
    return (CONF / group / f"{option}.yaml").exists()


@cache
def known_keys() -> set[str]:
    """Every key of a run with any options, and its sections."""
    sections = command_keys("benchmark")
    keys = {*REMOVED_KEYS, *sections}
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        if group in OPTION_GROUPS:
            options = yaml.safe_load(path.read_text(encoding="utf-8"))
            options = options.get(group, options)  # a file for the whole configuration
            if group == "model":
                base = yaml.safe_load((CONF / "model_base.yaml").read_text(encoding="utf-8"))
                options = base | {name: options[name] for name in options if name != "defaults"}
            keys |= {name for name, _ in described_keys({group: options}, {})}
            keys |= {f"{group}.{name}" for name in options}
    return keys | {".".join(key.split(".")[:n]) for key in keys for n in (1, 2)}


def single_runs(command: str, words: list[str]) -> Iterator[str]:
    """Yield the overrides of one run of a command; of a sweep, that of its first run."""
    overrides = [
        word for word in canonical(command, words) if not word.startswith("-") and "=" in word
    ]
    for override in OverridesParser.create().parse_overrides(overrides):
        check_options(override)
        if not override.is_sweep_override():
            yield cast(str, override.input_line)
        elif isinstance(sweep := override.value(), ChoiceSweep) and sweep.simple_form:
            first = cast(str, override.input_line).split("=", 1)[1].split(",")[0]
            if "[" not in first:
                yield f"{override.key_or_group}={first}"


def check_options(override: Override) -> None:
    group = override.key_or_group
    if group in GROUPS and group != "node_features" and not is_placeholder(override.value()):
        values = override.value()
        options = values.list if isinstance(values, ChoiceSweep) else values
        for option in options if isinstance(options, list) else [options]:
            assert option_exists(group, str(option)), f"{group}={option}"


def is_placeholder(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Z_]+", value) is not None


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_documented_commands_have_existing_options_and_keys(text: str) -> None:
    found = {tuple(command) for command in commands(text)}
    for name, *words in sorted(found):
        if name.startswith("-") or is_placeholder(name):
            continue
        assert name in COMMANDS
        if not set(words).isdisjoint(MISSPELLED):
            continue
        has_config = name in SETTINGS and not any(word.startswith("--c") for word in words)
        required = [word for word in words if not word.startswith("[")]  # [x=y] is optional
        given = [word for word in required if not is_placeholder(word.partition("=")[2])]
        if has_config and "--help" not in words and given:
            overrides = [word for word in single_runs(name, given) if not word.startswith("hydra")]
            check_values(plain_config(name, *overrides), name)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_keys_and_options_exist(page: Path) -> None:
    for code in inline_code(page.read_text(encoding="utf-8")):
        for word in code.split():
            match = re.fullmatch(r"([a-z_]+)((?:\.\w+)*)(=.*)?", word)
            if match is None or not (match[2] or match[3]) or word.endswith(".npy"):
                continue
            if word in MISSPELLED:
                continue
            key, value = full_key(match[1] + match[2]), (match[3] or "")[1:]
            section = key.partition(".")[0]
            if section in ("trainer", "graph", "dataset", *GROUPS - {"hparams", "notes"}):
                if not match[2] and section in GROUPS:
                    options = re.findall(r"\w+", value) if not is_placeholder(value) else []
                    assert all(
                        option_exists(section, option) or f"{section}.{option}" in REMOVED_KEYS
                        for option in options
                    ), word
                else:
                    entry_of = key.rpartition(".")[0]
                    assert key in known_keys() or entry_of in OPEN_SECTIONS, word
