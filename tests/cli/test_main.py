import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from csgcnn import __version__
from csgcnn.cli.main import main

Command = Callable[..., subprocess.CompletedProcess[str]]

ANSWERS: list[tuple[list[str], int, list[str]]] = [
    (["--help"], 0, ["csgcnn predict", "--version"]),
    (["--version"], 0, [f"csgcnn {__version__}"]),
    (["train", "--version"], 0, [f"csgcnn {__version__}"]),
    ([], 2, ["csgcnn train"]),
    (["trian"], 2, ["did you mean train?"]),
    (["model=csgcnn"], 2, ["train, benchmark, learning-curve, predict"]),
    (["train", "modle=b"], 2, ["modle", "did you mean model?"]),
    (["train", "trainer.max_epoch=3"], 2, ["did you mean trainer.max_epochs?"]),
    (["train", "max_epochs=3"], 2, ["did you mean trainer.max_epochs?"]),
    (["train", "edge.cutof=5"], 2, ["did you mean edge_calculator.cutoff?"]),
    (["train", "experimnt=x"], 2, ["did you mean experiment?"]),
    (["train", "model=csgcn"], 2, ["'csgcn'", "did you mean csgcnn?"]),
    (["train", "pooling=attn"], 2, ["'attn'", "set2set"]),
    (["train", "model.nrom=layer"], 2, ["did you mean model.norm?"]),
    (["train", "node_features=[atom_int]"], 2, ["onehot", "did you mean atom_init?"]),
    (["train", "trainer.max_epochs=two"], 2, ["trainer.max_epochs=two", "an integer"]),
    (["train", "seed=1.5"], 2, ["seed=1.5", "an integer"]),
    (["train", "trainer=3"], 2, ["trainer=3"]),
    (["train", "graph.compress=perhaps"], 2, ["graph.compress=perhaps", "true or false"]),
    (["train", "edge=gaussian,rbf"], 2, ["--multirun"]),
    (["train", "--multirun", "edge=gaussian,rbff"], 2, ["did you mean rbf?"]),
    (["train", "dataset.hint=a=b"], 2, ["dataset.hint=a=b", "dataset.hint='...'"]),
    (["train", "trainer.batch_size=-1"], 2, ["trainer.batch_size=-1", "at least 1"]),
    (["train", "graph.vectors=true"], 2, ["graph.vectors no longer exists: "]),
    (["train", "trainer.sync_norm=false"], 2, ["trainer.sync_norm no longer exists: "]),
    (["train", "augment=coordinate_noise"], 2, ["augment=coordinate_noise no longer exists: "]),
    (["train", "--flag"], 2, ["--flag"]),
    (["train", "--config-dir", "absent"], 2, ["absent: there is no such folder"]),
    (["train", "--cfg", "job", "--multirun"], 2, ["--multirun and --cfg"]),
    (["train", "--resolve"], 2, ["--resolve needs --cfg"]),
    (["benchmark"], 2, ["please give task=…, or folds=5", "matbench_dielectric"]),
    (["benchmark", "task=perovskites"], 2, ["did you mean matbench_perovskites?"]),
    (["predict"], 2, ["csgcnn predict: please give ckpt=…, structures=…"]),
    (["evaluate", "dataset=elastic"], 2, ["please give ckpt=…"]),
    (["import-cgcnn", "--help"], 0, ["csgcnn import-cgcnn FILE.pth.tar [output=PATH]", "example:"]),
    (["import-cgcnn"], 2, ["FILE.pth.tar"]),
    (["import-cgcnn", "a.pth.tar", "nmae=gap"], 2, ["did you mean name?"]),
    (["card", "--help"], 0, ["csgcnn card CKPT [output=README.md]", "example:"]),
    (["card", "best.ckpt", "lisense=mit"], 2, ["did you mean license?"]),
    (["card", "lisense=mit", "best.ckpt"], 2, ["did you mean license?"]),
    (["card", "a.ckpt", "b.ckpt"], 2, ["expected one CKPT, got 2"]),
    (["table", "--help"], 0, ["DIR"]),
    (["report", "--help"], 0, ["RUN|SWEEP|predictions.csv", "example:"]),
    (["report", "a.csv", "outptu=b.html"], 2, ["did you mean output?"]),
]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"), ANSWERS, ids=[" ".join(case[0]) for case in ANSWERS]
)
def test_mistakes_and_help_are_answered_without_heavy_imports(
    arguments: list[str], code: int, expected: list[str], csgcnn: Command
) -> None:
    done = csgcnn(*arguments)
    text = done.stdout if code == 0 else done.stderr
    assert done.returncode == code, done.stderr
    assert all(part in text for part in expected), text
    assert "Traceback" not in done.stderr
    assert "Error executing job" not in done.stderr
    if code == 2 and "--flag" not in arguments and arguments[1:]:
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) <= 2 or arguments == ["import-cgcnn"]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_a_closed_pipe_prints_no_traceback(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "csgcnn", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_start_up_imports_neither_hydra_nor_torch() -> None:
    code = "import sys, csgcnn.__main__; print({'hydra', 'omegaconf', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_only_training_runs_in_several_processes() -> None:
    environment = {"RANK": "1", "WORLD_SIZE": "2", "PATH": ""}
    command = [sys.executable, "-m", "csgcnn", "predict"]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "runs in one process, but 2 were started together" in done.stderr


def test_a_terminal_without_unicode_shows_the_help() -> None:
    command = [sys.executable, "-m", "csgcnn", "train", "--help"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "trainer" in done.stdout


def test_arguments_in_another_encoding_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dataset.units.gap=\udcc3\udc85"]) == 2
    assert "set LC_ALL=C.UTF-8" in capsys.readouterr().err
