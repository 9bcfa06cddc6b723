import re
import subprocess
from collections.abc import Callable

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from csgcnn.cli.help import description, help_text, sections
from csgcnn.config.compose import as_argument, compose, hydra_session
from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.settings.setting import Key, Setting

Command = Callable[..., subprocess.CompletedProcess[str]]


def text_of(command: str, *overrides: str, width: int = 80) -> str:
    with hydra_session(command, overrides=overrides) as hydra:
        cfg = hydra.compose_config(command, [*overrides], RunMode.RUN)
    return help_text(command, cfg, {"model": ["csgann", "csgcnn"]}, width)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed_with_every_key(command: str, csgcnn: Command) -> None:
    done = csgcnn(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: csgcnn {command}" in done.stdout
    assert "\nexamples\n  csgcnn " in done.stdout
    config = OmegaConf.to_container(compose(command))
    for keys in sections(command, config).values():
        for name, _, _ in keys:
            assert re.search(rf"^  {re.escape(name)}(=| \(required\))", done.stdout, re.MULTILINE)


def test_help_lists_groups_with_their_options(csgcnn: Command) -> None:
    text = csgcnn("train", "-h").stdout
    for group, option in (("edge_calculator", "bessel, "), ("node_features", "atom_init, ")):
        assert re.search(rf"^  {group}  +{option}", text, re.MULTILINE)
    assert not re.search(r"^  (task|hydra) ", text, re.MULTILINE)
    text = csgcnn("benchmark", "-h").stdout
    assert re.search(r"^  task  +matbench_dielectric", text, re.MULTILINE)


def test_help_shows_the_composed_values() -> None:
    text = text_of("train", "model=csginn", "graph.cutoff=5", "trainer.patience=9")
    assert "\nmodel=csginn\n" in text
    assert "model.convolution.heads" not in text
    assert "  edge_calculator.cutoff=5.0 " in text
    assert "  trainer.patience=9 " in text
    assert "  model.convolution.heads=4 " in text_of("train")


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_terminal(command: str, width: int) -> None:
    text = text_of(command, width=width)
    assert max(map(len, text.splitlines())) <= width


def test_a_description_has_unit_range_and_the_meaning_of_null() -> None:
    setting = Setting("Time.", unit="min", above=0, null="no limit")
    assert description(Key("a", "float | None", None, setting)) == (
        "Time. [in min; a number above 0; null: no limit]"
    )
    assert description(Key("a", "bool", True, Setting("Do it."))) == "Do it."


def test_values_are_written_as_the_command_line_takes_them() -> None:
    value = {"a": [1, True, None], "b c": "x"}
    assert as_argument(value) == "{a:[1,true,null],b c:x}"
