"""A learning curve trains with growing parts of the training rows, each as a run."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from benchmark_helpers import QUICK, read

import csgcnn as library

Command = Callable[..., Any]
Curve = tuple[Path, list[str]]
SIZES = [12, 24, "all"]
ONE_EPOCH = [*QUICK, "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def curve(csgcnn: Command, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Curve:
    """The folder of two repeats of three sizes, of which the last was stopped, and the words."""
    folder = tmp_path_factory.mktemp("learning curve")
    words = ["learning-curve", "repeats=2", f"dataset.path={data_file}", *ONE_EPOCH]
    answer = csgcnn(*words, "sizes=[24,12]", cwd=folder)
    assert answer.code == 0, answer.said
    (home,) = folder.glob("runs/learning-curve/dielectric/fast_*")
    assert "No extrapolation: a power law needs at least 3 sizes, not 2" in answer.said
    stopped = csgcnn(*words, "sizes=[12,24,all]", "trainer.max_minutes=1e-9", cwd=folder)
    assert stopped.code == 75, stopped.said
    assert "rerun the same command to resume all runs" in stopped.said
    answer = csgcnn(*words, "sizes=[12,24,all]", cwd=folder)
    assert answer.code == 0, answer.said
    assert answer.said.count("is finished") == 4, "only the added size is trained"
    return home, words


def test_the_errors_are_those_of_the_runs(
    curve: Curve, table: Callable[[Path], list[dict[str, str]]]
) -> None:
    home, _ = curve
    summary = read(home / "summary.json")
    runs = {(run["repeat"], run["size"]): run for run in summary["runs"]}
    assert list(runs) == [(repeat, size) for repeat in (0, 1) for size in SIZES]
    for (repeat, size), run in runs.items():
        metrics = read(home / f"repeat-{repeat}" / f"size-{size}" / "metrics.json")
        assert run["error"] == metrics["test"]["band_gap"]["mae"]
        assert run["n_train"] == metrics["n_rows"]["train"] == (48 if size == "all" else size)
    rows = table(home / "error_by_size.csv")
    assert [float(row["error"]) for row in rows] == pytest.approx(
        [run["error"] for run in runs.values()], rel=1e-5
    )
    assert (summary["error"], summary["unit"], summary["shortfall"]) == ("MAE", "eV", None)
    assert (summary["power_law"] is None) != (summary["contradiction"] is None)
    text = (home / "summary.md").read_text()
    assert "| 48 (all) |" in text
    assert "Mean ± standard deviation over the repeats" in text


def test_the_rows_of_a_size_contain_those_of_smaller_ones(curve: Curve) -> None:
    home, _ = curve
    tests = []
    for repeat in (0, 1):
        splits = [read(home / f"repeat-{repeat}/size-{size}/splits.json") for size in SIZES]
        for smaller, larger in pairwise(splits):
            assert {*smaller["train"]} < {*larger["train"]}
            assert (smaller["val"], smaller["test"]) == (larger["val"], larger["test"])
        tests.append({*splits[0]["test"]})
    assert tests[0] != tests[1], "each repeat divides the data anew"


def test_one_repeat_extrapolates_without_intervals(csgcnn: Command, curve: Curve) -> None:
    home, words = curve
    words = [*words, "sizes=[12,24,all]", "repeats=1", "trainer.figures=true"]
    answer = csgcnn(*words, f"hydra.run.dir={home}", cwd=home.parents[3])
    assert answer.code == 0, answer.said
    summary = read(home / "summary.json")
    if law := summary["power_law"]:
        assert [point["low"] for point in law["extrapolated"]] == [None, None]
        assert [point["n_train"] for point in law["extrapolated"]] == [96, 480]
        assert "One repeat: no intervals" in answer.said
    assert (home / "error_by_size.png").stat().st_size > 10_000


def test_runs_with_other_settings_are_refused(csgcnn: Command, curve: Curve) -> None:
    home, words = curve
    answer = csgcnn(*words, "sizes=[12,24]", "seed=5", f"hydra.run.dir={home}", cwd=home)
    assert answer.code == 2
    assert "seed=5" in answer.err


def test_classes_are_measured_by_their_balanced_accuracy(data_file: Path, tmp_path: Path) -> None:
    quick = {"max_epochs": 1, "hidden": 4, "threads": 1, "workers": 1, "figures": False}
    is_wide = {"dataset.derived.is_wide": "band_gap > 2"}
    is_wide |= {"dataset.tasks.is_wide": "classification"}
    summary = library.learning_curve(
        data_file, "is_wide", [20], 1, folder=tmp_path / "curve", verbose=False, **quick, **is_wide
    )
    assert summary["error"] == "1 - balanced accuracy"
    metrics = read(tmp_path / "curve" / "repeat-0" / "size-20" / "metrics.json")
    assert summary["runs"][0]["error"] == 1 - metrics["test"]["is_wide"]["balanced_accuracy"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sizes=[]"], "sizes=[]: expected different numbers"),
        (["sizes=[12,12]"], "sizes=[12,12]: expected different numbers"),
        (["sizes=[0,12]"], "sizes=[0,12]: expected different numbers"),
        (["sizes=0.5"], "sizes=[0.5]: expected different numbers"),
        (["sizes=some"], "sizes=[some]: expected different numbers"),
        (["sizes=[12,48,all]"], "the split has 48 training crystals"),
        ([], "give sizes=[all]"),
        (["sizes=[12]", "dataset.split.test=0"], "there are no test rows"),
        (["sizes=[12]", "dataset.split.train_size=5"], "sizes=… chooses the sizes"),
        (["sizes=[12]", "dataset.split.calibration=0.1"], "measures no intervals"),
        (["sizes=[12]", "ensemble=2", "ensemble_folds=true"], "measures no intervals"),
        (["sizes=[12]", "trainer.refit=true"], "give trainer.refit=false"),
        (["sizes=[12]", "resume=here"], "resumes a learning curve"),
    ],
    ids=str,
)
def test_other_learning_curves_are_refused(
    csgcnn: Command, data_file: Path, overrides: list[str], message: str, tmp_path: Path
) -> None:
    words = [f"dataset.path={data_file}", *ONE_EPOCH, *overrides, "hydra.run.dir=refused"]
    answer = csgcnn("learning-curve", *words, cwd=tmp_path)
    assert answer.code == 2, answer.said
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "refused").exists()
