"""csgcnn evaluate output=FOLDER writes what a run writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]


@pytest.fixture
def words(run: Path, data_file: Path) -> list[str]:
    ckpt = run / "checkpoints" / "best.ckpt"
    return ["evaluate", f"ckpt={ckpt}", "dataset=dielectric", f"dataset.path={data_file}"]


def test_a_folder_holds_what_a_run_holds(
    csgcnn: Command, words: list[str], run: Path, tmp_path: Path, table: Table
) -> None:
    answer = csgcnn(*words, "split=test", "output=new/errors", cwd=tmp_path)
    assert answer.code == 0, answer.said
    folder = tmp_path / "new" / "errors"
    names = ["element_errors.csv", "element_errors.png"]
    names += ["metrics.json", "parity.png", "predictions.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    found, in_run = (json.loads((home / "metrics.json").read_text()) for home in (folder, run))
    assert found["test"]["band_gap"]["mae"] == pytest.approx(in_run["test"]["band_gap"]["mae"])
    assert found["baseline_test_mae"] == pytest.approx(in_run["baseline_test_mae"])
    assert found["units"] == in_run["units"]
    assert (found["n_rows"], found["n_in_training"]) == ({"test": 6}, 0)
    rows, of_run = (table(home / "predictions.csv") for home in (folder, run))
    assert list(rows[0]) == list(of_run[0])
    assert {row["split"] for row in rows} == {"test"}


def test_all_rows_name_their_part(
    csgcnn: Command, words: list[str], tmp_path: Path, table: Table
) -> None:
    assert csgcnn(*words, "output=errors", cwd=tmp_path).code == 0
    rows = table(tmp_path / "errors" / "predictions.csv")
    assert [row["split"] for row in rows].count("train") == 48
    metrics = json.loads((tmp_path / "errors" / "metrics.json").read_text())
    assert (metrics["n_rows"], metrics["n_in_training"]) == ({"all": 60}, 48)


def test_a_table_never_replaces_the_data_set(csgcnn: Command, run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("id,cif,band_gap\n")
    words = [f"ckpt={run}", "dataset=csv", "dataset.path=data.csv", "output=data.csv"]
    answer = csgcnn("evaluate", *words, cwd=tmp_path)
    assert (answer.code, "data.csv is an input" in answer.err) == (2, True), answer.said
    assert data.read_text() == "id,cif,band_gap\n"


def test_earlier_results_are_kept(
    csgcnn: Command, words: list[str], run: Path, tmp_path: Path
) -> None:
    (tmp_path / "errors").mkdir()
    (tmp_path / "errors" / "metrics.json").write_text("mine")
    (tmp_path / "errors" / "roc_old.png").touch()
    answer = csgcnn(*words, "output=errors", cwd=tmp_path)
    assert (answer.code, "overwrite=true" in answer.err) == (2, True), answer.said
    assert (tmp_path / "errors" / "metrics.json").read_text() == "mine"
    assert csgcnn(*words, "output=errors", "overwrite=true", cwd=tmp_path).code == 0
    assert "band_gap" in (tmp_path / "errors" / "metrics.json").read_text()
    assert not (tmp_path / "errors" / "roc_old.png").exists(), "it is of the evaluation before"
    before = (run / "metrics.json").read_bytes()
    answer = csgcnn(*words, f"output={run}", "overwrite=true", cwd=tmp_path)
    assert (answer.code, "is a run directory" in answer.err) == (2, True), answer.said
    assert (run / "metrics.json").read_bytes() == before


def test_other_outputs_are_refused(csgcnn: Command, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output, message in (("file", "is a file"), ("errors.parquet", "NAME.csv")):
        answer = csgcnn(*words, f"output={output}", cwd=tmp_path)
        assert (answer.code, message in answer.err) == (2, True), answer.said
    answer = csgcnn(*words[:-1], "dataset.path=absent.json", "output=errors", cwd=tmp_path)
    assert answer.code == 1
    assert not (tmp_path / "errors").exists()
