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


@pytest.fixture(scope="module")
def gaps(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty crystals with a column near the target, which one of them lacks."""
    rows = [
        record | {"cheap": record["band_gap"] + 0.1 * (i % 3)} for i, record in enumerate(records)
    ]
    rows[7]["cheap"], rows[9]["cheap"] = None, "wide"
    path = tmp_path_factory.mktemp("gaps") / "gaps.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def of_column(
    csgcnn: Command, small: list[str], gaps: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that subtracts the column."""
    folder = tmp_path_factory.mktemp("column")
    words = [f"dataset.path={gaps}", "dataset.targets=[band_gap]", "dataset.delta=cheap"]
    more = ["dataset.on_error=skip", "trainer.max_epochs=1", "hydra.run.dir=run"]
    answer = csgcnn("train", *small, *words, *more, cwd=folder)
    assert answer.code == 0, answer.said
    return folder / "run"


def test_a_column_is_subtracted_and_added_back(
    csgcnn: Command, of_column: Path, gaps: Path, table: Table, tmp_path: Path
) -> None:
    trained = table(of_column / "predictions.csv")
    errors = [
        float(row["band_gap_prediction [eV]"]) - float(row["band_gap [eV]"]) for row in trained
    ]
    assert max(map(abs, errors)) < 0.5, "the column differs by at most 0.2 eV"
    assert csgcnn("build", f"dataset.path={gaps}", "output=built", cwd=tmp_path).code == 0
    for structures in (gaps, "built"):
        words = [f"ckpt={of_column}", f"structures={structures}", "output=x.csv", "on_error=skip"]
        answer = csgcnn("predict", *words, "overwrite=true", cwd=tmp_path)
        assert answer.code == 0, answer.said
        predicted = {row["id"]: float(row["band_gap [eV]"]) for row in table(tmp_path / "x.csv")}
        assert len(predicted) == 58
        for row in trained:
            value = float(row["band_gap_prediction [eV]"])
            assert predicted[row["id"]] == pytest.approx(value, rel=1e-4, abs=1e-5)
        reasons = [row["reason"] for row in table(tmp_path / "x.rejected.csv")]
        expected = "expected the number that dataset.delta=cheap adds"
        assert reasons == [f"cheap is missing, {expected}", f"cheap is 'wide', {expected}"]


def test_evaluate_reads_the_column(csgcnn: Command, of_column: Path, gaps: Path) -> None:
    metrics = json.loads((of_column / "metrics.json").read_text())["test"]["band_gap"]
    words = [f"ckpt={of_column}", f"dataset.path={gaps}", "dataset.on_error=skip", "split=test"]
    answer = csgcnn("evaluate", *words, "check_invariance=true", cwd=of_column)
    assert answer.code == 0, answer.said
    assert f"MAE of band_gap: {metrics['mae']:.4g} eV" in answer.said
    assert "largest change of band_gap by rotation" in answer.said


def test_python_predicts_with_a_column(of_column: Path, records: list[dict[str, Any]]) -> None:
    model = package.load(of_column / BEST)
    structures = [record["crystal_structure"] for record in records[:2]]
    low, high = (model.predict(structures, {"cheap": [value, 1.0]}) for value in (0.0, 2.5))
    np.testing.assert_allclose(high - low, [[2.5], [0.0]], atol=1e-5)
    assert model.inputs == ["cheap"]
    with pytest.raises(package.StructureError, match="structure 0: cheap is missing"):
        model.predict(structures)
    with pytest.raises(package.UserError, match="cheap has 1 value for 2 structures"):
        model.predict(structures, {"cheap": [1.0]})


def test_files_without_the_column_are_refused(
    csgcnn: Command, of_column: Path, cifs: Path, tmp_path: Path
) -> None:
    words = [f"ckpt={of_column}", f"structures={cifs}", "output=x.csv"]
    answer = csgcnn("predict", *words, cwd=tmp_path)
    assert answer.code == 1
    assert "cheap is missing, expected the number that dataset.delta=cheap adds" in answer.said
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "cheap is missing, expected the number"),
        (["dataset.delta=gap"], "no such column; expected composition or one of"),
        (["dataset.delta=band_gap"], "dataset.delta=band_gap is a target"),
        (["dataset.transform.band_gap=log1p"], "omit dataset.transform.band_gap"),
        (
            [
                *("dataset.derived.wide=band_gap > 3", "dataset.tasks.wide=classification"),
                *("dataset.targets=[wide]", "dataset.delta=composition"),
            ],
            "dataset.delta=composition needs numbers, and wide has classes; omit it",
        ),
    ],
)
def test_what_cannot_be_subtracted_is_refused(
    words: list[str], message: str, csgcnn: Command, small: list[str], gaps: Path, tmp_path: Path
) -> None:
    own = [f"dataset.path={gaps}", "dataset.targets=[band_gap]", "dataset.delta=cheap"]
    keys = {word.partition("=")[0] for word in words}
    own = [word for word in own if word.partition("=")[0] not in keys]
    answer = csgcnn("train", *small, *own, *words, cwd=tmp_path)
    assert answer.code in (1, 2)
    assert message in answer.err, answer.err
