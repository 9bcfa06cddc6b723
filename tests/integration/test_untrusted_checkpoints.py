"""Hostile checkpoints and runs: every command prints a message, and nothing is executed."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

Command = Callable[..., Any]
CODES = "\x1b]0;owned\x07\x1b[31mred\nsecond line"


class Trap:
    """Creates the folder `sprung` where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def a_call(content: dict[str, Any], path: Path) -> None:
    torch.save(content | {"metrics": Trap()}, path)


def a_nested_description(content: dict[str, Any], path: Path) -> None:
    text = "[" * 10_000 + "]" * 10_000
    path.write_bytes(safetensors.torch.save({}, {"csgcnn": text}))


def a_plugin(content: dict[str, Any], path: Path) -> None:
    """Names a package outside csgcnn, and claims that the user has opted in."""
    target = {"_target_": "my_package.poolings.Pooling", "_partial_": True}
    content["config"] |= {"pooling": target, "plugins": ["my_package"]}
    save_checkpoint({**content, "plugins": ["my_package"]}, path)


def a_bomb(content: dict[str, Any], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))


def a_target_outside_csgcnn(content: dict[str, Any], path: Path) -> None:
    content["config"]["pooling"] = {"_target_": "os.mkdir", "path": "sprung", "_partial_": True}
    save_checkpoint(content, path)


def a_huge_network(content: dict[str, Any], path: Path) -> None:
    content["config"]["model"] |= {"hidden": 10**9, "head_hidden": 10_000, "n_head_layers": 100}
    save_checkpoint(content, path)


def terminal_codes(content: dict[str, Any], path: Path) -> None:
    content["config"]["graph"] |= {"shells": CODES, CODES: 1}
    content["csgcnn"] = CODES
    save_checkpoint(content, path)


def an_empty_training(content: dict[str, Any], path: Path) -> None:
    save_checkpoint(content | {"training": {}, "state_dict": {}}, path)


def other_shapes(content: dict[str, Any], path: Path) -> None:
    for weights in (content["state_dict"], content["training"]["model"]):
        weights["embedding.weight"] = torch.ones(3, 3)
    save_checkpoint(content, path)


HOSTILE = [
    a_call,
    a_nested_description,
    a_plugin,
    a_bomb,
    a_target_outside_csgcnn,
    a_huge_network,
    terminal_codes,
    an_empty_training,
    other_shapes,
]


@pytest.fixture
def stopped(run: Path, tmp_path: Path) -> Path:
    """A run in `tmp_path` that was stopped before its end."""
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


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("command", ["predict", "evaluate", "train"])
def test_a_hostile_checkpoint_is_refused(
    command: str,
    make: Callable[..., None],
    csgcnn: Command,
    stopped: Path,
    data_file: Path,
    tmp_path: Path,
) -> None:
    path = stopped / "checkpoints" / "last.ckpt"
    make(load_checkpoint(path), path)
    overrides = {
        "predict": [f"ckpt={path}", f"structures={data_file}"],
        "evaluate": [f"ckpt={path}", "dataset=dielectric", f"dataset.path={data_file}"],
        "train": [f"resume={stopped}"],
    }
    answer = csgcnn(command, *overrides[command], cwd=tmp_path)
    harmless(answer.code, answer.out, answer.err, tmp_path)


def hostile_run(stopped: Path) -> list[str]:
    with open(stopped / "config.yaml", "a") as file:
        file.write("  callbacks: {e: {_target_: os.mkdir, path: sprung}}\n")
    return ["train", "resume=run"]


def hostile_target(stopped: Path) -> list[str]:
    text = (stopped / "config.yaml").read_text()
    (stopped / "config.yaml").write_text(
        text.replace("csgcnn.nn.pooling.MeanPooling", "os.mkdir\n  path: sprung")
    )
    return ["train", "resume=run"]


def hostile_checkpoint(stopped: Path) -> list[str]:
    a_call(
        load_checkpoint(stopped / "checkpoints" / "last.ckpt"),
        stopped / "checkpoints" / "last.ckpt",
    )
    return ["train", "resume=run"]


def hostile_experiment(stopped: Path) -> list[str]:
    handler = "{(): os.mkdir, path: sprung}"
    (stopped / "experiment").mkdir()
    (stopped / "experiment" / "x.yaml").write_text(
        f"# @package _global_\nhydra: {{job_logging: {{handlers: {{x: {handler}}}}}}}\n"
    )
    return ["train", "--config-dir", "run", "experiment=x"]


def hostile_model(stopped: Path) -> list[str]:
    a_call(
        load_checkpoint(stopped / "checkpoints" / "best.ckpt"),
        stopped / "checkpoints" / "best.ckpt",
    )
    return ["predict", "ckpt=run/checkpoints/best.ckpt", "structures=run"]


HOSTILE_RUNS = [hostile_run, hostile_target, hostile_checkpoint, hostile_experiment, hostile_model]


@pytest.mark.slow
@pytest.mark.parametrize("make", HOSTILE_RUNS, ids=lambda make: make.__name__)
def test_a_hostile_run_is_refused_by_the_program(
    make: Callable[[Path], list[str]], stopped: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "CSGCNN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "csgcnn", *make(stopped)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    harmless(done.returncode, done.stdout, done.stderr, tmp_path)
