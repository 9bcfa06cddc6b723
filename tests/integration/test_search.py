"""`hparams=csgcnn`: interrupted searches resume, bad trials are pruned, the best is run again."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from answers import Answer

optuna = pytest.importorskip("optuna", reason="pip install 'csgcnn[sweep]'")
pytestmark = pytest.mark.slow

Command = Callable[..., Answer]
Row = dict[str, str]
DEFAULT = "[atom_init,learned]"
# A few steps of a small model tell these learning rates from one another.
SPACE = [
    "optimizer.lr=1e-6,5e-3",
    f"node_features={DEFAULT},[onehot]",
    "edge=gaussian",
    "model.n_convolutions=1",
]
N_TRIALS = 4


@pytest.fixture(scope="module")
def words(small: list[str]) -> list[str]:
    """The words of a short search."""
    return [
        "hparams=csgcnn",
        *SPACE,
        *small,
        f"hydra.sweeper.n_trials={N_TRIALS}",
        "hydra.sweeper.min_trials=1",
        "trainer.figures=false",
        "hydra.sweep.dir=sweep",
    ]


@pytest.fixture(scope="module")
def search(
    csgcnn: Command, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Answer]:
    """The directory of a finished search, and what it said."""
    folder = tmp_path_factory.mktemp("search")
    answer = csgcnn("train", "--multirun", *words, cwd=folder)
    assert answer.code == 0, answer.said
    return folder / "sweep", answer


def trials(sweep: Path) -> list[Row]:
    with open(sweep / "trials.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def metrics(run: Path) -> dict[str, object]:
    told = json.loads((run / "metrics.json").read_text())
    return {key: value for key, value in told.items() if key != "seconds"}


def test_a_search_ends_with_the_best(search: tuple[Path, Answer]) -> None:
    sweep, answer = search
    rows = trials(sweep)
    assert [row["trial"] for row in rows] == [str(number) for number in range(N_TRIALS)]
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    first = {
        "optimizer.lr": "0.005",
        "model.dropout": "0.0",
        "node_features": DEFAULT,
        "loss": "weighted",
    }
    assert first.items() <= rows[0].items(), "the default configuration comes first"
    best = min(
        (row for row in rows if row["state"] == "complete"), key=lambda row: float(row["score"])
    )
    assert (sweep / "best" / "config.yaml").read_text() == (
        sweep / best["trial"] / "config.yaml"
    ).read_text()
    assert f"| {best['trial']} | {float(best['score']):.4f} |" in answer.out
    assert "--config-dir sweep/best --config-name config" in answer.out
    assert "Traceback" not in answer.said


def test_the_best_is_run_again_with_the_same_result(
    csgcnn: Command, search: tuple[Path, Answer], tmp_path: Path
) -> None:
    sweep, _ = search
    again = ["--config-dir", str(sweep / "best"), "--config-name", "config", "hydra.run.dir=again"]
    answer = csgcnn("train", *again, cwd=tmp_path)
    assert answer.code == 0, answer.said
    best = min(trials(sweep), key=lambda row: (row["state"], float(row["score"] or 0)))
    assert metrics(tmp_path / "again") == metrics(sweep / best["trial"])


def test_a_hopeless_trial_is_a_run_that_ended_early(
    csgcnn: Command, search: tuple[Path, Answer], tmp_path: Path
) -> None:
    sweep, _ = search
    row = next(row for row in trials(sweep) if row["state"] == "pruned")
    run, epochs = sweep / row["trial"], int(row["epochs"])
    told = metrics(run)
    assert told["epochs"] == epochs < 3
    assert str(told["outcome"]).startswith(f"pruned after epoch {epochs}")
    assert told["val"]
    assert "test" not in told
    assert not (run / "predictions.csv").exists()
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + epochs

    table = csgcnn("table", str(sweep), cwd=tmp_path)
    assert table.code == 0
    assert f"{run} is left out: it was pruned" in table.err

    shutil.copytree(run, tmp_path / "run")
    answer = csgcnn("train", "resume=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert metrics(tmp_path / "run")["epochs"] == 3
    assert "test" in metrics(tmp_path / "run")


def test_a_finished_search_can_be_made_longer(
    csgcnn: Command, words: list[str], search: tuple[Path, Answer], tmp_path: Path
) -> None:
    shutil.copytree(search[0], tmp_path / "sweep")
    answer = csgcnn("train", "--multirun", *words, cwd=tmp_path)
    assert answer.code == 0
    assert "Launching" not in answer.said
    assert answer.out.splitlines()[-4:] == search[1].out.splitlines()[-4:]
    answer = csgcnn(
        "train", "--multirun", *words, f"hydra.sweeper.n_trials={N_TRIALS + 1}", cwd=tmp_path
    )
    assert answer.code == 0
    assert trials(tmp_path / "sweep")[:-1] == trials(search[0])


def test_a_search_that_is_cut_off_goes_on(
    csgcnn: Command,
    words: list[str],
    search: tuple[Path, Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from csgcnn.search.study import Search
    from csgcnn.training.checkpointing import Checkpointer

    def stop(*_: object) -> None:
        raise SystemExit(9)

    command = ["train", "--multirun", *words]
    sweep = tmp_path / "sweep"
    with monkeypatch.context() as patch:  # after the run, before the study has heard of it
        patch.setattr(Search, "record", stop)
        assert csgcnn(*command, cwd=tmp_path).code == 9
    calls, on_step = [], Checkpointer.on_step

    def stop_late(checkpointer: Checkpointer) -> None:
        calls.append(on_step(checkpointer))
        if len(calls) == 6:
            checkpointer.save()
            stop()

    with monkeypatch.context() as patch:  # within a training
        patch.setattr(Checkpointer, "on_step", stop_late)
        assert csgcnn(*command, "trainer.max_minutes=60", cwd=tmp_path).code == 9
    assert [(run / "metrics.json").exists() for run in sorted(sweep.glob("[0-9]"))].count(
        False
    ) == 1
    answer = csgcnn(*command, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "resuming in epoch" in answer.said
    assert trials(sweep) == trials(search[0])
    for row in trials(sweep):
        assert metrics(sweep / row["trial"]) == metrics(search[0] / row["trial"])


def test_a_choice_that_was_cut_off_is_a_failed_trial(
    csgcnn: Command, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise SystemExit(9)

    command = ["train", "--multirun", *words, "hydra.sweeper.n_trials=3"]
    with monkeypatch.context() as patch:
        # the first trial takes the defaults; the choice of the second is interrupted
        patch.setattr(optuna.samplers.TPESampler, "sample_independent", stop)
        assert csgcnn(*command, cwd=tmp_path).code == 9
    answer = csgcnn(*command, cwd=tmp_path)
    assert answer.code == 0, answer.said
    states = [row["state"] for row in trials(tmp_path / "sweep")]
    assert states[:2] == ["complete", "failed"]
    assert states[2] in ("complete", "pruned")


def test_trials_side_by_side_share_the_cores(
    csgcnn: Command, words: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install 'csgcnn[sweep]'")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_trials=2"]
    own = [word for word in words if "trainer.threads" not in word]
    answer = csgcnn("train", "--multirun", *own, *launcher, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert [row["state"] for row in trials(tmp_path / "sweep")] == ["complete"] * 2
    for number in range(2):
        assert (
            json.loads((tmp_path / "sweep" / str(number) / "environment.json").read_text())[
                "threads"
            ]
            == 1
        )


def test_a_training_that_diverges_is_hopeless(
    csgcnn: Command, words: list[str], tmp_path: Path
) -> None:
    diverging = ["optimizer.lr=1e30,2e30", "trainer.grad_clip=null", "hydra.sweeper.n_trials=1"]
    answer = csgcnn("train", "--multirun", *words, *diverging, cwd=tmp_path)
    assert answer.code == 1
    assert answer.err == "csgcnn train: no trial was trained to the end\n"
    assert [row["state"] for row in trials(tmp_path / "sweep")] == ["pruned"]
    assert "training diverged" in str(metrics(tmp_path / "sweep" / "0")["outcome"])
    assert (tmp_path / "sweep" / "0" / "diverged.json").exists()


def test_what_fails_is_told_and_ends_the_search(
    csgcnn: Command, words: list[str], tmp_path: Path
) -> None:
    command = ["train", "--multirun", *words, "dataset.targets=[nonsense]"]
    answer = csgcnn(*command, cwd=tmp_path)
    assert answer.code == 1
    assert "csgcnn train trial 0: " in answer.err
    assert "nonsense" in answer.err
    rows = trials(tmp_path / "sweep")
    assert [row["state"] for row in rows] == ["failed"]
    assert "nonsense" in rows[0]["reason"]
    assert "ended after 1 of 4 trials, because all of them failed: 1 failed (first: " in answer.out
    assert "Traceback" not in answer.said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hparams=csgcnn", "edge=gaussian,rbff"], "did you mean rbf?"),
        (
            ["hparams=csgcnn", "model.dropout=interval(0,2)"],
            "model.dropout=2.0: expected a number from 0 to below 1",
        ),
        (["hparams=csgcnn", "model.dropout=interval(1,0)"], "model.dropout=interval(1,0)"),
        (
            ["hparams=csgcnn", "hydra.sweeper.n_trials=0"],
            "hydra.sweeper.n_trials=0: expected an integer of at least 1",
        ),
        (["hydra/sweeper=csgcnn_search"], "there is nothing to choose"),
        (
            ["hparams=csgcnn", "model.hidden=65,66"],
            "expected a multiple of model.convolution.heads=4, such as 64 or 68",
        ),
    ],
)
def test_what_is_wrong_is_told_before_the_first_trial(
    words: list[str], said: str, csgcnn: Command, tmp_path: Path
) -> None:
    answer = csgcnn("train", "--multirun", *words, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


def test_a_folder_holds_one_search(
    csgcnn: Command, words: list[str], search: tuple[Path, Answer], tmp_path: Path
) -> None:
    shutil.copytree(search[0], tmp_path / "sweep")
    other = [word.replace("1e-6", "1e-7").replace("max_epochs=3", "max_epochs=4") for word in words]
    answer = csgcnn("train", "--multirun", *other, cwd=tmp_path)
    assert answer.code == 2
    assert "optimizer.lr=1e-7,5e-3 (it has optimizer.lr=1e-6,5e-3)" in answer.err
    assert "trainer.max_epochs=4 (it has trainer.max_epochs=3)" in answer.err
    assert len(answer.err.splitlines()) == 1

    (tmp_path / "sweep" / "study.db").write_text("no database " * 99)
    answer = csgcnn("train", "--multirun", *words, cwd=tmp_path)
    assert answer.code == 1
    assert answer.err == "csgcnn train: sweep/study.db cannot be used: file is not a database\n"


def test_without_the_extra(
    csgcnn: Command, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in ("space", "study", "pruning", "storage"):
        monkeypatch.delitem(sys.modules, f"csgcnn.search.{name}", raising=False)
    answer = csgcnn("train", "--multirun", *words, cwd=tmp_path)
    assert answer.code == 2
    assert answer.err == "csgcnn train: a search needs optuna: pip install 'csgcnn[sweep]'\n"
