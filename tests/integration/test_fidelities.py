"""Test trainings on values of one target by several methods."""

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
FIDELITIES = "dataset.fidelities={gga: gap_gga, hse: band_gap}"


@pytest.fixture(scope="module")
def gaps(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty crystals with a gap by two methods; a third lacks the more expensive one."""
    rows = [
        record
        | {"gap_gga": record["band_gap"] - 0.5, "band_gap": record["band_gap"] if i % 3 else None}
        for i, record in enumerate(records[:40])
    ]
    path = tmp_path_factory.mktemp("gaps") / "gaps.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def trained(
    csgcnn: Command, small: list[str], gaps: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("fidelities")
    words = [*small, f"dataset.path={gaps}", FIDELITIES, "trainer.max_epochs=1"]
    answer = csgcnn("train", *words, "hydra.run.dir=run", cwd=folder)
    assert answer.code == 0, answer.said
    assert "test MAE of band_gap: gga " in answer.said
    return folder / "run"


def test_all_rows_of_a_crystal_are_in_one_part(trained: Path) -> None:
    parts = json.loads((trained / "splits.json").read_text())
    assert sum(map(len, parts.values())) == 40 + 26
    crystals = [{id_.rpartition(":")[0] for id_ in ids} for ids in parts.values()]
    assert sum(map(len, crystals)) == len(set.union(*crystals)) == 40


def test_metrics_of_each_fidelity_are_those_of_its_rows(trained: Path, table: Table) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())["fidelities"]["test"]
    rows = [row for row in table(trained / "predictions.csv") if row["split"] == "test"]
    for label in ("gga", "hse"):
        errors = [
            abs(float(row["band_gap_error [eV]"])) for row in rows if row["id"].endswith(label)
        ]
        assert metrics[label]["band_gap"]["n"] == len(errors) > 0
        assert metrics[label]["band_gap"]["mae"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_prediction_chooses_the_fidelity(
    csgcnn: Command, trained: Path, gaps: Path, table: Table, tmp_path: Path
) -> None:
    words = [f"ckpt={trained}", f"structures={gaps}", "output=x.csv", "inputs.fidelity=all"]
    answer = csgcnn("predict", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "x.csv")
    predicted = {f"{row['id']}:{row['fidelity']}": float(row["band_gap [eV]"]) for row in rows}
    assert len(predicted) == 80
    for row in table(trained / "predictions.csv"):
        value = float(row["band_gap_prediction [eV]"])
        assert predicted[row["id"]] == pytest.approx(value, rel=1e-4, abs=1e-5)
    answer = csgcnn("predict", *words[:3], "overwrite=true", cwd=tmp_path)
    assert answer.code == 1
    assert "fidelity is missing, expected one of gga, hse" in answer.said


def test_evaluate_measures_each_fidelity(csgcnn: Command, trained: Path, gaps: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())["fidelities"]["test"]
    words = [f"ckpt={trained}", f"dataset.path={gaps}", "split=test", "check_invariance=true"]
    answer = csgcnn("evaluate", *words, cwd=trained)
    assert answer.code == 0, answer.said
    assert f"MAE of band_gap: gga {metrics['gga']['band_gap']['mae']:.4g} eV" in answer.said
    assert "largest change of band_gap by rotation" in answer.said


def test_records_of_one_fidelity_each_train_alike(
    csgcnn: Command, trained: Path, gaps: Path, small: list[str], tmp_path: Path
) -> None:
    rows = [
        {"id": f"{row['material_id']}:{label}", "crystal_structure": row["crystal_structure"]}
        | {"band_gap": row[column], "method": label}
        for row in json.loads(gaps.read_text())
        for label, column in (("gga", "gap_gga"), ("hse", "band_gap"))
        if row[column] is not None
    ]
    (tmp_path / "long.json").write_text(json.dumps(rows))
    words = [*small, "dataset.path=long.json", "dataset.fidelity=method", "trainer.max_epochs=1"]
    answer = csgcnn("train", *words, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    one, other = (folder / "predictions.csv" for folder in (trained, tmp_path / "run"))
    assert one.read_text() == other.read_text()
    model = package.load(tmp_path / "run")
    assert model.inputs == ["method"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.fidelity=band_gap"], "dataset.fidelities excludes dataset.fidelity"),
        (["dataset.split.method=matbench"], "excludes dataset.split.method=matbench"),
        (["dataset.targets=[e_total]"], "expected one of the columns of dataset.fidelities"),
        (["head=gp"], "a kernel head does not read dataset.inputs or fidelities"),
    ],
)
def test_what_has_no_effect_is_refused(
    words: list[str], message: str, csgcnn: Command, small: list[str], gaps: Path, tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, f"dataset.path={gaps}", FIDELITIES, *words, cwd=tmp_path)
    assert answer.code in (1, 2)
    assert message in answer.err, answer.err
