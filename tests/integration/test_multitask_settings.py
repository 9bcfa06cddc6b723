"""Settings of trainings with several targets; invalid ones are refused."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from multitask_helpers import TARGETS

from csgcnn.config.compose import compose
from csgcnn.data.targets import Target
from csgcnn.training.losses import MultiTaskLoss, build_loss

Command = Callable[..., Any]


def test_the_weights_of_the_configuration_are_those_of_the_loss() -> None:
    targets = [Target("gap"), Target("kind", task="classification", classes=("a", "b"))]
    labels = torch.tensor([[1.0, 0], [2.0, 0], [3.0, 0], [4.0, 1]])

    def made(*overrides: str) -> MultiTaskLoss:
        return build_loss(compose("train", overrides), targets, labels)

    assert made().task_weights.tolist() == [0.5, 0.5]
    assert made().class_weights.tolist() == [1, 1, 1]
    assert made("++dataset.task_weights.kind=3").task_weights.tolist() == [0.25, 0.75]
    torch.testing.assert_close(
        made("dataset.class_weights=balanced").class_weights, torch.tensor([1, 4 / 6, 2])
    )
    assert not list(made().parameters())
    assert len(list(made("trainer.learn_task_weights=true").parameters())) == 1


@pytest.mark.parametrize(
    ("overrides", "code", "parts"),
    [
        (
            ["dataset.tasks.kind=classify"],
            2,
            ["dataset.tasks.kind=classify", "did you mean classification"],
        ),
        (["dataset.task_weights.kind=0"], 2, ["dataset.task_weights.kind=0", "above 0"]),
        (["dataset.task_weights.gap=2"], 2, ["gap is not a target", "band_gap, is_wide, kind"]),
        (
            ["dataset.task_weights.kind=2", "trainer.learn_task_weights=true"],
            2,
            ["learn_task_weights=true excludes dataset.task_weights"],
        ),
        (
            ["loss=gaussian", "trainer.learn_task_weights=true"],
            2,
            ["learn_task_weights=true excludes loss=gaussian and laplace"],
        ),
        (["dataset.class_weights=inverse"], 2, ["expected balanced"]),
        (
            ["dataset.derived.is_wide=band_gap ~ 2"],
            2,
            ["dataset.derived.is_wide='band_gap ~ 2'", "<column> <sign> <number>"],
        ),
        (
            ["dataset.split.method=group", "dataset.split.column=kind"],
            2,
            ["stratify=is_wide", "method=random"],
        ),
        (["dataset.derived.is_wide=band_gap > 100"], 1, ["all 54 rows have is_wide = 0"]),
        (
            [
                "dataset.derived.one=refractive_index > 2",
                "dataset.targets=[band_gap,is_wide,kind,one]",
                "dataset.tasks.one=classification",
                "dataset.split.stratify=two",
            ],
            1,
            ["stratify=two", "one"],
        ),
    ],
)
def test_invalid_settings_are_refused_with_advice(
    overrides: list[str],
    code: int,
    parts: list[str],
    csgcnn: Command,
    small: list[str],
    mixed_file: Path,
    tmp_path: Path,
) -> None:
    data = f"dataset.path={mixed_file}"
    answer = csgcnn("train", *small, *TARGETS, data, *overrides, cwd=tmp_path)
    assert answer.code == code, answer.said
    assert all(part in answer.err for part in parts), answer.err
    assert "Traceback" not in answer.said


def test_a_training_set_of_one_class_is_refused(
    csgcnn: Command, small: list[str], mixed_file: Path, tmp_path: Path
) -> None:
    records = json.loads(gzip.decompress(mixed_file.read_bytes()))
    part = {"a": "train", "b": "val", "c": "test"}
    for i, record in enumerate(records):
        letter = "abc"[i % 3]
        record |= {"part": part[letter], "is_first": int(letter == "a")}
    (tmp_path / "parts.json").write_text(json.dumps(records))
    overrides = [
        "dataset.path=parts.json",
        "dataset.targets=[is_first]",
        "dataset.tasks.is_first=classification",
    ]
    overrides += ["dataset.split.method=column", "dataset.split.column=part"]
    answer = csgcnn("train", *small[1:], *overrides, cwd=tmp_path)
    assert answer.code == 1
    assert "all training rows are of one class, is_first = 1" in answer.err


@pytest.mark.slow
def test_the_experiment_trains_two_moduli_together_and_alone(
    csgcnn: Command, tmp_path: Path
) -> None:
    overrides = [
        "experiment=elastic_multitask",
        "seed=0",
        "trainer.max_epochs=1",
        "model.hidden=8",
        "trainer.figures=false",
        "hydra.sweep.dir=sweep",
    ]
    answer = csgcnn("train", *overrides, cwd=tmp_path)
    assert answer.code == 0, answer.said
    runs = [tmp_path / "sweep" / str(number) for number in range(3)]
    targets = [list(json.loads((run / "metrics.json").read_text())["test"]) for run in runs]
    assert targets == [["log10_k_vrh", "log10_g_vrh"], ["log10_k_vrh"], ["log10_g_vrh"]]
    assert len({(run / "splits.json").read_text() for run in runs}) == 1
