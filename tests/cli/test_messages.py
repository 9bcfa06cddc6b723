from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from csgcnn.cli.messages import format_error, format_hydra_error, print_error
from csgcnn.errors import ConfigError, StructureError


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
