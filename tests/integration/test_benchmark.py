"""A benchmark: folds that are runs, a mean that waits for all of them, and a record that Matbench reads."""

import csv
import gzip
import hashlib
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
N_FOLDS = 3
TASK = """\
# @package _global_
dataset:
  path: {path}
  targets: [{target}]
  units: {{band_gap: eV}}
  {more}
task:
  name: matbench_toy
  n_folds: 3
  n_rows: 60
  published: {{best: 0.001, middling: 1e3, worst: 1e6}}
  source: a test
"""
QUICK = [
    "trainer.max_epochs=2",
    "trainer.batch_size=16",
    "model.hidden=8",
    "trainer.progress=false",
    "trainer.figures=false",
]
QUICK += ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu"]


@pytest.fixture(scope="module")
def folder(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks on sixty crystals: toy, with the column of a file, and metals, of Matbench's file format."""
    folder = tmp_path_factory.mktemp("benchmark")
    rows = [record | {"fold": i % N_FOLDS, "other": i % 2} for i, record in enumerate(records)]
    (folder / "toy.json").write_text(json.dumps(rows))
    frame = {
        "index": list(range(60)),
        "columns": ["structure", "is_wide"],
        "data": [[record["crystal_structure"], record["band_gap"] > 2] for record in records],
    }
    (folder / "frame.json").write_text(json.dumps(frame))
    (folder / "mine" / "task").mkdir(parents=True)
    fold = "split: {method: fold, column: fold}"
    matbench = "tasks: {is_wide: classification}\n  split: {method: matbench, stratify: is_wide}"
    tasks = {"toy": ("toy.json", "band_gap", fold), "frame": ("frame.json", "is_wide", matbench)}
    for name, (path, target, more) in tasks.items():
        text = TASK.format(path=folder / path, target=target, more=more)
        (folder / "mine" / "task" / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def benchmark(csgcnn: Command, folder: Path) -> Command:
    def command(task: str, *words: str) -> Any:
        return csgcnn(
            "benchmark", "--config-dir", "mine", f"task={task}", *QUICK, *words, cwd=folder
        )

    return command


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
    }


@pytest.fixture(scope="module")
def partial(benchmark: Command, folder: Path) -> tuple[Path, str, Any]:
    """Where two of three folds are done."""
    answer = benchmark("toy", "folds=[2,0]")
    assert answer.code == 0, answer.said
    (home,) = folder.glob("runs/toy/fast_*")
    return home, answer.said, contents(home / "fold-0")


@pytest.fixture(scope="module")
def whole(benchmark: Command, partial: tuple[Path, str, Any]) -> tuple[Path, str]:
    """The same after the same command was stopped, then given again."""
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


def test_some_folds_are_no_score(partial: tuple[Path, str, Any]) -> None:
    home, said, _ = partial
    summary = read(home / "summary.json")
    assert sorted(path.name for path in home.glob("fold-*")) == ["fold-0", "fold-2"]
    assert [fold["fold"] for fold in summary["folds"]] == [0, 2]
    assert summary["score"] is None
    assert summary["shortfall"] == "2 of 3 folds: not a Matbench score"
    assert "**2 of 3 folds: not a Matbench score**" in said
    assert "±" not in said
    assert not (home / "results.json.gz").exists()


def test_an_ensemble_of_each_fold(benchmark: Command, folder: Path) -> None:
    words = ["ensemble=2", "hydra.run.dir=ensembles"]
    for folds in (["folds=0"], []):  # the finished fold is seen to be one
        answer = benchmark("toy", *words, *folds)
        assert answer.code == 0, answer.said
    assert "fold 0 of 3 is finished" in answer.said
    summary, home = read(folder / "ensembles" / "summary.json"), folder / "ensembles" / "fold-1"
    one = read(home / "member-1" / "metrics.json")
    assert summary["folds"][1]["n_parameters"] == 2 * one["n_parameters"]
    assert summary["folds"][1]["minutes"] > one["seconds"] / 60 / 10
    assert summary["score"]["mae"]["mean"] == pytest.approx(
        statistics.fmean(
            read(folder / "ensembles" / f"fold-{i}" / "metrics.json")["test"]["band_gap"]["mae"]
            for i in range(3)
        )
    )


def test_the_mean_is_that_of_all_folds(
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


def test_ours_stands_at_its_place(whole: tuple[Path, str]) -> None:
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


def test_baselines_know_no_test_row(whole: tuple[Path, str], records: list[dict[str, Any]]) -> None:
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


def test_a_record_that_matbench_reads(
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


def test_classes_in_the_format_of_matbench(benchmark: Command, folder: Path) -> None:
    answer = benchmark("frame", "task.n_folds=5", "model.hidden=4", "trainer.max_epochs=1")
    assert answer.code == 0, answer.said
    (home,) = folder.glob("runs/frame/fast_*")
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


def test_a_part_of_the_official_data_is_no_score(benchmark: Command, folder: Path) -> None:
    words = ["folds=[1]", "task.n_folds=2", "task.n_rows=18928", "dataset.split.column=other"]
    answer = benchmark("toy", *words)
    assert answer.code == 0, answer.said
    assert "1 of 2 folds and 60 of 18,928 crystals: not a Matbench score" in answer.said


@pytest.mark.parametrize(
    ("words", "code", "answers"),
    [
        (["folds=[3]"], 2, ["folds=[3]", "0 to 2"]),
        (["folds=[]"], 2, ["folds=[]"]),
        (["folds=0..4"], 2, ["folds=0..4"]),
        (["folds=[0,0]"], 2, ["folds=[0, 0]"]),
        (["dataset.split.method=random"], 2, ["dataset.split.method=random", "fold or matbench"]),
        (["resume=somewhere"], 2, ["resume=somewhere", "resumes a benchmark"]),
        (["dataset.split.column=fole"], 1, ["fole", "there are"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_wrong_words_leave_nothing(
    words: list[str], code: int, answers: list[str], benchmark: Command, folder: Path
) -> None:
    answer = benchmark("toy", *words, "hydra.run.dir=refused")
    assert answer.code == code, answer.said
    assert all(part in answer.err for part in answers), answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (folder / "refused").exists()


def test_folds_of_one_benchmark_are_trained_alike(
    benchmark: Command, whole: tuple[Path, str]
) -> None:
    home, _ = whole
    for words in ("trainer.max_epochs=3", "seed=1"):
        answer = benchmark("toy", words, f"hydra.run.dir={home}")
        assert answer.code == 2
        assert words.partition("=")[0] in answer.err


def test_folds_are_ordinary_runs(csgcnn: Command, whole: tuple[Path, str]) -> None:
    home, _ = whole
    answer = csgcnn("table", str(home), cwd=home)
    assert answer.code == 0, answer.said
    assert answer.err == ""
    with open(home / "table.csv", newline="", encoding="utf-8") as file:
        assert [row["split"] for row in csv.DictReader(file)] == [
            f"fold (fold {fold})" for fold in range(N_FOLDS)
        ]
