"""A benchmark trains its folds as runs; its score needs all of them."""

import csv
import gzip
import hashlib
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_helpers import N_FOLDS, read

Command = Callable[..., Any]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
    }


@pytest.fixture(scope="module")
def partial(benchmark: Command, benchmark_folder: Path) -> tuple[Path, str, Any]:
    """The benchmark after two of its three folds, its output, and the files of fold 0."""
    answer = benchmark("toy", "folds=[2,0]")
    assert answer.code == 0, answer.said
    (home,) = benchmark_folder.glob("runs/toy/fast_*")
    return home, answer.said, contents(home / "fold-0")


@pytest.fixture(scope="module")
def whole(benchmark: Command, partial: tuple[Path, str, Any]) -> tuple[Path, str]:
    """The benchmark after its last fold, which was stopped and resumed, and the output."""
    home, _, before = partial
    summary = (home / "summary.md").read_text()
    stopped = benchmark("toy", "trainer.max_minutes=1e-9", "folds=1")
    assert stopped.code == 75, stopped.said
    assert not (home / "fold-1" / "metrics.json").exists()
    assert (home / "fold-1" / "checkpoints" / "last.ckpt").exists()
    assert (home / "summary.md").read_text() == summary
    answer = benchmark("toy")
    assert answer.code == 0, answer.said
    assert contents(home / "fold-0") == before, "a finished fold is not touched"
    return home, answer.said


def test_some_folds_give_no_score(partial: tuple[Path, str, Any]) -> None:
    home, said, _ = partial
    summary = read(home / "summary.json")
    assert sorted(path.name for path in home.glob("fold-*")) == ["fold-0", "fold-2"]
    assert [fold["fold"] for fold in summary["folds"]] == [0, 2]
    assert summary["score"] is None
    assert summary["shortfall"] == "2 of 3 folds: not a Matbench score"
    assert "**2 of 3 folds: not a Matbench score**" in said
    assert "±" not in said
    assert not (home / "results.json.gz").exists()


def test_the_score_is_the_mean_of_all_folds(
    whole: tuple[Path, str], partial: tuple[Path, str, Any]
) -> None:
    home, said = whole
    summary = read(home / "summary.json")
    runs = [read(home / f"fold-{fold}" / "metrics.json") for fold in range(N_FOLDS)]
    for name in ("mae", "rmse"):
        errors = [run["test"]["band_gap"][name] for run in runs]
        assert [fold[name] for fold in summary["folds"]] == errors
        mean = sum(errors) / 3
        assert summary["score"][name]["mean"] == pytest.approx(mean)
        assert summary["score"][name]["std"] == pytest.approx(
            (sum((e - mean) ** 2 for e in errors) / 3) ** 0.5
        )
    assert summary["shortfall"] is None
    score = summary["score"]["mae"]
    assert f"**MAE {score['mean']:.4f} ± {score['std']:.4f} eV**" in said
    assert "fold 0 of 3 is finished" in said
    assert (summary["seed"], summary["recipe"], summary["metric"]) == (0, "fast", "mae")
    assert all(
        fold["epochs"] == 2 and fold["minutes"] > 0 and fold["machine"] for fold in summary["folds"]
    )
    assert summary["overrides"] == [
        "trainer.max_epochs=2",
        "trainer.batch_size=16",
        "model.hidden=8",
    ]


def test_the_summary_ranks_the_model_among_published_ones(whole: tuple[Path, str]) -> None:
    lines = (whole[0] / "summary.md").read_text().splitlines()
    names = [line.split(" | ")[0].strip("|* ") for line in lines if line.startswith("| ")]
    ranking = names[names.index("model") + 2 :]
    assert ranking[0] == "best"
    assert {*ranking[1:4]} == {
        "csgcnn, recipe fast with the overrides above",
        "predicting the mean, here",
        "composition alone, here",
    }
    assert ranking[4:] == ["middling", "worst"]


def test_folds_test_their_rows_and_never_train_on_them(
    whole: tuple[Path, str],
    records: list[dict[str, Any]],
    table: Callable[[Path], list[dict[str, str]]],
) -> None:
    ids = [record["material_id"] for record in records]
    for fold in range(N_FOLDS):
        split = read(whole[0] / f"fold-{fold}" / "splits.json")
        assert split["test"] == ids[fold::N_FOLDS]
        assert not {*split["test"]} & {*split["train"], *split["val"]}
        assert len({*split["train"], *split["val"], *split["test"]}) == 60
        rows = table(whole[0] / f"fold-{fold}" / "predictions.csv")
        assert [row["id"] for row in rows if row["split"] == "test"] == split["test"]


def test_baselines_do_not_use_the_test_rows(
    whole: tuple[Path, str], records: list[dict[str, Any]]
) -> None:
    summary, gaps = read(whole[0] / "summary.json"), [record["band_gap"] for record in records]
    baselines = summary["baselines"]
    for fold in range(N_FOLDS):
        mean = statistics.fmean(gap for i, gap in enumerate(gaps) if i % N_FOLDS != fold)
        expected = statistics.fmean(abs(gap - mean) for gap in gaps[fold::N_FOLDS])
        assert baselines["predicting the mean"]["folds"][fold]["mae"] == pytest.approx(
            expected, rel=1e-5
        )
    composition = baselines["composition alone"]["score"]["mae"]["mean"]
    assert 0.1 < composition < baselines["predicting the mean"]["score"]["mae"]["mean"]


def test_the_record_has_the_format_of_matbench(
    whole: tuple[Path, str], table: Callable[[Path], list[dict[str, str]]]
) -> None:
    record = json.loads(gzip.decompress((whole[0] / "results.json.gz").read_bytes()))
    assert (
        record.pop("hash")
        == hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    )
    assert (record["@module"], record["@class"]) == ("matbench.bench", "MatbenchBenchmark")
    assert (
        record["benchmark_name"]
        == record["tasks"]["matbench_toy"]["benchmark_name"]
        == "matbench_v0.1"
    )
    results = record["tasks"]["matbench_toy"]["results"]
    assert list(results) == ["fold_0", "fold_1", "fold_2"]
    for fold, content in enumerate(results.values()):
        rows = [
            row
            for row in table(whole[0] / f"fold-{fold}" / "predictions.csv")
            if row["split"] == "test"
        ]
        assert content["data"] == {
            row["id"]: float(row["band_gap_prediction [eV]"]) for row in rows
        }
        assert content["parameters"]["seed"] == 0
        errors = [abs(float(row["band_gap_error [eV]"])) for row in rows]
        scores = content["scores"]
        assert scores.keys() == {"mae", "rmse", "mape", "max_error"}
        assert scores["mae"] == pytest.approx(statistics.fmean(errors), rel=1e-4)
        assert scores["max_error"] == pytest.approx(max(errors), rel=1e-4)
        relative = [
            e / abs(gap)
            for e, row in zip(errors, rows, strict=True)
            if (gap := float(row["band_gap [eV]"]))
        ]
        assert scores["mape"] == pytest.approx(statistics.fmean(relative), rel=1e-4)


@pytest.mark.slow
def test_folds_of_one_benchmark_need_the_same_settings(
    benchmark: Command, whole: tuple[Path, str]
) -> None:
    home, _ = whole
    for override in ("trainer.max_epochs=3", "seed=1"):
        answer = benchmark("toy", override, f"hydra.run.dir={home}")
        assert answer.code == 2
        assert override.partition("=")[0] in answer.err


def test_folds_are_ordinary_runs(csgcnn: Command, whole: tuple[Path, str]) -> None:
    home, _ = whole
    answer = csgcnn("table", str(home), cwd=home)
    assert answer.code == 0, answer.said
    assert answer.err == ""
    with open(home / "table.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["split"] == f"fold (fold, {N_FOLDS} folds)"
