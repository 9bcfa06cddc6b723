"""`augment=` reaches the training and only the training; `check_invariance=true` tells what does not matter."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csgcnn.crystals.transforms import SAME_CRYSTAL

Command = Callable[..., Any]


@pytest.mark.parametrize(
    "option", ["distance_noise", "strain", "coordinate_noise", "[strain,distance_noise]"]
)
def test_noise_changes_the_training_and_not_the_data(
    csgcnn: Command, small: list[str], run: Path, tmp_path: Path, option: str
) -> None:
    answer = csgcnn("train", *small, f"augment={option}", "hydra.run.dir=noisy", cwd=tmp_path)
    assert answer.code == 0, answer.said
    plain, noisy = (
        (path / "predictions.csv").read_text().splitlines() for path in (run, tmp_path / "noisy")
    )
    assert [line.split(",")[:3] for line in plain] == [
        line.split(",")[:3] for line in noisy
    ]  # ids, parts, targets
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


CHANGE = r"largest change of (.+?) by (.+?): (\S+)( eV)?(?: \((mp-\d+)\))?\n"


def test_the_invariance_check_reports_every_transformation(
    csgcnn: Command, run: Path, data_file: Path, tmp_path: Path
) -> None:
    words = [
        f"ckpt={run / 'checkpoints' / 'best.ckpt'}",
        "dataset=dielectric",
        f"dataset.path={data_file}",
    ]
    answer = csgcnn("evaluate", *words, "check_invariance=true", cwd=tmp_path)
    assert answer.code == 0, answer.said
    found = re.findall(CHANGE, answer.out)
    assert [transform for _, transform, *_ in found] == list(SAME_CRYSTAL)
    for target, _, change, unit, id_ in found:
        assert (target, unit) == ("band_gap", " eV")
        assert float(change) < 1e-4
        assert (float(change) > 0) == bool(id_)


def test_the_check_finds_a_graph_that_depends_on_the_cell(
    csgcnn: Command, small: list[str], data_file: Path, tmp_path: Path
) -> None:
    """A sum over the cell is not the same for a supercell: the check must say so, of each target in its unit."""
    several = [
        "dataset.targets=[band_gap,is_metal]",
        "dataset.derived.is_metal=band_gap < 1",
        "dataset.tasks.is_metal=classification",
    ]
    answer = csgcnn("train", *small, *several, "pooling=sum", "hydra.run.dir=sum", cwd=tmp_path)
    assert answer.code == 0, answer.said
    words = ["ckpt=sum/checkpoints/best.ckpt", "dataset=dielectric", f"dataset.path={data_file}"]
    answer = csgcnn("evaluate", *words, "check_invariance=true", cwd=tmp_path)
    found = {
        (target, transform): (float(change), unit)
        for target, transform, change, unit, _ in re.findall(CHANGE, answer.out)
    }
    assert len(found) == 2 * len(SAME_CRYSTAL)
    for target, unit in (("band_gap", " eV"), ("a probability of is_metal", "")):
        assert found[target, "2x2x2 supercell"][0] > 1e-2
        assert found[target, "rotation"][0] < 1e-4
        assert found[target, "rotation"][1] == unit


def test_crystals_without_another_description_are_counted(
    csgcnn: Command, run: Path, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spglib.niggli_reduce", lambda *_: None)
    words = [
        f"ckpt={run / 'checkpoints' / 'best.ckpt'}",
        "dataset=dielectric",
        f"dataset.path={data_file}",
    ]
    answer = csgcnn("evaluate", *words, "check_invariance=true", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "Niggli cell: 60 left out" in answer.out
    assert [transform for _, transform, *_ in re.findall(CHANGE, answer.out)] == [
        name for name in SAME_CRYSTAL if name != "Niggli cell"
    ]
