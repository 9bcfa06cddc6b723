import itertools
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from omegaconf import OmegaConf

from csgcnn.data.targets import Target
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.training.progress import TrainingProgress

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
GAP = "band_gap [eV]"

CONTENTS = {
    ".lock",
    "config.yaml",
    "environment.json",
    "splits.json",
    "metrics.csv",
    "metrics.json",
    "predictions.csv",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "parity.png",
    "learning_curve.png",
    "element_errors.png",
    "element_errors.csv",
    "train.log",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_directory_holds_what_it_should(run: Path, data_file: Path) -> None:
    found = contents(run)
    assert found.keys() == CONTENTS
    assert all(content for name, content in found.items() if name != ".lock")
    config = OmegaConf.load(run / "config.yaml")
    assert (config.model.hidden, config.dataset.path, config.edge_calculator.cutoff) == (
        16,
        str(data_file),
        8.0,
    )
    plain = OmegaConf.to_container(config, resolve=False)
    assert not [key for key in plain if key != "hydra" and "${" in str(plain[key])]
    environment = json.loads(found["environment.json"])
    assert environment["versions"]["torch"]
    assert {"device", "git_commit", "host", "job", "command"} <= environment.keys()
    for name in ("parity.png", "learning_curve.png"):
        assert matplotlib.image.imread(run / name).std() > 0.01
    assert "eV" in (run / "train.log").read_text()


def test_metrics_of_every_epoch(run: Path, table: Table) -> None:
    rows = table(run / "metrics.csv")
    columns = [
        "epoch",
        "lr",
        "train_loss",
        "val_loss",
        "val_mae_band_gap",
        "seconds",
        "graphs_per_second",
    ]
    assert list(rows[0]) == columns
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    best = min(rows, key=lambda row: float(row["val_mae_band_gap"]))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["best_epoch"] == int(best["epoch"])
    assert metrics["val"]["band_gap"]["mae"] == pytest.approx(
        float(best["val_mae_band_gap"]), rel=1e-4
    )


def test_the_parts_share_nothing_and_are_all(
    run: Path, records: list[dict[str, Any]], table: Table
) -> None:
    split = json.loads((run / "splits.json").read_text())
    assert {part: len(ids) for part, ids in split.items()} == {"train": 48, "val": 6, "test": 6}
    assert sorted(id_ for ids in split.values() for id_ in ids) == sorted(
        r["material_id"] for r in records
    )
    rows = table(run / "predictions.csv")
    for part in ("val", "test"):
        assert [row["id"] for row in rows if row["split"] == part] == split[part]


def test_the_metrics_are_those_of_the_predictions(
    run: Path, records: list[dict[str, Any]], table: Table
) -> None:
    known = {record["material_id"]: record["band_gap"] for record in records}
    metrics = json.loads((run / "metrics.json").read_text())
    rows = table(run / "predictions.csv")
    for row in rows:
        assert float(row[GAP]) == pytest.approx(known[row["id"]], abs=1e-5)
        error = float(row["band_gap_prediction [eV]"]) - float(row[GAP])
        assert float(row["band_gap_error [eV]"]) == pytest.approx(error, abs=1e-5)
    for part in ("val", "test"):
        errors = [float(row["band_gap_error [eV]"]) for row in rows if row["split"] == part]
        found = metrics[part]["band_gap"]
        assert found["n"] == len(errors)
        assert found["mae"] == pytest.approx(statistics.fmean(map(abs, errors)), abs=1e-5)
        assert found["rmse"] == pytest.approx(
            statistics.fmean(e * e for e in errors) ** 0.5, abs=1e-5
        )
    split = json.loads((run / "splits.json").read_text())
    mean = statistics.fmean(known[id_] for id_ in split["train"])
    baseline = statistics.fmean(abs(known[id_] - mean) for id_ in split["test"])
    assert metrics["baseline_test_mae"]["band_gap"] == pytest.approx(baseline, abs=1e-5)
    assert metrics["units"] == {"band_gap": "eV"}
    told = (run.parent / "said.txt").read_text()
    assert f"test MAE of band_gap: {metrics['test']['band_gap']['mae']:.4g} eV" in told
    assert f"predicting the mean: {baseline:.4g}"[:-1] in told


@pytest.mark.slow
def test_progress_and_the_end_of_a_run_are_in_its_log(
    csgcnn: Command, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = partial(TrainingProgress, clock=itertools.count(0, 6).__next__)
    monkeypatch.setattr("csgcnn.commands.fitting.TrainingProgress", slow)
    words = [*small, "trainer.figures=false", "hydra.run.dir=run"]
    answer = csgcnn("train", *words, cwd=tmp_path)
    log = (tmp_path / "run" / "train.log").read_text()
    for text in (answer.said, log):
        assert "epoch 1 of 3, train loss" in text
        assert "val MAE" in text
        assert "composition alone: " in text
        assert "trained 3 epochs in " in text
        assert "; the schedule has ended; the recipe has 200 epochs. Results: " in text
        assert "converged" not in text
        assert "\r" not in text
    quiet = csgcnn("train", *words, "trainer.progress=false", "hydra.run.dir=quiet", cwd=tmp_path)
    assert "epoch 1 of 3" not in quiet.said


def test_checkpoints_say_what_prediction_needs(run: Path, records: list[dict[str, Any]]) -> None:
    best, last = (
        load_checkpoint(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")
    )
    assert best["targets"] == last["targets"] == [Target("band_gap", "eV").plain()]
    assert best["elements"] == sorted(set(best["elements"]))
    assert (
        best["metrics"]["best_epoch"]
        == json.loads((run / "metrics.json").read_text())["best_epoch"]
    )
    assert len(last["training"]["history"]) == 3
    assert "training" not in best


def test_a_seed_and_a_config_repeat_a_run(
    csgcnn: Command, run: Path, small: list[str], tmp_path: Path
) -> None:
    again = csgcnn("train", *small, "hydra.run.dir=again", cwd=tmp_path)
    assert again.code == 0, again.said
    expected = (run / "predictions.csv").read_bytes()
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == expected
    handed_back = csgcnn("train", "--config-dir", str(run), "--config-name", "config", cwd=tmp_path)
    assert handed_back.code == 0, handed_back.said
    (repeated,) = tmp_path.glob("runs/*/*/predictions.csv")
    assert repeated.read_bytes() == expected
    other = csgcnn("train", *small, "seed=1", "hydra.run.dir=other", cwd=tmp_path)
    assert other.code == 0, other.said
    assert (tmp_path / "other" / "predictions.csv").read_bytes() != expected


def test_a_run_is_never_overwritten(csgcnn: Command, run: Path, small: list[str]) -> None:
    before = contents(run)
    answer = csgcnn("train", *small, "seed=5", "hydra.run.dir=first", cwd=run.parent)
    assert answer.code == 1
    assert "already holds a run" in answer.err
    assert "first" in answer.err
    assert "Traceback" not in answer.said
    after = contents(run)
    assert [name for name in before if after.get(name) != before[name]] == []


@pytest.mark.slow
def test_a_multirun_of_two_by_two(csgcnn: Command, small: list[str], tmp_path: Path) -> None:
    words = ["edge=gaussian,rbf", "node_features=bits,elemental", "trainer.max_epochs=1"]
    words += ["trainer.figures=true"]
    answer = csgcnn("train", "--multirun", *small, *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    (sweep,) = tmp_path.glob("sweeps/*/*")
    seen = set()
    for number in range(4):
        assert set(contents(sweep / str(number))) >= CONTENTS
        config = OmegaConf.load(sweep / str(number) / "config.yaml")
        seen.add((config.edge_calculator["_target_"].rpartition(".")[2], *config.node_features))
    assert len(seen) == 4


def test_a_training_that_diverges(csgcnn: Command, small: list[str], tmp_path: Path) -> None:
    words = [
        "optimizer=sgd",
        "optimizer.lr=1e12",
        "trainer.grad_clip=null",
        "hydra.run.dir=diverged",
    ]
    answer = csgcnn("train", *small, *words, cwd=tmp_path)
    assert answer.code == 1
    assert "diverged in epoch 1:" in answer.err
    assert "Traceback" not in answer.said

    assert not (tmp_path / "diverged" / "checkpoints" / "best.ckpt").exists()


def test_options_reach_the_training(
    csgcnn: Command, small: list[str], tmp_path: Path, table: Table
) -> None:
    words = [
        *(
            "edge=rbf",
            "edge.learnable=true",
            "edge.embedding=8",
            "node_features=[bits,learned]",
            "loss=huber",
        ),
        *("optimizer=sgd", "scheduler=cosine", "trainer.precision=bfloat16", "trainer.ema=null"),
        *(
            "trainer.patience=1",
            "trainer.max_epochs=4",
            "dataset.targets=[band_gap,refractive_index]",
        ),
    ]
    answer = csgcnn("train", *small, *words, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"].keys() == {"band_gap", "refractive_index"}
    header = ["id", "split", GAP, "band_gap_prediction [eV]", "band_gap_error [eV]"]
    header += ["refractive_index", "refractive_index_prediction", "refractive_index_error"]
    header += ["unseen_elements", "out_of_domain"]
    assert list(table(tmp_path / "run" / "predictions.csv")[0]) == header


@pytest.mark.parametrize("experiment", ["matbench_perovskites"])
def test_experiments_compose(csgcnn: Command, experiment: str, tmp_path: Path) -> None:
    answer = csgcnn("train", f"experiment={experiment}", "--cfg", "job", "--resolve", cwd=tmp_path)
    assert answer.code == 0, answer.said
    config = OmegaConf.create(answer.out)
    assert config.dataset.split.method == "fold"
    assert config.dataset.split.val == 0.1
    assert config.dataset.targets == ["e_form"]
