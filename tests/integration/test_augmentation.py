"""`augment=` acts in training only; `check_invariance=true` reports what predictions depend on."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csgcnn.crystals.transforms import SAME_CRYSTAL

Command = Callable[..., Any]


@pytest.mark.parametrize(
    "option",
    [pytest.param("distance_noise", marks=pytest.mark.slow), "[strain,distance_noise]"],
)
def test_noise_acts_in_training_only(
    csgcnn: Command, small: list[str], run: Path, tmp_path: Path, option: str
) -> None:
    answer = csgcnn("train", *small, f"augment={option}", "hydra.run.dir=noisy", cwd=tmp_path)
    assert answer.code == 0, answer.said
    tables = []
    for folder in (run, tmp_path / "noisy"):
        with open(folder / "predictions.csv", newline="") as file:
            tables.append(list(csv.reader(file)))
    # Columns: id, part, target, prediction.
    plain, noisy = ([row[:3] for row in table] for table in tables)
    assert plain == noisy
    assert tables[0] != tables[1]
    # Without training there is no noise: the test predictions are reproduced.
    checkpoint = "ckpt=noisy/checkpoints/best.ckpt"
    first, second = (csgcnn("evaluate", checkpoint, small[0], cwd=tmp_path) for _ in range(2))
    assert first.code == 0, first.said
    assert first.out == second.out


def test_a_misspelled_augmentation_is_refused(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, "augment=distnce_noise", cwd=tmp_path)
    assert answer.code == 2
    assert "did you mean distance_noise" in answer.err


CHANGE = r"largest change of (.+?) by (.+?): (\S+)( eV)?(?: \((mp-\d+)\))?\n"


def test_the_invariance_check_reports_every_transformation(
    csgcnn: Command, run: Path, data_file: Path, tmp_path: Path
) -> None:
    overrides = [
        f"ckpt={run / 'checkpoints' / 'best.ckpt'}",
        "dataset=dielectric",
        f"dataset.path={data_file}",
    ]
    answer = csgcnn("evaluate", *overrides, "check_invariance=true", cwd=tmp_path)
    assert answer.code == 0, answer.said
    found = re.findall(CHANGE, answer.out)
    assert [transform for _, transform, *_ in found] == list(SAME_CRYSTAL)
    for target, _, change, unit, id_ in found:
        assert (target, unit) == ("band_gap", " eV")
        assert float(change) < 1e-4
        assert (float(change) > 0) == bool(id_)


@pytest.mark.slow
def test_the_check_finds_a_graph_that_depends_on_the_cell(
    csgcnn: Command, small: list[str], data_file: Path, tmp_path: Path
) -> None:
    """A sum over the cell differs for a supercell, which is reported per target with its unit."""
    several = [
        "dataset.targets=[band_gap,is_metal]",
        "dataset.derived.is_metal=band_gap < 1",
        "dataset.tasks.is_metal=classification",
    ]
    answer = csgcnn("train", *small, *several, "pooling=sum", "hydra.run.dir=sum", cwd=tmp_path)
    assert answer.code == 0, answer.said
    overrides = [
        "ckpt=sum/checkpoints/best.ckpt",
        "dataset=dielectric",
        f"dataset.path={data_file}",
    ]
    answer = csgcnn("evaluate", *overrides, "check_invariance=true", cwd=tmp_path)
    found = {
        (target, transform): (float(change), unit)
        for target, transform, change, unit, _ in re.findall(CHANGE, answer.out)
    }
    assert len(found) == 2 * len(SAME_CRYSTAL)
    for target, unit in (("band_gap", " eV"), ("a probability of is_metal", "")):
        assert found[target, "2x2x2 supercell"][0] > 1e-2
        assert found[target, "rotation"][0] < 1e-4
        assert found[target, "rotation"][1] == unit


@pytest.mark.slow
def test_crystals_without_a_niggli_cell_are_counted(
    csgcnn: Command, run: Path, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spglib.niggli_reduce", lambda *_: None)
    overrides = [
        f"ckpt={run / 'checkpoints' / 'best.ckpt'}",
        "dataset=dielectric",
        f"dataset.path={data_file}",
    ]
    answer = csgcnn("evaluate", *overrides, "check_invariance=true", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "Niggli cell: 60 crystals have no such description" in answer.out
    assert [transform for _, transform, *_ in re.findall(CHANGE, answer.out)] == [
        name for name in SAME_CRYSTAL if name != "Niggli cell"
    ]
