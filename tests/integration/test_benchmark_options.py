"""A benchmark of ensembles, of classes and of part of the data; invalid overrides."""

import csv
import gzip
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_helpers import QUICK, read

Command = Callable[..., Any]


@pytest.mark.slow
def test_each_fold_trains_an_ensemble(benchmark: Command, benchmark_folder: Path) -> None:
    # The second call must see that fold 0 is finished.
    for folds in (["folds=0"], []):
        answer = benchmark("toy", "ensemble=2", "hydra.run.dir=ensembles", *folds)
        assert answer.code == 0, answer.said
    assert "fold 0 of 3 is finished" in answer.said
    home = benchmark_folder / "ensembles"
    summary, one = read(home / "summary.json"), read(home / "fold-1/member-1/metrics.json")
    assert summary["folds"][1]["n_parameters"] == 2 * one["n_parameters"]
    with open(home / "fold-1" / "metrics.csv", newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert len(seconds) == 2 * one["epochs"]
    assert summary["folds"][1]["minutes"] == pytest.approx(sum(seconds) / 60)
    runs = [read(home / f"fold-{fold}" / "metrics.json") for fold in range(3)]
    mae = statistics.fmean(run["test"]["band_gap"]["mae"] for run in runs)
    assert summary["score"]["mae"]["mean"] == pytest.approx(mae)


@pytest.mark.slow
def test_classifications_have_the_format_of_matbench(
    benchmark: Command, benchmark_folder: Path
) -> None:
    answer = benchmark("frame", "task.n_folds=5", "model.hidden=4", "trainer.max_epochs=1")
    assert answer.code == 0, answer.said
    (home,) = benchmark_folder.glob("runs/frame/fast_*")
    summary = read(home / "summary.json")
    assert summary["metric"] == "balanced_accuracy"
    assert summary["baselines"]["predicting the mean"]["score"]["balanced_accuracy"]["mean"] == 0.5
    assert summary["baselines"]["composition alone"]["score"]["roc_auc"]["mean"] > 0.6
    record = json.loads(gzip.decompress((home / "results.json.gz").read_bytes()))
    results = record["tasks"]["matbench_toy"]["results"]
    found = [id_ for fold in results.values() for id_ in fold["data"]]
    assert sorted(found) == [f"mb-toy-{number:02}" for number in range(1, 61)]
    for fold in results.values():
        assert fold["scores"].keys() == {"accuracy", "balanced_accuracy", "f1", "rocauc"}
        assert all(0 <= probability <= 1 for probability in fold["data"].values())


def test_part_of_the_official_data_gives_no_score(
    benchmark: Command, benchmark_folder: Path
) -> None:
    overrides = ["folds=[1]", "task.n_folds=2", "task.n_rows=18928", "dataset.split.column=other"]
    answer = benchmark("toy", *overrides)
    assert answer.code == 0, answer.said
    assert "1 of 2 folds and 60 of 18,928 crystals: not a Matbench score" in answer.said


def test_folds_that_are_not_the_official_ones_give_no_score(benchmark: Command) -> None:
    overrides = ["folds=[1]", "task.n_folds=2", "dataset.split.column=other"]
    answer = benchmark("toy", *overrides, "task.name=matbench_phonons", "trainer.max_epochs=1")
    assert answer.code == 0, answer.said
    other = "folds 0, 1 with other test crystals than in Matbench"
    assert f"{other}: this will not be a Matbench score" in answer.said
    assert f"1 of 2 folds and {other}: not a Matbench score" in answer.said


@pytest.mark.parametrize(
    ("overrides", "code", "messages"),
    [
        (["folds=[3]"], 2, ["folds=[3]", "0 to 2"]),
        (["folds=[]"], 2, ["folds=[]"]),
        (["folds=0..4"], 2, ["folds=0..4"]),
        (["folds=[0,0]"], 2, ["folds=[0, 0]"]),
        (["dataset.split.method=random"], 2, ["dataset.split.column=fold needs", "not random"]),
        (["resume=somewhere"], 2, ["resume=somewhere", "resumes a benchmark"]),
        (["dataset.split.column=fole"], 1, ["column=fole", "no such column"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_invalid_overrides_leave_no_files(
    overrides: list[str], code: int, messages: list[str], benchmark: Command, benchmark_folder: Path
) -> None:
    answer = benchmark("toy", *overrides, "hydra.run.dir=refused")
    assert answer.code == code, answer.said
    assert all(message in answer.err for message in messages), answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (benchmark_folder / "refused").exists()


@pytest.fixture(scope="module")
def cross_validated(
    csgcnn: Command, data_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The folder of two repeats of two folds of a file without folds, and the command."""
    folder = tmp_path_factory.mktemp("cross validation")
    words = ["folds=2", "repeats=2", f"dataset.path={data_file}", *QUICK, "trainer.max_epochs=1"]
    answer = csgcnn("benchmark", *words, cwd=folder)
    assert answer.code == 0, answer.said
    return folder, words


def test_own_data_are_cross_validated(cross_validated: tuple[Path, list[str]]) -> None:
    (home,) = cross_validated[0].glob("runs/cross-validation/dielectric/fast_*")
    summary = read(home / "summary.json")
    runs = [read(home / f"fold-{fold}" / "metrics.json") for fold in range(4)]
    errors = [run["test"]["band_gap"]["mae"] for run in runs]
    assert summary["score"]["mae"]["mean"] == pytest.approx(statistics.fmean(errors))
    assert summary["score"]["mae"]["std"] == pytest.approx(statistics.pstdev(errors))
    assert [fold["n_rows"]["test"] for fold in summary["folds"]] == [30] * 4
    assert not (home / "results.json.gz").exists(), "these are no folds of Matbench"
    text = (home / "summary.md").read_text()
    assert "over the 4 folds of 2 repeats" in text
    assert "Matbench" not in text
    for repeat in ((0, 1), (2, 3)):
        parts = [read(home / f"fold-{fold}" / "splits.json")["test"] for fold in repeat]
        assert len({id_ for part in parts for id_ in part}) == 60


def test_a_cross_validation_is_resumed(
    csgcnn: Command, cross_validated: tuple[Path, list[str]]
) -> None:
    folder, words = cross_validated
    answer = csgcnn("benchmark", *words, cwd=folder)
    assert answer.code == 0, answer.said
    assert answer.said.count("is finished") == 4


def test_errors_in_and_out_of_distribution_stand_side_by_side(
    csgcnn: Command, data_file: Path, tmp_path: Path
) -> None:
    words = ["folds=2", f"dataset.path={data_file}", *QUICK, "trainer.max_epochs=1"]
    words += ["dataset.split.method=leave_prototype", "hydra.run.dir=home"]
    answer = csgcnn("benchmark", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    summary = read(tmp_path / "home" / "summary.json")
    runs = [read(tmp_path / "home" / f"fold-{fold}" / "metrics.json") for fold in range(2)]
    for part, scores in (("test", summary), ("in_distribution", summary["in_distribution"])):
        errors = [run[part]["band_gap"]["mae"] for run in runs]
        assert scores["score"]["mae"]["mean"] == pytest.approx(statistics.fmean(errors))
        simple = [run[f"composition_{part}_mae"]["band_gap"] for run in runs]
        folds = scores["baselines"]["composition alone"]["folds"]
        assert [fold["mae"] for fold in folds] == pytest.approx(simple)
    text = (tmp_path / "home" / "summary.md").read_text()
    assert "| MAE | out of distribution (test) | in distribution |" in text
    assert "| fold | MAE | MAE in distribution | RMSE |" in text
    for fold, run in enumerate(runs):
        both = (run[part]["band_gap"]["mae"] for part in ("test", "in_distribution"))
        assert f"| {fold} | {' | '.join(f'{error:.4f}' for error in both)} |" in text
    splits = [read(tmp_path / "home" / f"fold-{fold}" / "splits.json") for fold in range(2)]
    assert len({id_ for split in splits for id_ in split["test"]}) == 60
    words = ["ckpt=home/fold-0", f"dataset.path={data_file}", "split=in_distribution"]
    answer = csgcnn("evaluate", *words, "output=again", cwd=tmp_path)
    assert answer.code == 0, answer.said
    again = read(tmp_path / "again" / "metrics.json")["in_distribution"]["band_gap"]["mae"]
    assert again == pytest.approx(runs[0]["in_distribution"]["band_gap"]["mae"], rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        ([], ["please give task=", "folds=5 to cross-validate"]),
        (["folds=1"], ["folds=1", "at least 2"]),
        (["folds=3", "dataset.split.method=group", "dataset.split.column=x"], ["method=group"]),
        (["folds=3", "repeats=0"], ["repeats=0"]),
        (
            ["folds=3", "repeats=2", "dataset.split.method=target_tail"],
            ["repeats=2: dataset.split.method=target_tail has none"],
        ),
        (["folds=3", "dataset.split.method=time"], ["needs the name of a column"]),
    ],
    ids=str,
)
def test_other_cross_validations_are_refused(
    csgcnn: Command, data_file: Path, overrides: list[str], messages: list[str], tmp_path: Path
) -> None:
    answer = csgcnn("benchmark", *overrides, f"dataset.path={data_file}", *QUICK, cwd=tmp_path)
    assert answer.code == 2, answer.said
    assert all(message in answer.err for message in messages), answer.err
