"""The commands on a GPU, against the CPU. Skipped where there is none."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
ON_GPU = ["trainer.device=cuda", "trainer.deterministic=true"]
ACCURATE = ["recipe=accurate", "model.hidden=32", "trainer.max_epochs=4", "trainer.batch_size=16"]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "best.ckpt")["state_dict"]


def same(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("model", ["csgcnn", "csgann", "csginn"])
def test_a_gpu_learns_what_the_cpu_learns(
    csgcnn: Command, small: list[str], tmp_path: Path, model: str
) -> None:
    maes = {}
    for device in ("cpu", "cuda"):
        answer = csgcnn(
            "train",
            *small,
            f"model={model}",
            f"trainer.device={device}",
            f"hydra.run.dir={device}",
            cwd=tmp_path,
        )
        assert answer.code == 0, answer.said
        maes[device] = json.loads((tmp_path / device / "metrics.json").read_text())["test"][
            "band_gap"
        ]["mae"]
    assert maes["cuda"] == pytest.approx(maes["cpu"], rel=0.02)


def test_a_model_predicts_the_same_on_both(
    csgcnn: Command, run: Path, data_file: Path, tmp_path: Path, table: Table
) -> None:
    predicted = {}
    for device in ("cpu", "cuda"):
        words = [
            f"ckpt={run}/checkpoints/best.ckpt",
            f"structures={data_file}",
            f"output={device}.csv",
            f"device={device}",
        ]
        answer = csgcnn("predict", *words, cwd=tmp_path)
        assert answer.code == 0, answer.said
        predicted[device] = [
            float(row["band_gap [eV]"]) for row in table(tmp_path / f"{device}.csv")
        ]
    assert predicted["cuda"] == pytest.approx(predicted["cpu"], abs=1e-4)


def test_the_same_seed_gives_the_same_bytes_and_resuming_too(
    csgcnn: Command, data_file: Path, tmp_path: Path
) -> None:
    words = ["train", f"dataset.path={data_file}", *ACCURATE, *ON_GPU]
    for name in ("first", "second"):
        assert (answer := csgcnn(*words, f"hydra.run.dir={name}", cwd=tmp_path)).code == 0, (
            answer.said
        )
    assert same(tmp_path / "first", tmp_path / "second")
    assert csgcnn(*words, "hydra.run.dir=cut", "trainer.max_minutes=1e-9", cwd=tmp_path).code == 75
    answer = csgcnn("train", "resume=cut", "trainer.max_minutes=null", *ON_GPU[:1], cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert same(tmp_path / "first", tmp_path / "cut")


@pytest.mark.parametrize("model", ["csgcnn", "csgann", "csginn"])
def test_replayed_steps_are_those_that_are_not(
    csgcnn: Command, small: list[str], tmp_path: Path, model: str
) -> None:
    losses = {}
    for replayed in ("true", "false"):
        words = [
            f"model={model}",
            *ON_GPU[:1],
            f"trainer.cuda_graphs={replayed}",
            f"hydra.run.dir={replayed}",
        ]
        assert (answer := csgcnn("train", *small, *words, cwd=tmp_path)).code == 0, answer.said
        with open(tmp_path / replayed / "metrics.csv", newline="") as file:
            losses[replayed] = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-3)


OPTIONS = [
    "trainer.precision=bfloat16",
    "ensemble=2",
    "loss=gaussian",
    "augment=distance_noise",
    "model.dropout=0.1",
]
OPTIONS += [
    "pooling=max",
    "pooling=set2set",
    "pooling=attention",
    "edge=rbf edge.learnable=true",
    "model.norm=layer",
]
OPTIONS += [
    "node_features=[atom_init,learned] global_features=lattice",
    "recipe=cgcnn",
    "augment=coordinate_noise",
]


@pytest.mark.parametrize("option", OPTIONS)
def test_options(csgcnn: Command, small: list[str], tmp_path: Path, option: str) -> None:
    words = [*option.split(), *ON_GPU[:1], "trainer.batch_size=16", "hydra.run.dir=run"]
    answer = csgcnn("train", *small, *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
