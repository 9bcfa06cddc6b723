import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from csgcnn.cli.messages import format_error, format_hydra_error, print_error
from csgcnn.errors import ConfigError, StructureError

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(("launcher", "extra"), [("joblib", "sweep"), ("submitit_slurm", "slurm")])
def test_a_launcher_of_an_extra_is_answered_with_its_installation(
    launcher: str, extra: str
) -> None:
    error = MissingConfigException("", f"hydra/launcher/{launcher}", ["basic"])
    expected = f"hydra/launcher={launcher} needs an extra: pip install 'csgcnn[{extra}]'"
    assert format_hydra_error(error) == expected


def test_a_user_error_is_one_line_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_error("train", StructureError("mp-1: unknown element Xx")) == 1
    assert print_error("train", ConfigError("seed=-1")) == 2
    assert capsys.readouterr().err == (
        "csgcnn train: mp-1: unknown element Xx\ncsgcnn train: seed=-1\n"
    )


def test_memory_errors_come_with_advice() -> None:
    assert "a smaller batch_size" in format_error(MemoryError("120 GiB"))


def test_an_internal_error_keeps_its_traceback(
    replace_command: Callable[..., None],
    exit_code: Callable[..., object],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    replace_command("evaluate", lambda cfg: 1 / 0)
    assert exit_code("evaluate", "ckpt=a", "dataset=elastic") == 1
    error = capsys.readouterr().err
    assert "internal error, ZeroDivisionError" in error
    assert "Error executing job" not in error
    assert "1 / 0" in (tmp_path / "error.log").read_text()


def test_an_option_that_is_not_yaml_is_named_with_the_line(csgcnn: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "wide.yaml").write_text("hidden: [1\n")
    answer = csgcnn("train", "--config-dir", "mine", "model=wide")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "model/wide.yaml, line 2: expected ',' or ']'" in answer.stderr


def test_a_value_in_place_of_a_section_is_refused_by_name(csgcnn: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("trainer: 5\n")
    answer = csgcnn("train", "--config-dir", ".", "--config-name", "mine")
    assert (answer.returncode, answer.stderr) == (
        2,
        "csgcnn train: mine.yaml: expected keys, not 5\n",
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config-name", "mine"], "there is no file mine.yaml; --config-dir FOLDER names"),
        (["mine.yaml"], "given by --config-dir . --config-name mine"),
    ],
)
def test_a_file_of_overrides_is_answered_with_the_flags(
    csgcnn: Command, arguments: list[str], expected: str
) -> None:
    answer = csgcnn("train", *arguments)
    assert (answer.returncode, expected in answer.stderr) == (2, True), answer.stderr
