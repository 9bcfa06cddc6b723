"""Devices that do not exist here, at each command and in Python."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csgcnn import load
from csgcnn import train as train_in_python
from csgcnn.errors import ConfigError, DataWarning
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

Command = Callable[..., Any]
REFUSAL = "device=cuda: no GPU was found here; use cpu"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.slow
def test_every_command_refuses_an_absent_gpu(
    csgcnn: Command, run: Path, data_file: Path, cifs: Path, tmp_path: Path
) -> None:
    ckpt = f"ckpt={run / 'checkpoints' / 'best.ckpt'}"
    commands = [
        ["train", f"dataset.path={data_file}", "trainer.device=cuda"],
        ["benchmark", "task=matbench_phonons", "trainer.device=cuda"],
        ["predict", ckpt, f"structures={cifs}", "device=cuda"],
        ["evaluate", ckpt, f"dataset.path={data_file}", "device=cuda"],
    ]
    for words in commands:
        answer = csgcnn(*words, cwd=tmp_path)
        assert answer.code == 2, answer.said
        assert answer.err == f"csgcnn {words[0]}: {REFUSAL}\n"


def test_python_refuses_an_absent_gpu(run: Path, data_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=REFUSAL):
        load(run / "checkpoints" / "best.ckpt", device="cuda")
    with pytest.raises(ConfigError, match=REFUSAL):
        train_in_python(data_file, "band_gap", folder=tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


def test_a_model_of_a_gpu_predicts_on_the_cpu_with_a_note(
    csgcnn: Command, run: Path, cifs: Path, tmp_path: Path
) -> None:
    best = run / "checkpoints" / "best.ckpt"
    content = load_checkpoint(best)
    assert content["device"] == "cpu"
    save_checkpoint({**content, "device": "cuda"}, tmp_path / "gpu.ckpt")
    note = "the model was trained on a GPU; predictions on the CPU differ by rounding"
    for ckpt, is_noted in ((best, False), (tmp_path / "gpu.ckpt", True)):
        words = [f"ckpt={ckpt}", f"structures={cifs}", f"output={ckpt.stem}.csv", "device=cpu"]
        answer = csgcnn("predict", *words, cwd=tmp_path)
        assert answer.code == 0, answer.said
        assert (note in answer.said) == is_noted
    assert (tmp_path / "best.csv").read_bytes() == (tmp_path / "gpu.csv").read_bytes()


def test_a_run_that_names_a_gpu_resumes_on_the_cpu(
    csgcnn: Command, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    assert "device: cpu" in text
    config.write_text(text.replace("device: cpu", "device: cuda"))
    # The command of the fixture names the CPU, Python only what is given.
    with pytest.warns(DataWarning, match="not available here"):
        result = train_in_python(resume=tmp_path / "run", max_epochs=4, figures=False)
    assert result.metrics["epochs"] == 4
    log = (tmp_path / "run" / "train.log").read_text()
    assert "the run names trainer.device=cuda, which is not available here" in log
    with pytest.raises(ConfigError, match=REFUSAL):
        train_in_python(resume=tmp_path / "run", max_epochs=5, device="cuda")
