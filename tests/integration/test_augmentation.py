"""`augment=` reaches the training and only the training; `check_invariance=true` tells what does not matter."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.mark.parametrize("option", ["distance_noise", "strain", "coordinate_noise", "[strain,distance_noise]"])
def test_noise_changes_the_training_and_not_the_data(
    csgcnn: Command, small: list[str], tmp_path: Path, option: str
) -> None:
    assert csgcnn("train", *small, "hydra.run.dir=plain", cwd=tmp_path).code == 0
    answer = csgcnn("train", *small, f"augment={option}", "hydra.run.dir=noisy", cwd=tmp_path)
    assert answer.code == 0, answer.said
    plain, noisy = ((tmp_path / run / "predictions.csv").read_text().splitlines() for run in ("plain", "noisy"))
    assert [line.split(",")[:3] for line in plain] == [line.split(",")[:3] for line in noisy]  # ids, parts, targets
    assert plain != noisy


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["augment=distnce_noise"], "did you mean distance_noise"),
        (["graph.vectors=true"], "graph.compress=false"),
        (["augment=coordinate_noise", "graph.vectors=false"], "graph.vectors=true"),
    ],
)
def test_what_cannot_go_together(
    csgcnn: Command, small: list[str], tmp_path: Path, words: list[str], culprit: str
) -> None:
    answer = csgcnn("train", *small, *words, cwd=tmp_path)
    assert answer.code == 2
    assert culprit in answer.err


def test_the_invariance_check_reports_every_transformation(
    csgcnn: Command, run: Path, data_file: Path, tmp_path: Path
) -> None:
    words = [f"ckpt={run / 'checkpoints' / 'best.ckpt'}", "dataset=dielectric", f"dataset.path={data_file}"]
    answer = csgcnn("evaluate", *words, "check_invariance=true", cwd=tmp_path)
    assert answer.code == 0, answer.said
    found = dict(re.findall(r"by ([a-z ]+): (\S+) \(mp-\d+\)", answer.out))
    assert found.keys() == {"rotation", "translation", "site order", "supercell"}
    assert all(float(change) < 1e-3 for change in found.values())


def test_the_check_finds_a_graph_that_depends_on_the_cell(
    csgcnn: Command, small: list[str], data_file: Path, tmp_path: Path
) -> None:
    """A sum over the cell is not the same for a supercell: the check must say so."""
    assert csgcnn("train", *small, "pooling=sum", "hydra.run.dir=sum", cwd=tmp_path).code == 0
    words = ["ckpt=sum/checkpoints/best.ckpt", "dataset=dielectric", f"dataset.path={data_file}"]
    answer = csgcnn("evaluate", *words, "check_invariance=true", cwd=tmp_path)
    found = dict(re.findall(r"by ([a-z ]+): (\S+) \(mp-\d+\)", answer.out))
    assert float(found["supercell"]) > 1e-2
    assert float(found["rotation"]) < 1e-3
