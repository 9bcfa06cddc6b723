"""Test trainings on the difference of a target from a reference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import Answer

import csgcnn as package
from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Answer]
Table = Callable[[Path], list[dict[str, str]]]
BEST = "checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def folder(csgcnn: Command, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble and a run with a kernel head that subtract a reference of the composition."""
    folder = tmp_path_factory.mktemp("delta")
    words = [*small, "dataset.delta=composition", "trainer.max_epochs=1"]
    for name, more in (("ensemble", ["ensemble=2"]), ("gp", ["head=gp", "head.inputs=[crystal]"])):
        answer = csgcnn("train", *words, *more, f"hydra.run.dir={name}", cwd=folder)
        assert answer.code == 0, answer.said
    return folder


@pytest.mark.parametrize("name", ["ensemble", "gp"])
def test_predictions_are_of_the_target(
    csgcnn: Command, folder: Path, data_file: Path, table: Table, name: str
) -> None:
    words = [f"ckpt={name}/{BEST}", f"structures={data_file}", f"output={name}.csv"]
    answer = csgcnn("predict", *words, cwd=folder)
    assert answer.code == 0, answer.said
    predicted = {row["id"]: float(row["band_gap [eV]"]) for row in table(folder / f"{name}.csv")}
    for row in table(folder / name / "predictions.csv"):
        value = float(row["band_gap_prediction [eV]"])
        assert predicted[row["id"]] == pytest.approx(value, rel=1e-4, abs=1e-5)
    metrics = json.loads((folder / name / "metrics.json").read_text())["test"]["band_gap"]
    words = [f"ckpt={name}/{BEST}", f"dataset.path={data_file}", "split=test"]
    answer = csgcnn("evaluate", *words, cwd=folder)
    assert f"MAE of band_gap: {metrics['mae']:.4g} eV" in answer.said


def test_a_supercell_has_the_same_prediction(folder: Path, records: list[dict[str, Any]]) -> None:
    from pymatgen.core import Structure

    found = records[0]["crystal_structure"]
    cell = Structure(found["lattice"], found["species"], found["frac_coords"])
    model = package.load(folder / "ensemble" / BEST)
    np.testing.assert_allclose(*model.predict([cell, cell * (3, 1, 1)]), rtol=1e-5)


def test_the_checkpoint_names_the_reference(folder: Path, run: Path) -> None:
    (target,) = load_checkpoint(folder / "gp" / BEST)["targets"]
    assert target["delta"] == "composition"
    content = load_checkpoint(run / BEST)
    assert "delta" not in content["targets"][0], "earlier versions can read a model that has none"
    assert not any("reference" in name for name in content["state_dict"])


def test_classes_have_no_reference(csgcnn: Command, small: list[str], tmp_path: Path) -> None:
    words = ["dataset.derived.wide=band_gap > 3", "dataset.tasks.wide=classification"]
    more = ["dataset.targets=[wide]", "dataset.delta=composition"]
    answer = csgcnn("train", *small, *words, *more, cwd=tmp_path)
    assert answer.code in (1, 2)
    assert "dataset.delta=composition needs numbers, and wide has classes; omit it" in answer.err
