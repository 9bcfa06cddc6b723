"""The commands on a GPU give the results of the CPU."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csgcnn.runs.checkpoint import load_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
MODELS = ["csgcnn", "csgann", "csginn"]
NO_FIGURES = "trainer.figures=false"
ON_GPU = ["trainer.device=cuda", NO_FIGURES]
DETERMINISTIC = [*ON_GPU, "trainer.deterministic=true"]
ACCURATE = ["recipe=accurate", "model.hidden=32", "trainer.max_epochs=4", "trainer.batch_size=16"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "best.ckpt")["state_dict"]


def have_same_weights(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("model", MODELS)
def test_a_training_has_the_error_of_the_cpu(
    csgcnn: Command, small: list[str], tmp_path: Path, model: str
) -> None:
    maes = {}
    for device in ("cpu", "cuda"):
        own = [f"model={model}", f"trainer.device={device}", f"hydra.run.dir={device}", NO_FIGURES]
        answer = csgcnn("train", *small, *own, cwd=tmp_path)
        assert answer.code == 0, answer.said
        metrics = json.loads((tmp_path / device / "metrics.json").read_text())
        maes[device] = metrics["test"]["band_gap"]["mae"]
    assert maes["cuda"] == pytest.approx(maes["cpu"], rel=0.02)


def test_predictions_equal_those_of_the_cpu(
    csgcnn: Command, run: Path, data_file: Path, tmp_path: Path, table: Table
) -> None:
    predicted = {}
    for device in ("cpu", "cuda"):
        overrides = [f"ckpt={run}/checkpoints/best.ckpt", f"structures={data_file}"]
        overrides += [f"output={device}.csv", f"device={device}"]
        answer = csgcnn("predict", *overrides, cwd=tmp_path)
        assert answer.code == 0, answer.said
        rows = table(tmp_path / f"{device}.csv")
        predicted[device] = [float(row["band_gap [eV]"]) for row in rows]
    assert predicted["cuda"] == pytest.approx(predicted["cpu"], abs=1e-4)


def test_deterministic_and_resumed_trainings_are_identical(
    csgcnn: Command, data_file: Path, tmp_path: Path
) -> None:
    overrides = ["train", f"dataset.path={data_file}", *ACCURATE, *DETERMINISTIC]
    for name in ("first", "second"):
        answer = csgcnn(*overrides, f"hydra.run.dir={name}", cwd=tmp_path)
        assert answer.code == 0, answer.said
    assert have_same_weights(tmp_path / "first", tmp_path / "second")
    limit = ["hydra.run.dir=cut", "trainer.max_minutes=1e-9"]
    assert csgcnn(*overrides, *limit, cwd=tmp_path).code == 75
    resumed = ["resume=cut", "trainer.max_minutes=null", "trainer.device=cuda"]
    answer = csgcnn("train", *resumed, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert have_same_weights(tmp_path / "first", tmp_path / "cut")


@pytest.mark.parametrize("model", MODELS)
def test_a_replayed_training_equals_a_plain_one(
    csgcnn: Command, small: list[str], tmp_path: Path, model: str
) -> None:
    losses = {}
    for graphs in ("true", "false"):
        own = [f"model={model}", f"trainer.cuda_graphs={graphs}", f"hydra.run.dir={graphs}"]
        answer = csgcnn("train", *small, *ON_GPU, *own, cwd=tmp_path)
        assert answer.code == 0, answer.said
        with open(tmp_path / graphs / "metrics.csv", newline="") as file:
            losses[graphs] = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-3)


OPTIONS = [
    "trainer.precision=bfloat16",
    "ensemble=2",
    "loss=gaussian",
    "augment=distance_noise",
    "model.dropout=0.1",
    "pooling=max",
    "pooling=set2set",
    "pooling=attention",
    "edge=rbf edge.learnable=true",
    "model.norm=layer",
    "node_features=[atom_init,learned] global_features=lattice",
    "recipe=cgcnn",
]


@pytest.mark.parametrize("option", OPTIONS)
def test_options_train(csgcnn: Command, small: list[str], tmp_path: Path, option: str) -> None:
    overrides = [*option.split(), *ON_GPU, "trainer.batch_size=16", "hydra.run.dir=run"]
    answer = csgcnn("train", *small, *overrides, cwd=tmp_path)
    assert answer.code == 0, answer.said
