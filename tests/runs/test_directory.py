import os
import subprocess
import sys
from pathlib import Path

import pytest

from csgcnn.errors import UserError
from csgcnn.runs.directory import RunDirectory, finished_epochs


@pytest.mark.slow
def test_a_folder_is_entered_by_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from csgcnn.runs.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with RunDirectory(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "another process is training there" in done.stderr
    with RunDirectory(tmp_path):
        pass


def test_a_run_is_entered_to_resume_it_only(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="already holds a run and is not overwritten; resume it"):
        RunDirectory(tmp_path).__enter__()
    with RunDirectory(tmp_path, may_resume=True) as run:
        assert run.holds_run


def test_incomplete_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".metrics.json.x.tmp", "checkpoints/.last.ckpt.x.tmp", "metrics.csv"):
        (tmp_path / name).write_text("half")
    with RunDirectory(tmp_path):
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left - {".lock"} == {"checkpoints", "metrics.csv"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write to"):
        RunDirectory(tmp_path).__enter__()


def test_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        RunDirectory(tmp_path / "file" / "run").__enter__()


def test_rows_of_metrics_are_appended(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.write_metrics([{"epoch": 1, "loss": 0.123456789}])
        run.append_metrics([{"epoch": 2, "loss": float("nan")}])
    assert (tmp_path / "metrics.csv").read_text().split() == ["epoch,loss", "1,0.1234568", "2,"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [('{"epochs": 3}', 3), ("{}", None), ("[1]", None), ("half", None), ('{"epochs": "x"}', None)],
)
def test_the_epochs_of_a_finished_run(content: str, expected: int | None, tmp_path: Path) -> None:
    assert finished_epochs(tmp_path) is None
    (tmp_path / "metrics.json").write_text(content)
    assert finished_epochs(tmp_path) == expected
