import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csgcnn.cli import main as cli
from csgcnn.config.compose import compose
from csgcnn.config.resolved import save_resolved

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A finished run as csgcnn train leaves it, of the given overrides and test MAE."""

    def make(
        name: str, *overrides: str, mae: Any = 0.5, target: str = "band_gap", **more: Any
    ) -> Path:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        save_resolved(compose("train", list(overrides)), folder / "config.yaml")
        metrics = {
            "test": {target: {"mae": mae, "rmse": 0.7, "r2": 0.6, "n": 10}},
            "units": {target: "eV"},
            "baseline_test_mae": {target: 1.25},
            "n_parameters": 80833,
            "epochs": 40,
            "best_epoch": 31,
            "seconds": 90.0,
            **more,
        }
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return make


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_seeds_become_a_mean_and_a_spread(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [0.40, 0.46, 0.43]
    for seed, error in enumerate(errors):
        elsewhere = f"dataset.path=/{seed}/dielectric.json.gz"
        make_run(
            f"a{seed}",
            f"seed={seed}",
            f"dataset.split.seed={seed}",
            elsewhere,
            "trainer.workers=2",
            mae=error,
        )
    make_run("b", "edge_calculator=rbf", mae=0.1)
    assert cli.main(["table", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == (tmp_path / "table.md").read_text()
    assert said.err == ""
    best, other = rows(tmp_path)
    assert (best["edge_calculator"], best["spread"], best["runs"]) == ("rbf", "", "1")
    assert other["runs"] == "3"
    assert float(other["test_mae"]) == pytest.approx(statistics.fmean(errors))
    assert float(other["spread"]) == pytest.approx(statistics.stdev(errors))
    header, _, *lines = said.out.splitlines()
    assert "pooling" not in header
    assert "also" not in header
    assert [cell.strip() for cell in lines[1].split("|")[1:-1]] == [
        *("fast", "csgann", "gaussian", "atom_init + learned", "dielectric", "random"),
        *("band_gap [eV]", "0.43 ± 0.03 (3)", "1.25", "80,833", "40 / 31", "1.5"),
    ]


def test_folds_become_a_mean_and_a_spread(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = ["dataset.split.method=fold", "dataset.split.column=part"]
    for fold, error in enumerate([0.1, 0.2, 0.6]):
        make_run(f"a{fold}", *folds, f"dataset.split.fold={fold}", mae=error)
    # A second seed of a fold is another sample, a repetition is none.
    for name in ("b", "again"):
        make_run(name, *folds, "dataset.split.fold=0", "seed=1", mae=0.3)
    assert cli.main(["table", str(tmp_path)]) == 0
    (row,) = rows(tmp_path)
    assert (row["runs"], row["split"]) == ("4", "fold (part, 3 folds)")
    assert float(row["test_mae"]) == pytest.approx(0.3)
    assert float(row["spread"]) == pytest.approx(statistics.stdev([0.1, 0.2, 0.6, 0.3]))
    assert "0.3 ± 0.22 (4)" in capsys.readouterr().out


def test_the_official_folds_of_a_task_are_one_row(make_run: MakeRun, tmp_path: Path) -> None:
    for fold in range(5):
        make_run(f"a{fold}", "dataset.split.method=matbench", f"dataset.split.fold={fold}")
    assert cli.main(["table", str(tmp_path)]) == 0
    assert [(row["split"], row["runs"]) for row in rows(tmp_path)] == [("matbench (5 folds)", "5")]


def test_recipe_epochs_and_minutes_are_those_of_the_runs(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("a", "recipe=accurate", epochs=300, best_epoch=280)
    second = make_run("b", "recipe=accurate", "seed=1", epochs=200, best_epoch=120, seconds=1.0)
    # A run that was resumed: metrics.json has the time of its last process only.
    (second / "metrics.csv").write_text("epoch,seconds\n1,100\n2,110\n")
    assert cli.main(["table", str(tmp_path)]) == 0
    (row,) = rows(tmp_path)
    assert (row["recipe"], float(row["epochs"]), float(row["best_epoch"])) == ("accurate", 250, 200)
    assert float(row["minutes"]) == pytest.approx((90 + 210) / 2 / 60)
    said = capsys.readouterr().out
    assert "| 250 / 200 " in said
    assert "| recipe   |" in said


def test_differences_are_shown_across_data_sets(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", "model.hidden=32")
    make_run("b", "dataset=elastic", "model.hidden=48", target="log10_k_vrh")
    assert cli.main(["table", str(tmp_path)]) == 0
    assert [row["also"] for row in rows(tmp_path)] == ["model.hidden=32", "model.hidden=48"]


def test_labels_are_those_of_the_metrics(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_classes = {"is_metal": {"accuracy": 0.9, "balanced_accuracy": 0.8, "n": 10}}
    keys = {"test": of_classes, "baseline_test_accuracy": {"is_metal": 0.6}, "units": {}}
    make_run("a", **keys)
    assert cli.main(["table", str(tmp_path)]) == 0
    (row,) = rows(tmp_path)
    assert float(row["test_error_rate"]) == pytest.approx(0.1)
    assert float(row["baseline_error_rate"]) == pytest.approx(0.4)
    assert "test_mae" not in row
    said = capsys.readouterr().out
    assert "MAE" not in said
    assert "| test error rate (runs) | baseline error rate |" in said
    make_run("b")
    assert cli.main(["table", str(tmp_path)]) == 0
    number, classes = rows(tmp_path)
    assert (number["test_mae"], number["test_error_rate"]) == ("0.5", "")
    assert classes["test_mae"] == ""
    assert "| test MAE / error rate (runs) |" in capsys.readouterr().out


def test_runs_that_differ_in_execution_keys_are_averaged(make_run: MakeRun, tmp_path: Path) -> None:
    keys = ["trainer.max_minutes=5", "trainer.keep_last=3", "trainer.checkpoint_every=60"]
    keys += ["trainer.device=cuda", "trainer.figures=false", "dataset.cache_dir=elsewhere"]
    for seed, key in enumerate(keys):
        make_run(f"run{seed}", key, f"seed={seed}", mae=0.4 + 0.01 * seed)
    assert cli.main(["table", str(tmp_path)]) == 0
    (row,) = rows(tmp_path)
    assert row["runs"] == "6"
    assert float(row["test_mae"]) == pytest.approx(0.425)


@pytest.mark.parametrize(
    ("overrides", "column", "expected"),
    [
        (["model=csgcnn"], "model", "csgcnn"),
        (["model=csginn"], "model", "csginn"),
        (["edge_calculator=pair_gaussian"], "edge_calculator", "pair_gaussian"),
        (
            ["edge_calculator=rbf", "edge_calculator.learnable=true"],
            "edge_calculator",
            "rbf +learnable",
        ),
        (["node_features.atom_init.trainable=true"], "node_features", "atom_init* + learned"),
        (
            ["node_features=[bits,elemental,learned]", "node_features.bits.trainable=true"],
            "node_features",
            "bits* + elemental + learned",
        ),
        (["pooling=set2set"], "pooling", "set2set"),
        (["dataset=elastic"], "dataset", "elastic"),
        (["dataset.split.method=group", "dataset.split.column=label"], "split", "group (label)"),
        (
            ["dataset.split.method=fold", "dataset.split.column=fold_id", "dataset.split.fold=3"],
            "split",
            "fold (fold_id 3)",
        ),
    ],
)
def test_options_are_named(
    make_run: MakeRun, overrides: list[str], column: str, expected: str
) -> None:
    folder = make_run("run", *overrides)
    assert cli.main(["table", str(folder)]) == 0
    assert rows(folder)[0][column] == expected


def test_rows_that_look_alike_say_how_they_differ(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", "model.hidden=32", mae=0.3)
    make_run("b", "scheduler=plateau", mae=0.4)
    make_run("c", "model=csgcnn", mae=0.5)
    assert cli.main(["table", str(tmp_path)]) == 0
    narrow, plateau, csgcnn = rows(tmp_path)
    assert narrow["also"] == "model.hidden=32 scheduler=one_cycle scheduler.warmup=0.2"
    assert (
        plateau["also"]
        == "model.hidden=64 scheduler=plateau scheduler.factor=0.5 scheduler.patience=20"
    )
    assert csgcnn["also"] == ""


def test_the_order_is_data_set_target_split_error(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", mae=0.5)
    make_run("b", "model=csgcnn", mae=0.4)
    make_run("c", "dataset.split.method=group", "dataset.split.column=formula", mae=0.45)
    make_run("d", "dataset=elastic", mae=0.9)
    make_run("e", mae=0.1, target="another")
    assert cli.main(["table", str(tmp_path)]) == 0
    found = [
        (row["dataset"], row["target"], row["split"], float(row["test_mae"]))
        for row in rows(tmp_path)
    ]
    assert found == [
        ("dielectric", "another", "random", 0.1),
        ("dielectric", "band_gap", "group (formula)", 0.45),
        ("dielectric", "band_gap", "random", 0.4),
        ("dielectric", "band_gap", "random", 0.5),
        ("elastic", "band_gap", "random", 0.9),
    ]


def test_a_run_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("a")
    make_run("again")  # the same seeds: no new sample
    assert cli.main(["table", str(tmp_path), str(folder)]) == 0
    assert [row["runs"] for row in rows(tmp_path)] == ["1"]


def test_broken_and_unfinished_runs_are_named(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("good")
    (make_run("unfinished") / "metrics.json").unlink()
    (make_run("cut") / "metrics.json").write_text('{"test": {')
    (make_run("foreign") / "metrics.json").write_text("[]")
    (make_run("yaml") / "config.yaml").write_text("model: [")
    make_run("diverged", mae=None)
    (tmp_path / "no_run").mkdir()
    (tmp_path / "no_run" / "config.yaml").write_text("a: 1")
    assert cli.main(["table", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert len(rows(tmp_path)) == 1
    notes = dict(line.split(" is left out: ") for line in said.err.splitlines())
    assert {Path(folder).name for folder in notes} == {
        "unfinished",
        "cut",
        "foreign",
        "yaml",
        "diverged",
    }
    assert "not finished" in notes[str(tmp_path / "unfinished")]
    assert "error of band_gap is None" in notes[str(tmp_path / "diverged")]


def test_nothing_found(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["table", str(tmp_path)]) == 1
    assert f"no finished run below {tmp_path}" in capsys.readouterr().err
    assert cli.main(["table", str(tmp_path / "absent")]) == 1
    assert f"no folder {tmp_path / 'absent'}" in capsys.readouterr().err
    (make_run("unfinished") / "metrics.json").unlink()
    assert cli.main(["table", str(tmp_path)]) == 1
    assert "unfinished is left out" in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()


@pytest.mark.parametrize(
    ("words", "exit_code", "answer"),
    [
        (["table", "--help"], 0, "usage: csgcnn table"),
        (["table"], 2, "DIR"),
        (["table", "--flag", "runs"], 2, "--flag"),
        (["table", "run"], 0, "| csgann | gaussian"),
        (["tabel", "run"], 2, "did you mean table?"),
    ],
)
def test_it_answers_without_torch(
    make_run: MakeRun, words: list[str], exit_code: int, answer: str
) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom csgcnn.__main__ import program; program()"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(
        command, cwd=make_run("run").parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == exit_code, done.stderr
    assert answer in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
