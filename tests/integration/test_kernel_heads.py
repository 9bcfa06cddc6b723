"""`head=gp` and `head=svr`: fitted after the training or without one, then part of the model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from csgcnn import load
from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
SHORT = ["trainer.max_epochs=1"]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def process(csgcnn: Command, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    answer = csgcnn("train", *small, *SHORT, "head=gp", "hydra.run.dir=gp", cwd=folder)
    assert answer.code == 0, answer.said
    assert "head=gp of band_gap: amplitude" in answer.said
    assert "best epoch 1; head=gp fitted to 48 crystals in" in answer.said
    (folder / "said.txt").write_text(answer.said)
    return folder / "gp"


def test_metrics_name_what_was_chosen(process: Path) -> None:
    head = read(process / "metrics.json")["head"]
    assert (head["option"], head["inputs"]) == ("gp", ["crystal"])
    assert head["targets"]["band_gap"].keys() == {
        "n_rows",
        "amplitude",
        "noise",
        "block_weights",
        "network_weight",
    }
    assert read(process / "metrics.json")["std_scale"]["band_gap"] != 1


def test_the_checkpoint_predicts_alone_without_scikit_learn(
    process: Path, records: list[dict[str, Any]], table: Table
) -> None:
    with patch.dict("sys.modules", {"sklearn": None}):
        model = load(process)
        assert model.has_std
        rows = {row["id"]: row for row in table(process / "predictions.csv")}
        known = [record for record in records if record["material_id"] in rows]
        values, std = model.predict_with_std([record["crystal_structure"] for record in known])
    for i, record in enumerate(known):
        row = rows[record["material_id"]]
        assert values[i, 0] == pytest.approx(float(row["band_gap_prediction [eV]"]), abs=1e-3)
        assert std[i, 0] == pytest.approx(float(row["band_gap_std [eV]"]), abs=1e-3)


def test_a_finished_run_stays_finished_and_a_repeated_fit_is_the_same(
    process: Path, csgcnn: Command
) -> None:
    before = (process / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    answer = csgcnn("train", f"resume={process}", cwd=process.parent)
    assert "nothing to do: all 1 epochs are done" in answer.said
    assert (process / "checkpoints" / "best.ckpt").stat().st_mtime_ns == before
    (process / "metrics.json").unlink()  # as after an interruption during the fit
    best = load_checkpoint(process / "checkpoints" / "best.ckpt")["state_dict"]
    answer = csgcnn("train", f"resume={process}", cwd=process.parent)
    assert answer.code == 0, answer.said
    again = load_checkpoint(process / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(tensor, again[name]) for name, tensor in best.items())


def test_evaluate_predict_and_table_work(
    process: Path, csgcnn: Command, cifs: Path, data_file: Path, run: Path
) -> None:
    folder = process.parent
    words = [f"dataset.path={data_file}", "split=test"]
    answer = csgcnn("evaluate", f"ckpt={process}", *words, cwd=folder)
    assert answer.code == 0, answer.said
    mae = read(process / "metrics.json")["test"]["band_gap"]["mae"]
    assert f"MAE of band_gap: {mae:.4g}" in answer.said
    words = [f"structures={cifs}", "output=out.csv", "workers=1"]
    answer = csgcnn("predict", f"ckpt={process}", *words, cwd=folder)
    assert answer.code == 0, answer.said
    answer = csgcnn("table", str(process), str(run), cwd=folder)
    lines = answer.out.splitlines()
    assert " head " in lines[0]
    assert sum(" gp " in line for line in lines) == 1


def test_support_vectors_alone_and_as_an_ensemble(
    csgcnn: Command, small: list[str], tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    words = [*small, "trainer.max_epochs=1", "head=svr", "head.inputs=[crystal,global]"]
    answer = csgcnn("train", *words, "ensemble=2", "hydra.run.dir=two", cwd=tmp_path)
    assert answer.code == 0, answer.said
    structures = [record["crystal_structure"] for record in records[:5]]
    each = [load(tmp_path / "two" / f"member-{i}").predict(structures) for i in range(2)]
    ensemble = load(tmp_path / "two" / "checkpoints" / "best.ckpt")
    np.testing.assert_allclose(ensemble.predict(structures), np.mean(each, 0), atol=1e-5)
    metrics = read(tmp_path / "two" / "metrics.json")
    chosen = metrics["members"][0]["head"]["targets"]["band_gap"]
    assert chosen.keys() >= {"C", "block_weights", "epsilon", "n_support_vectors"}
    single = load(tmp_path / "two" / "member-0")
    assert not single.has_std


def test_no_epoch_is_needed(
    csgcnn: Command, small: list[str], tmp_path: Path, process: Path
) -> None:
    words = [*small, "trainer.max_epochs=0", "head=gp", "head.inputs=global"]
    answer = csgcnn("train", *words, "hydra.run.dir=none", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "\nhead=gp fitted to 48 crystals in" in answer.said
    metrics = read(tmp_path / "none" / "metrics.json")
    assert (metrics["epochs"], metrics["best_epoch"]) == (0, 0)
    assert metrics["val_score"] > 0
    answer = csgcnn("train", "resume=none", cwd=tmp_path)
    assert "nothing to do" in answer.said
    words = [*small, "trainer.max_epochs=0", "head=svr", f"init_from={process}"]
    answer = csgcnn("train", *words, "hydra.run.dir=from", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "body and head" in answer.said


def test_site_features_alone_need_no_epoch(
    csgcnn: Command, small: list[str], tmp_path: Path, records: list[dict[str, Any]], table: Table
) -> None:
    words = ["trainer.max_epochs=0", "head=svr", "head.inputs=sites", "plugins=[coordination]"]
    potential = "graph.site_features=[coordination]"
    answer = csgcnn("train", *small, *words, potential, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    model = load(tmp_path / "run", plugins=["coordination"])
    rows = {row["id"]: row for row in table(tmp_path / "run" / "predictions.csv")}
    known = [record for record in records if record["material_id"] in rows]
    values = model.predict([record["crystal_structure"] for record in known])[:, 0]
    expected = [float(rows[record["material_id"]]["band_gap_prediction [eV]"]) for record in known]
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)


def test_a_benchmark_has_kernel_heads(csgcnn: Command, small: list[str], tmp_path: Path) -> None:
    words = [*small, "trainer.max_epochs=0", "head=gp", "head.inputs=global"]
    quick = ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu"]
    answer = csgcnn("benchmark", *quick, *words, "folds=2", "hydra.run.dir=b", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert len(read(tmp_path / "b" / "summary.json")["folds"]) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_epochs=0"], "max_epochs=0: expected an integer of at least 1"),
        (["head=gp", "trainer.max_epochs=0"], "network with random weights; give init_from="),
        (
            ["head=gp", "head.inputs=global", "head.network_weight=0.5", "trainer.max_epochs=0"],
            "which trainer.max_epochs=0 does not train; give head.network_weight=0, or",
        ),
        (["head=gp", "head.inputs=[]"], "head.inputs=[]: expected one or several of crystal"),
        (["head=gp", "head.inputs=sites2"], "head.inputs=sites2: expected crystal"),
        (["head=svr", "head.inputs=global", "global_features=none"], "needs graph.global_features"),
        (["head=svr", "head.inputs=sites"], "head.inputs=sites needs graph.site_features"),
        (["head=gp", "loss=gaussian"], "use head=gp with another loss"),
        (
            ["head=svr", "dataset.tasks.band_gap=classification"],
            "head=svr predicts numbers, and band_gap has classes",
        ),
        (
            ["head=gp", "dataset.weight_column=refractive_index"],
            "head=gp does not read dataset.weight_column",
        ),
    ],
)
def test_heads_that_cannot_be_fitted_are_refused(
    overrides: list[str], message: str, csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, *overrides, "hydra.run.dir=r", cwd=tmp_path)
    assert answer.code == 2, answer.said
    assert message in answer.err


def test_a_missing_extra_is_answered_with_the_command_that_installs_it(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    with patch.dict("sys.modules", {"sklearn": None}):
        answer = csgcnn("train", *small, "head=svr", cwd=tmp_path)
    assert answer.code == 2
    assert "head=svr needs an extra: pip install 'csgcnn[kernel]'" in answer.err


def test_the_keys_of_the_small_recipe_are_refused_by_the_head_of_the_network(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, "recipe=small", "head=mlp", cwd=tmp_path)
    assert answer.code == 2, answer.said
    assert "head=mlp does not read head.inputs" in answer.err


@pytest.mark.slow
def test_the_small_recipe_averages_a_network_and_a_kernel_on_site_features(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("sevenn", reason="needs the extra csgcnn[sevennet]")
    words = [word for word in small if not word.startswith("model.")]
    answer = csgcnn("train", *words, "recipe=small", "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    head = read(tmp_path / "run" / "metrics.json")["head"]
    assert (head["option"], head["inputs"]) == ("svr", ["sites"])
    assert len(head["targets"]["band_gap"]["block_weights"]) == 3 * (5 + 3)
    assert head["targets"]["band_gap"]["network_weight"] == 0.5, "few validation rows"
