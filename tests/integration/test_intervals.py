"""Prediction intervals from calibration rows, from training to the table of predictions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csgcnn import load
from csgcnn.runs.checkpoint import load_checkpoint

pytestmark = [
    pytest.mark.usefixtures("without_figures"),
    pytest.mark.filterwarnings("ignore::csgcnn.errors.DataWarning"),
]

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
ONE_EPOCH = "trainer.max_epochs=1"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(csgcnn: Command, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intervals")
    words = [*small, ONE_EPOCH, "dataset.split.calibration=0.4", "hydra.run.dir=run"]
    answer = csgcnn("train", *words, cwd=folder)
    assert answer.code == 0, answer.said
    assert "test: 50, 68" in answer.said
    return folder / "run"


def test_calibration_rows_neither_train_nor_are_tested(run: Path, table: Table) -> None:
    split, metrics = read(run / "splits.json"), read(run / "metrics.json")
    n_labels = len(split["calibration"])
    assert metrics["n_rows"]["calibration"] == n_labels >= 9
    assert metrics["interval_labels"] == {"band_gap": n_labels}
    assert "calibration" not in metrics
    assert {row["split"] for row in table(run / "predictions.csv")} == {"val", "test"}


def test_the_table_of_predictions_has_intervals_of_the_level(
    run: Path, csgcnn: Command, cifs: Path, table: Table
) -> None:
    words = ["ckpt=run", f"structures={cifs}", "workers=1", "overwrite=true"]
    half = {}
    for level in ("0.5", "0.9"):
        answer = csgcnn("predict", *words, f"level={level}", cwd=run.parent)
        assert answer.code == 0, answer.said
        rows = table(run.parent / "predictions.csv")
        assert [*rows[0]][:4] == [
            "id",
            *(f"band_gap{end} [eV]" for end in ("", "_lower", "_upper")),
        ]
        ends = np.array([[float(cell) for cell in [*row.values()][1:4]] for row in rows])
        np.testing.assert_allclose(ends[:, 0] - ends[:, 1], ends[:, 2] - ends[:, 0], atol=1e-4)
        half[level] = float(ends[0, 2] - ends[0, 0])
    (scores,) = load(run).conformal.scores["band_gap"]
    assert half["0.9"] == pytest.approx(float(scores[int(np.ceil((len(scores) + 1) * 0.9)) - 1]))
    assert half["0.5"] < half["0.9"]
    answer = csgcnn("predict", *words, "level=0.99", cwd=run.parent)
    assert answer.code == 2
    assert "level=0.99 needs 99 calibration labels of band_gap, and the model has" in answer.err


def test_evaluate_measures_the_coverage(run: Path, csgcnn: Command, data_file: Path) -> None:
    words = ["ckpt=run", f"dataset.path={data_file}", "output=evaluated"]
    for part in ("test", "calibration"):
        answer = csgcnn("evaluate", *words, f"split={part}", "overwrite=true", cwd=run.parent)
        assert answer.code == 0, answer.said
        found = read(run.parent / "evaluated" / "metrics.json").get("intervals")
        # Calibration rows say nothing about the coverage.
        expected = read(run / "metrics.json")["intervals"] if part == "test" else None
        assert found == expected


def test_python_gives_the_bounds(run: Path, records: list[dict[str, Any]]) -> None:
    structures = [record["crystal_structure"] for record in records[:3]]
    model = load(run)
    assert (model.has_std, model.has_intervals) == (False, True)
    frame = model.predict(structures, as_frame=True, level=0.9)
    inside = frame["band_gap [eV]"].between(
        frame["band_gap_lower [eV]"], frame["band_gap_upper [eV]"]
    )
    assert inside.all()
    assert "band_gap_lower [eV]" not in model.predict(structures, as_frame=True)


def test_the_refitted_network_is_calibrated_with_its_own_errors(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    words = [*small, ONE_EPOCH, "dataset.split.calibration=0.4", "trainer.refit=true"]
    answer = csgcnn("train", *words, "loss=gaussian", "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    content = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    known, split = read(tmp_path / "run" / "splits.json"), content["split"]
    assert split["calibration"] == known["calibration"]
    assert not set(split["train"]) & set(split["calibration"])
    assert len(content["conformal"]["band_gap"][0]) == len(split["calibration"])


def test_an_ensemble_of_folds_has_intervals_of_all_training_rows(
    csgcnn: Command, small: list[str], tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    words = [*small, ONE_EPOCH, "ensemble=2", "ensemble_folds=true", "hydra.run.dir=cv"]
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    folder = tmp_path / "cv"
    split = read(folder / "splits.json")
    folds = [read(folder / f"member-{i}" / "splits.json") for i in range(2)]
    assert sorted(folds[0]["calibration"] + folds[1]["calibration"]) == sorted(split["train"])
    assert all(
        set(fold["train"]) == set(split["train"]) - set(fold["calibration"]) for fold in folds
    )
    metrics, model = read(folder / "metrics.json"), load(folder)
    assert metrics["interval_labels"] == {"band_gap": len(split["train"])}
    assert metrics["n_rows"]["train"] == len(split["train"])
    assert set(model.split["train"]) == set(split["train"])
    assert set(model.embeddings.ids) == set(split["train"])
    structures = [record["crystal_structure"] for record in records[:4]]
    frame = model.predict(structures, as_frame=True, level=0.9)
    members = [load(folder / f"member-{i}") for i in range(2)]
    centers = [member.predict(structures)[:, 0] for member in members]
    scores = [member.conformal.scores["band_gap"][0].numpy() for member in members]
    rank = int(np.ceil((len(split["train"]) + 1) * 0.9))
    for row in range(4):
        above = np.sort(np.concatenate([c[row] + s for c, s in zip(centers, scores, strict=True)]))
        assert frame["band_gap_upper [eV]"][row] == pytest.approx(above[rank - 1], rel=1e-5)
    answer = csgcnn("train", "resume=cv", "ensemble=3", cwd=tmp_path)
    assert answer.code == 2
    assert "the folds are those of ensemble=2" in answer.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ensemble_folds=true"], "ensemble_folds=true needs ensemble=…"),
        (
            ["ensemble_folds=true", "ensemble=3", "dataset.split.calibration=0.1"],
            "ensemble_folds=true excludes dataset.split.calibration",
        ),
        (
            ["dataset.split.calibration=0.5", "dataset.split.calibration_fold=2"],
            "with calibration=0.5 the folds are 0 to 1",
        ),
        (["dataset.split.calibration=0.05"], "expected at least 9 for level=0.9"),
    ],
)
def test_other_settings_are_refused(
    overrides: list[str], message: str, csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, *overrides, cwd=tmp_path)
    assert answer.code == 2
    assert message in answer.err
