"""An interrupted prediction resumes; the table is that of an uninterrupted one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from csgcnn.commands.predict import predict
from csgcnn.config.compose import compose
from csgcnn.screening.partial_table import Part, PartialTable
from csgcnn.training.interruption import Interruption

Command = Callable[..., Any]

Record = dict[str, Any]


@pytest.fixture
def interrupted(caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Run `csgcnn predict OVERRIDES` until 32 records are done, then interrupt it."""

    def command(*overrides: str, cwd: Path) -> None:
        add, n_calls = PartialTable.add, 0

        def add_or_interrupt(self: PartialTable, part: Part) -> None:
            nonlocal n_calls
            n_calls += 1
            if n_calls > 2:
                signal.raise_signal(signal.SIGINT)
            add(self, part)

        with (
            chdir(cwd),
            patch.object(PartialTable, "add", add_or_interrupt),
            pytest.raises(SystemExit) as end,
            Interruption(),
        ):
            predict(compose("predict", overrides), chunk_size=16)
        assert end.value.code == 130
        assert "32 records are done" in caplog.text

    return command


@pytest.mark.slow
def test_a_killed_prediction_resumes_to_the_same_bytes(
    ckpts: list[Path], some_bad: Path, graph_store: Path, tmp_path: Path
) -> None:
    records = [f"ckpt={ckpts[0]}", f"structures={some_bad}", "output=out.csv", "workers=1"]
    store = [
        f"ckpt='{ckpts[0].parent}/[01].ckpt'",
        f"structures={graph_store}",
        "output=out.csv.gz",
        "top=7",
        "by=band_gap",
    ]
    overrides = [*records, "device=cpu", "--", *store, "device=cpu"]
    command = [sys.executable, Path(__file__).with_name("crash_harness.py"), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    for line in done.stdout.splitlines():
        n_kills, is_same = line.split()
        assert (int(n_kills) > 4, is_same) == (True, "True"), done
    assert done.stdout.count("\n") == 2


def test_a_resumed_prediction_does_not_read_finished_records(
    csgcnn: Command, interrupted: Command, ckpts: list[Path], records: list[Record], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i, record in enumerate(records):
        (folder / f"{i:02}.json").write_text(json.dumps(record["crystal_structure"]))
    overrides = (f"ckpt={ckpts[0]}", f"structures={folder}", "workers=1")
    csgcnn("predict", *overrides, "output=whole.csv", cwd=tmp_path)
    interrupted(*overrides, cwd=tmp_path)
    for i in range(32):
        (folder / f"{i:02}.json").write_text("not read")
    answer = csgcnn("predict", *overrides, "resume=true", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "60 structures predicted" in answer.out
    assert (tmp_path / "predictions.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "many",
        "predictions.csv",
        "whole.csv",
    ]


@pytest.mark.slow
def test_resuming_with_other_inputs_is_refused(
    csgcnn: Command, interrupted: Command, ckpts: list[Path], some_bad: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copy(some_bad, tmp_path / "data.json"))
    overrides = [f"ckpt={ckpts[0]}", f"structures={data}", "workers=1"]
    interrupted(*overrides, cwd=tmp_path)
    answer = csgcnn("predict", f"ckpt={ckpts[1]}", *overrides[1:], "resume=true", cwd=tmp_path)
    assert (answer.code, "was started with another ckpt" in answer.err) == (1, True), answer.said
    answer = csgcnn("predict", *overrides, "formula_mismatch=warn", "resume=true", cwd=tmp_path)
    assert "was started with another formula_mismatch" in answer.err
    data.write_text(some_bad.read_text() + "\n")
    answer = csgcnn("predict", *overrides, "resume=true", cwd=tmp_path)
    assert (answer.code, "was started with another structures" in answer.err) == (1, True), (
        answer.said
    )
    assert answer.err.count("\n") == 1
    shutil.copy(some_bad, data)
    (tmp_path / "predictions.csv.partial" / "part-000000.json").write_text("")
    assert "is damaged" in csgcnn("predict", *overrides, "resume=true", cwd=tmp_path).err
    assert csgcnn("predict", *overrides, cwd=tmp_path).code == 1
    assert [path.name for path in tmp_path.glob("*.partial")] == [], (
        "without resume=true it starts again"
    )
    assert len((tmp_path / "predictions.rejected.csv").read_text().splitlines()) == 4


def test_resuming_with_other_files_in_the_folder_is_refused(
    csgcnn: Command, interrupted: Command, ckpts: list[Path], records: list[Record], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i, record in enumerate(records):
        (folder / f"{i:02}.json").write_text(json.dumps(record["crystal_structure"]))
    overrides = (f"ckpt={ckpts[0]}", f"structures={folder}", "workers=1")
    interrupted(*overrides, cwd=tmp_path)
    (folder / "00.json").rename(folder / "a.json")
    answer = csgcnn("predict", *overrides, "resume=true", cwd=tmp_path)
    assert (answer.code, "no longer those" in answer.err) == (1, True), answer.said
    (folder / "a.json").rename(folder / "00.json")
    assert csgcnn("predict", *overrides, "resume=true", cwd=tmp_path).code == 0, (
        "a refusal costs nothing"
    )


def test_a_finished_table_is_not_changed(
    csgcnn: Command, ckpts: list[Path], some_bad: Path, tmp_path: Path
) -> None:
    overrides = (f"ckpt={ckpts[0]}", f"structures={some_bad}", "resume=true", "workers=1")
    assert csgcnn("predict", *overrides, cwd=tmp_path).code == 1, (
        "there is nothing to resume: it starts"
    )
    before = (tmp_path / "predictions.csv").stat()
    answer = csgcnn("predict", *overrides, cwd=tmp_path)
    assert (answer.code, "nothing to do" in answer.out) == (1, True)
    assert csgcnn("predict", *overrides, "on_error=skip", cwd=tmp_path).code == 0
    assert (tmp_path / "predictions.csv").stat() == before
