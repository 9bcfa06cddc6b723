"""Checkpoints and runs that a stranger made, given to each command: a message, an exit code, and nothing executed."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]
CODES = "\x1b]0;owned\x07\x1b[31mred\nsecond line"


class Trap:
    """Creates the folder `sprung` where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def a_call(content: dict[str, Any], path: Path) -> None:
    torch.save(content | {"metrics": Trap()}, path)


def a_bomb(content: dict[str, Any], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))


def a_foreign_part(content: dict[str, Any], path: Path) -> None:
    content["config"]["pooling"] = {"_target_": "os.mkdir", "path": "sprung", "_partial_": True}
    torch.save(content, path)


def a_huge_network(content: dict[str, Any], path: Path) -> None:
    content["config"]["model"] |= {"hidden": 10**9, "head_hidden": 10_000, "n_head_layers": 100}
    torch.save(content, path)


def terminal_codes(content: dict[str, Any], path: Path) -> None:
    content["config"]["graph"] |= {"shells": CODES, CODES: 1}
    content["csgcnn"] = CODES
    torch.save(content, path)


def an_empty_training(content: dict[str, Any], path: Path) -> None:
    torch.save(content | {"training": {}, "state_dict": {}}, path)


def other_shapes(content: dict[str, Any], path: Path) -> None:
    for weights in (content["state_dict"], content["training"]["model"]):
        weights["embedding.weight"] = torch.ones(3, 3)
    torch.save(content, path)


EVILS = [
    a_call,
    a_bomb,
    a_foreign_part,
    a_huge_network,
    terminal_codes,
    an_empty_training,
    other_shapes,
]


@pytest.fixture
def stopped(run: Path, tmp_path: Path) -> Path:
    """A run that was stopped before its end, in `tmp_path`."""
    shutil.copytree(run, tmp_path / "run")
    for name in ("metrics.json", "predictions.csv"):
        (tmp_path / "run" / name).unlink()
    return tmp_path / "run"


def harmless(code: int, out: str, err: str, home: Path) -> None:
    assert code in (1, 2), out + err
    assert 1 <= len(err.splitlines()) <= 3, err
    assert err.startswith("csgcnn ")
    assert (out + err).replace("\n", "").isprintable()
    assert not list(home.rglob("sprung"))


@pytest.mark.parametrize("make", EVILS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("command", ["predict", "evaluate", "train"])
def test_a_strangers_checkpoint(
    command: str,
    make: Callable[..., None],
    csgcnn: Command,
    stopped: Path,
    data_file: Path,
    tmp_path: Path,
) -> None:
    path = stopped / "checkpoints" / "last.ckpt"
    make(load_checkpoint(path), path)
    words = {
        "predict": [f"ckpt={path}", f"structures={data_file}"],
        "evaluate": [f"ckpt={path}", "dataset=dielectric", f"dataset.path={data_file}"],
        "train": [f"resume={stopped}"],
    }
    answer = csgcnn(command, *words[command], cwd=tmp_path)
    harmless(answer.code, answer.out, answer.err, tmp_path)


def evil_run(stopped: Path) -> list[str]:
    with open(stopped / "config.yaml", "a") as file:
        file.write("  callbacks: {e: {_target_: os.mkdir, path: sprung}}\n")
    return ["train", "resume=run"]


def evil_part(stopped: Path) -> list[str]:
    text = (stopped / "config.yaml").read_text()
    (stopped / "config.yaml").write_text(
        text.replace("csgcnn.nn.pooling.MeanPooling", "os.mkdir\n  path: sprung")
    )
    return ["train", "resume=run"]


def evil_checkpoint(stopped: Path) -> list[str]:
    a_call(
        load_checkpoint(stopped / "checkpoints" / "last.ckpt"),
        stopped / "checkpoints" / "last.ckpt",
    )
    return ["train", "resume=run"]


def evil_experiment(stopped: Path) -> list[str]:
    handler = "{(): os.mkdir, path: sprung}"
    (stopped / "experiment").mkdir()
    (stopped / "experiment" / "x.yaml").write_text(
        f"# @package _global_\nhydra: {{job_logging: {{handlers: {{x: {handler}}}}}}}\n"
    )
    return ["train", "--config-dir", "run", "experiment=x"]


def evil_model(stopped: Path) -> list[str]:
    a_call(
        load_checkpoint(stopped / "checkpoints" / "best.ckpt"),
        stopped / "checkpoints" / "best.ckpt",
    )
    return ["predict", "ckpt=run/checkpoints/best.ckpt", "structures=run"]


EVIL_RUNS = [evil_run, evil_part, evil_checkpoint, evil_experiment, evil_model]


@pytest.mark.parametrize("make", EVIL_RUNS, ids=lambda make: make.__name__)
def test_the_program_itself(
    make: Callable[[Path], list[str]], stopped: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "CSGCNN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "csgcnn", *make(stopped)]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    harmless(done.returncode, done.stdout, done.stderr, tmp_path)
