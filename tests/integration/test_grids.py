"""Test trainings on a target with a grid: each value is a list of numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import Answer

import csgcnn as package

Command = Callable[..., Answer]
Table = Callable[[Path], list[dict[str, str]]]
POINTS = np.array([0.0, 0.5, 1.0, 2.0])
GRID = ["dataset.targets=[dos]", "dataset.grid.dos=[0,0.5,1,2]", "dataset.grid_units.dos=eV"]


def dos(record: dict[str, Any]) -> list[float | None]:
    return (record["band_gap"] * np.exp(-POINTS)).tolist()


@pytest.fixture(scope="module")
def spectra(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty crystals with a list each; the first point of every third is unknown."""
    rows = [
        {key: record[key] for key in ("material_id", "crystal_structure")}
        | {"dos": [None if i % 3 == 0 else dos(record)[0], *dos(record)[1:]], "other": [1, 2]}
        for i, record in enumerate(records[:40])
    ]
    path = tmp_path_factory.mktemp("spectra") / "spectra.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(
    csgcnn: Command, small: list[str], spectra: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("grids")
    words = [*small, f"dataset.path={spectra}", *GRID, "trainer.max_epochs=1", "ensemble=2"]
    words += ["dataset.grid_loss.dos=cumulative"]
    answer = csgcnn("train", *words, "hydra.run.dir=run", cwd=folder)
    assert answer.code == 0, answer.said
    for baseline in ("predicting the mean", "composition alone", "nearest training composition"):
        assert f"{baseline}: " in answer.said
    return folder / "run"


def test_results_are_those_of_the_lists_in_the_npz_file(trained: Path, table: Table) -> None:
    found, rows = np.load(trained / "predictions.npz"), table(trained / "predictions.csv")
    assert found["id"].tolist() == [row["id"] for row in rows]
    assert found["grid"].tolist() == POINTS.tolist()
    errors = np.abs(found["predicted"] - found["true"])
    assert [float(row["dos_mae"]) for row in rows] == pytest.approx(np.nanmean(errors, 1), rel=1e-5)
    assert all(float(row["dos_wasserstein [eV]"]) >= 0 for row in rows)
    metrics = json.loads((trained / "metrics.json").read_text())
    test = metrics["test"]["dos"]
    assert test["mae"] == pytest.approx(np.nanmean(errors[found["split"] == "test"]), rel=1e-5)
    assert {"rmse", "r2", "wasserstein"} < test.keys()
    assert "calibration" not in metrics, "an ensemble has no standard deviations of lists"


def test_python_predicts_an_array_and_commands_its_table(
    csgcnn: Command, trained: Path, spectra: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    model = package.load(trained)
    values = model.predict([record["crystal_structure"] for record in records[:5]])
    assert values.shape == (5, 4)
    assert tuple(model.targets[0].grid) == tuple(POINTS)
    for name in ("a.npz", "a.csv", "a.parquet"):
        words = [f"ckpt={trained}", f"structures={spectra}", f"output={name}"]
        answer = csgcnn("predict", *words, cwd=tmp_path)
        assert answer.code == 0, answer.said
    import pandas as pd

    columns = ["dos_0", "dos_0.5", "dos_1", "dos_2"]
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["dos_grid"].tolist() == POINTS.tolist()
    assert arrays["dos"][:5] == pytest.approx(values, rel=1e-4)
    for table in (pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")):
        assert table[columns].to_numpy() == pytest.approx(arrays["dos"], rel=1e-6)
        assert table["id"].tolist() == arrays["id"].tolist()
        assert not any(name.endswith(("_std", "_lower")) for name in table)


def test_an_evaluation_repeats_the_errors_of_the_run(trained: Path, spectra: Path) -> None:
    found = package.evaluate(trained, spectra, "test", verbose=False)
    metrics = json.loads((trained / "metrics.json").read_text())["test"]["dos"]
    assert found.metrics["dos"]["mae"] == pytest.approx(metrics["mae"], rel=1e-5)
    assert len(found.predictions) == metrics["n"]


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["select", "by=ucb", "goal=max", "n=2"], "by=ucb needs a number, and dos has a grid"),
        (["explain"], "dos has a grid"),
        (["predict", "level=0.5"], "level=0.5 has no effect"),
    ],
)
def test_what_needs_a_single_number_is_refused_by_name(
    words: list[str], cause: str, csgcnn: Command, trained: Path, spectra: Path, tmp_path: Path
) -> None:
    answer = csgcnn(*words, f"ckpt={trained}", f"structures={spectra}", cwd=tmp_path)
    assert answer.code != 0
    assert cause in answer.err


def test_a_report_refers_to_the_figure(csgcnn: Command, trained: Path, tmp_path: Path) -> None:
    answer = csgcnn("report", str(trained), cwd=tmp_path)
    assert answer.code == 1
    assert "grid" in answer.err


def test_built_graphs_keep_the_lists(
    csgcnn: Command, small: list[str], spectra: Path, tmp_path: Path
) -> None:
    words = [f"dataset.path={spectra}", "dataset.grid.dos=[0,0.5,1,2]", "output=built"]
    assert csgcnn("build", *words, cwd=tmp_path).code == 0
    words = [*small, "dataset.path=built", *GRID, "trainer.max_epochs=1", "hydra.run.dir=run"]
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
