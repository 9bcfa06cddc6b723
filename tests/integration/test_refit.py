"""`trainer.refit=true`: a second training on training and validation rows together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from resume_helpers import TIMES, check_same_results, state_of

from csgcnn import load

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
REFIT = "trainer.refit=true"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def again(csgcnn: Command, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training of the fixture `run`, and its refit."""
    folder = tmp_path_factory.mktemp("refit")
    words = [*small, "trainer.figures=true", REFIT, "hydra.run.dir=again"]
    answer = csgcnn("train", *words, cwd=folder)
    assert answer.code == 0, answer.said
    (folder / "said.txt").write_text(answer.said)
    return folder / "again"


def test_the_first_training_is_that_of_a_run_without_refit(
    again: Path, run: Path, table: Table
) -> None:
    tables = [without_times(table(folder / "metrics.csv")) for folder in (again, run)]
    assert tables[0] == tables[1]
    assert (again / "splits.json").read_bytes() == (run / "splits.json").read_bytes()
    weights = [state_of(again, "validated")["state_dict"], state_of(run, "best")["state_dict"]]
    assert all(torch.equal(weights[0][name], weight) for name, weight in weights[1].items())
    metrics, expected = read(again / "metrics.json"), read(run / "metrics.json")
    for key in ("val", "val_score", "best_epoch", "epochs", "n_rows"):
        assert metrics[key] == expected[key], key
    val, expected_val = (
        [row for row in table(folder / "predictions.csv") if row["split"] == "val"]
        for folder in (again, run)
    )
    assert val == expected_val


def test_the_refit_is_named_with_rows_epochs_and_steps(again: Path, table: Table) -> None:
    metrics, rows = read(again / "metrics.json"), table(again / "refit.csv")
    n_steps = 3 * metrics["best_epoch"]
    assert metrics["refit"] == {
        "n_rows": 54,
        "epochs": n_steps / 4,
        "steps": n_steps,
        "n_skipped_batches": 0,
        "validated": "checkpoints/validated.ckpt",
    }
    assert len(rows) == -(-n_steps // 4)
    assert {row["val_mae_band_gap"] for row in rows} == {""}
    said = (again.parent / "said.txt").read_text()
    assert f"refit on the 54 training and validation crystals for {n_steps} steps" in said
    assert f"refit on 54 crystals for {n_steps} steps" in said
    assert (again / "learning_curve.png").exists()


def test_the_best_checkpoint_is_the_refitted_network_and_knows_its_rows(
    again: Path, records: list[dict[str, Any]], table: Table
) -> None:
    best, split = state_of(again, "best"), read(again / "splits.json")
    assert best["split"]["train"] == split["train"] + split["val"]
    assert best["split"]["val"] == []
    assert best["split"]["test"] == split["test"]
    rows = {row["id"]: row for row in table(again / "predictions.csv") if row["split"] == "test"}
    known = [record for record in records if record["material_id"] in rows]
    model = load(again)
    predicted = model.predict([record["crystal_structure"] for record in known])[:, 0]
    written = [rows[r["material_id"]]["band_gap_prediction [eV]"] for r in known]
    assert predicted.tolist() == pytest.approx(list(map(float, written)), abs=1e-4)
    validation = [r["crystal_structure"] for r in records if r["material_id"] in split["val"]]
    assert set(model.predict(validation, as_frame=True)["in_training"]) == {"true"}


def test_it_equals_a_training_on_all_rows_with_as_many_steps(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    # both 48 and 54 rows have 2 batches
    shared = [*small, "scheduler=none", "trainer.batch_size=32"]
    assert csgcnn("train", *shared, REFIT, "hydra.run.dir=again", cwd=tmp_path).code == 0
    n_epochs = read(tmp_path / "again" / "metrics.json")["best_epoch"]
    split = read(tmp_path / "again" / "splits.json")
    parts = {"train": split["train"] + split["val"], "val": [], "test": split["test"]}
    (tmp_path / "split.json").write_text(json.dumps(parts))
    words = [*shared, "hydra.run.dir=all", f"trainer.max_epochs={n_epochs}"]
    words += ["dataset.split.method=file", "dataset.split.file=split.json"]
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    weights = [state_of(tmp_path / name, "best")["state_dict"] for name in ("again", "all")]
    assert all(torch.equal(weights[0][name], weight) for name, weight in weights[1].items())
    tests = [read(tmp_path / name / "metrics.json")["test"] for name in ("again", "all")]
    assert tests[0] == tests[1]


def test_a_run_stopped_after_each_step_of_both_trainings_gives_the_same(
    csgcnn: Command, small: list[str], tmp_path: Path, table: Table
) -> None:
    words = [*small, "trainer.max_epochs=1", "trainer.batch_size=32", REFIT]
    words += ["augment=[distance_noise]", "model.dropout=0.1"]
    assert csgcnn("train", *words, "hydra.run.dir=whole", cwd=tmp_path).code == 0
    said, code = list[str](), 75
    while code == 75:
        limit = ["trainer.max_minutes=1e-6", "resume=auto", "hydra.run.dir=run"]
        answer = csgcnn("train", *words, *limit, cwd=tmp_path)
        code = answer.code
        said.append(answer.out)
        assert len(said) < 10
    assert code == 0, said[-1]
    assert sum("epoch 1 of the refit; resume" in out for out in said) == 2
    assert any("resuming in epoch 1 of the refit" in out for out in said)
    check_same_results(tmp_path / "run", tmp_path / "whole", table)
    for name in ("validated", "best"):
        states = [state_of(tmp_path / folder, name)["state_dict"] for folder in ("run", "whole")]
        assert all(torch.equal(states[0][key], weight) for key, weight in states[1].items())
    tables = [without_times(table(tmp_path / f / "refit.csv")) for f in ("run", "whole")]
    assert tables[0] == tables[1]


def test_a_finished_run_has_nothing_to_do_and_more_epochs_refit_anew(
    csgcnn: Command, again: Path
) -> None:
    answer = csgcnn("train", f"resume={again}", cwd=again.parent)
    assert "nothing to do: all 3 epochs are done" in answer.said
    (again / "metrics.json").unlink()  # as after a stop before the results
    before = (again / "refit.csv").read_bytes()
    answer = csgcnn("train", f"resume={again}", cwd=again.parent)
    assert answer.code == 0, answer.said
    assert (again / "refit.csv").read_bytes() == before
    words = ["trainer.max_epochs=4", "trainer.figures=false"]
    answer = csgcnn("train", f"resume={again}", *words, cwd=again.parent)
    assert answer.code == 0, answer.said
    metrics = read(again / "metrics.json")
    assert (metrics["epochs"], metrics["refit"]["steps"]) == (4, 3 * metrics["best_epoch"])
    assert "of the refit" not in answer.said


def test_an_ensemble_is_calibrated_with_networks_that_have_not_seen_the_validation_rows(
    csgcnn: Command, small: list[str], tmp_path: Path, table: Table
) -> None:
    words = [*small, "trainer.max_epochs=1", REFIT, "ensemble=2", "hydra.run.dir=two"]
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    members = [tmp_path / "two" / f"member-{i}" for i in range(2)]
    metrics = read(tmp_path / "two" / "metrics.json")
    assert metrics["refit"]["n_rows"] == 54
    assert [member["refit"]["steps"] for member in metrics["members"]] == [3, 3]
    tables = [table(folder / "predictions.csv") for folder in (*members, tmp_path / "two")]
    column = "band_gap_prediction [eV]"
    for one, other, mean in zip(*tables, strict=True):
        expected = (float(one[column]) + float(other[column])) / 2
        assert float(mean[column]) == pytest.approx(expected, abs=1e-4)
    scale = state_of(tmp_path / "two", "best")["state_dict"]["std_scale"].item()
    errors = sorted(
        abs(float(row["band_gap_error [eV]"])) / float(row["band_gap_std [eV]"])
        for row in tables[2]
        if row["split"] == "val"
    )
    assert scale == pytest.approx(metrics["std_scale"]["band_gap"])
    assert sum(error <= 1 + 1e-4 for error in errors) == 5, "of 6 validation rows"
    assert len(read(tmp_path / "two" / "splits.json")["val"]) == 6


def test_a_kernel_head_keeps_its_parameters_and_takes_all_rows(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    words = [*small, "trainer.max_epochs=0", "head=gp", "head.inputs=global", REFIT]
    answer = csgcnn("train", *words, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "head=gp fitted to 54 crystals" in answer.said
    metrics = read(tmp_path / "run" / "metrics.json")
    assert metrics["head"]["targets"]["band_gap"]["n_rows"] == 54
    assert (metrics["refit"]["steps"], metrics["refit"]["n_rows"]) == (0, 54)
    first, last = (state_of(tmp_path / "run", n)["state_dict"] for n in ("validated", "best"))
    assert (len(first["kernel_head.rows"]), len(last["kernel_head.rows"])) == (48, 54)
    for name in ("amplitude", "noise", "block_weight", "network_weight", "std_scale"):
        assert torch.equal(first[f"kernel_head.{name}"], last[f"kernel_head.{name}"]), name
    answer = csgcnn("train", "resume=run", cwd=tmp_path)
    assert "nothing to do" in answer.said


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["dataset.split.val=0"], 2, "trainer.refit=true needs validation rows, and there are"),
        (["scheduler=plateau"], 2, "trainer.refit=true excludes scheduler=plateau"),
    ],
)
def test_a_refit_without_meaning_is_refused(
    words: list[str], code: int, message: str, csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, *words, REFIT, cwd=tmp_path)
    assert answer.code == code, answer.said
    assert message in answer.err
