"""Trainings with several targets, numbers and classes, from the command line."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csgcnn import load
from csgcnn.commands.table import leaderboard
from csgcnn.config.compose import compose
from csgcnn.data.targets import Target
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.training.losses import MultiTaskLoss, build_loss

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
COMPARISON = "band_gap >= 2"
TARGETS = [
    f"dataset.derived.is_wide={COMPARISON}",
    "dataset.targets=[band_gap,is_wide,kind]",
    "dataset.tasks.is_wide=classification",
    "dataset.tasks.kind=classification",
    "dataset.split.stratify=is_wide",
    "dataset.split.val=0.2",
    "dataset.split.test=0.2",
    "dataset.split.train=0.6",
]


@pytest.fixture(scope="module")
def mixed_file(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty crystals with a number and one of three classes, which some of them lack."""
    kinds = ["oxide", "halide", "other"]
    mixed = [record | {"kind": kinds[i % 3]} for i, record in enumerate(records)]
    for i, record in enumerate(mixed):
        record["band_gap"] = None if i % 10 == 0 else record["band_gap"]
        record["kind"] = None if i % 5 == 1 else record["kind"]
    path = tmp_path_factory.mktemp("mixed") / "mixed.json.gz"
    path.write_bytes(gzip.compress(json.dumps(mixed).encode()))
    return path


@pytest.fixture(scope="module")
def mixed_run(
    csgcnn: Command, small: list[str], mixed_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    overrides = [*small, *TARGETS, f"dataset.path={mixed_file}", "dataset.class_weights=balanced"]
    answer = csgcnn(
        "train", *overrides, "trainer.learn_task_weights=true", "hydra.run.dir=mixed", cwd=folder
    )
    assert answer.code == 0, answer.said
    (folder / "said.txt").write_text(answer.said)
    return folder / "mixed"


def test_a_run_with_numbers_and_classes_has_metrics_and_figures_of_each(
    mixed_run: Path, table: Table
) -> None:
    metrics = json.loads((mixed_run / "metrics.json").read_text())
    assert metrics["test"]["band_gap"].keys() == {"mae", "rmse", "r2", "n"}
    for name in ("is_wide", "kind"):
        assert metrics["test"][name].keys() == {
            "accuracy",
            "balanced_accuracy",
            "roc_auc",
            "cross_entropy",
            "n",
        }
    assert metrics["baseline_test_mae"].keys() == {"band_gap"}
    assert metrics["baseline_test_accuracy"].keys() == {"is_wide", "kind"}
    figures = {path.stem for path in mixed_run.glob("*.png")}
    assert figures == {
        "parity",
        "learning_curve",
        *(f"{k}_{n}" for k in ("confusion", "roc") for n in ("is_wide", "kind")),
    }
    epochs = table(mixed_run / "metrics.csv")
    assert all(np.isfinite(float(cell)) for row in epochs for cell in row.values())
    assert {
        "val_mae_band_gap",
        "val_balanced_accuracy_is_wide",
        "val_cross_entropy_kind",
    } <= epochs[0].keys()
    printed = (mixed_run.parent / "said.txt").read_text()
    assert f"test accuracy of kind: {metrics['test']['kind']['accuracy']:.4g}" in printed
    assert "learned task weights: band_gap 0." in printed


def test_the_metrics_are_those_of_the_predictions(mixed_run: Path, table: Table) -> None:
    metrics = json.loads((mixed_run / "metrics.json").read_text())["test"]
    rows = [row for row in table(mixed_run / "predictions.csv") if row["split"] == "test"]
    for name, labels in {"is_wide": ["0", "1"], "kind": ["halide", "other", "oxide"]}.items():
        known = [row for row in rows if row[name]]
        assert len(known) == metrics[name]["n"] < len(rows)
        accuracy = np.mean([row[name] == row[f"{name}_prediction"] for row in known])
        assert metrics[name]["accuracy"] == pytest.approx(accuracy)
        for row in rows:
            probabilities = [float(row[f"{name}_probability_{label}"]) for label in labels]
            assert sum(probabilities) == pytest.approx(1, abs=1e-5)
            assert row[f"{name}_prediction"] == labels[int(np.argmax(probabilities))]


def test_a_stratified_split_keeps_the_fractions_of_the_classes(
    mixed_run: Path, mixed_file: Path
) -> None:
    gap = {
        r["material_id"]: r["band_gap"]
        for r in json.loads(gzip.decompress(mixed_file.read_bytes()))
    }
    split = json.loads((mixed_run / "splits.json").read_text())
    wide = {
        part: sum((gap[id_] or 0) >= 2 for id_ in ids) / len(ids) for part, ids in split.items()
    }
    assert max(wide.values()) - min(wide.values()) < 0.2


def test_the_checkpoint_alone_describes_the_targets(
    mixed_run: Path, mixed_file: Path, csgcnn: Command, tmp_path: Path, table: Table
) -> None:
    path = shutil.copy(mixed_run / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt")
    gap, wide, kind = load_checkpoint(Path(path))["targets"]
    assert (gap["name"], gap["unit"], gap["task"], tuple(gap["classes"])) == (
        "band_gap",
        "eV",
        "regression",
        (),
    )
    assert (wide["task"], tuple(wide["classes"]), wide["derived"]) == (
        "classification",
        ("0", "1"),
        COMPARISON,
    )
    assert tuple(kind["classes"]) == ("halide", "other", "oxide")

    answer = csgcnn("predict", "ckpt=best.ckpt", f"structures={mixed_file}", cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "predictions.csv")
    classes = (
        [f"is_wide_probability_{c}" for c in "01"],
        [f"kind_probability_{c}" for c in ("halide", "other", "oxide")],
    )
    assert list(rows[0]) == ["id", "band_gap [eV]", "is_wide", *classes[0], "kind", *classes[1]]
    assert len(rows) == 60
    in_run = {row["id"]: row for row in table(mixed_run / "predictions.csv")}
    for row in rows:
        if (same := in_run.get(row["id"])) is not None:
            assert row["kind"] == same["kind_prediction"]
            assert float(row["kind_probability_oxide"]) == pytest.approx(
                float(same["kind_probability_oxide"]), abs=1e-5
            )
            assert float(row["band_gap [eV]"]) == pytest.approx(
                float(same["band_gap_prediction [eV]"]), abs=1e-4
            )

    model = load(path)
    assert model.columns == ["band_gap", *classes[0], *classes[1]]
    crystal = json.loads(gzip.decompress(mixed_file.read_bytes()))[0]["crystal_structure"]
    values = model.predict([crystal])
    np.testing.assert_allclose(
        values[0], [float(rows[0][c]) for c in rows[0] if "_prob" in c or "[" in c], atol=1e-4
    )

    metrics = json.loads((mixed_run / "metrics.json").read_text())["test"]
    overrides = [override for override in TARGETS if "split" in override]
    evaluate = (
        "evaluate",
        "ckpt=best.ckpt",
        "dataset=dielectric",
        f"dataset.path={mixed_file}",
        "output=errors.csv",
    )
    answer = csgcnn(*evaluate, *overrides, "split=test", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert f"MAE of band_gap: {metrics['band_gap']['mae']:.4g} eV" in answer.out
    for name in ("is_wide", "kind"):
        assert f"accuracy of {name}: {metrics[name]['accuracy']:.4g}, balanced" in answer.out
    assert {row["id"] for row in table(tmp_path / "errors.csv")} == {
        id_ for id_, row in in_run.items() if row["split"] == "test"
    }


def test_the_weights_of_the_configuration_are_those_of_the_loss() -> None:
    targets = [Target("gap"), Target("kind", task="classification", classes=("a", "b"))]
    labels = torch.tensor([[1.0, 0], [2.0, 0], [3.0, 0], [4.0, 1]])

    def made(*overrides: str) -> MultiTaskLoss:
        return build_loss(compose("train", overrides), targets, labels)

    assert made().task_weights.tolist() == [0.5, 0.5]
    assert made().class_weights.tolist() == [1, 1, 1]
    assert made("++dataset.task_weights.kind=3").task_weights.tolist() == [0.25, 0.75]
    torch.testing.assert_close(
        made("dataset.class_weights=balanced").class_weights, torch.tensor([1, 4 / 6, 2])
    )
    assert not list(made().parameters())
    assert len(list(made("trainer.learn_task_weights=true").parameters())) == 1


@pytest.mark.parametrize(
    ("overrides", "code", "parts"),
    [
        (
            ["dataset.tasks.kind=classify"],
            2,
            ["dataset.tasks.kind=classify", "did you mean classification"],
        ),
        (["dataset.task_weights.kind=0"], 2, ["dataset.task_weights.kind=0", "above 0"]),
        (["dataset.task_weights.gap=2"], 2, ["gap is not a target", "band_gap, is_wide, kind"]),
        (
            ["dataset.task_weights.kind=2", "trainer.learn_task_weights=true"],
            2,
            ["learn_task_weights=true excludes dataset.task_weights"],
        ),
        (["dataset.class_weights=inverse"], 2, ["expected balanced"]),
        (
            ["dataset.derived.x=band_gap ~ 2"],
            2,
            ["dataset.derived.x='band_gap ~ 2'", "<column> <sign> <number>"],
        ),
        (
            ["dataset.split.method=group", "dataset.split.column=kind"],
            2,
            ["stratify=is_wide", "method=random"],
        ),
        (["dataset.derived.is_wide=band_gap > 100"], 1, ["is_wide has 1 different values (0, …)"]),
        (
            ["dataset.derived.one=refractive_index > 0", "dataset.split.stratify=two"],
            1,
            ["stratify=two", "one"],
        ),
    ],
)
def test_mistakes_are_refused_with_advice(
    overrides: list[str],
    code: int,
    parts: list[str],
    csgcnn: Command,
    small: list[str],
    mixed_file: Path,
    tmp_path: Path,
) -> None:
    data = f"dataset.path={mixed_file}"
    answer = csgcnn("train", *small, *TARGETS, data, *overrides, cwd=tmp_path)
    assert answer.code == code, answer.said
    assert all(part in answer.err for part in parts), answer.err
    assert "Traceback" not in answer.said


def test_a_training_set_of_one_class_is_refused(
    csgcnn: Command, small: list[str], mixed_file: Path, tmp_path: Path
) -> None:
    records = json.loads(gzip.decompress(mixed_file.read_bytes()))
    part = {"a": "train", "b": "val", "c": "test"}
    for i, record in enumerate(records):
        letter = "abc"[i % 3]
        record |= {"part": part[letter], "is_first": int(letter == "a")}
    (tmp_path / "parts.json").write_text(json.dumps(records))
    overrides = [
        "dataset.path=parts.json",
        "dataset.targets=[is_first]",
        "dataset.tasks.is_first=classification",
    ]
    overrides += ["dataset.split.method=column", "dataset.split.column=part"]
    answer = csgcnn("train", *small[1:], *overrides, cwd=tmp_path)
    assert answer.code == 1
    assert "all training rows are of one class, is_first = 1" in answer.err


def test_the_experiment_trains_two_moduli_together_and_alone(
    csgcnn: Command, tmp_path: Path
) -> None:
    overrides = [
        "experiment=elastic_multitask",
        "seed=0",
        "trainer.max_epochs=1",
        "model.hidden=8",
        "trainer.figures=false",
        "hydra.sweep.dir=sweep",
    ]
    answer = csgcnn("train", *overrides, cwd=tmp_path)
    assert answer.code == 0, answer.said
    runs = [tmp_path / "sweep" / str(number) for number in range(3)]
    targets = [list(json.loads((run / "metrics.json").read_text())["test"]) for run in runs]
    assert targets == [["log10_k_vrh", "log10_g_vrh"], ["log10_k_vrh"], ["log10_g_vrh"]]
    assert len({(run / "splits.json").read_text() for run in runs}) == 1


def test_the_leaderboard_has_a_row_for_every_target(mixed_run: Path) -> None:
    text, left_out = leaderboard([mixed_run])
    assert not left_out
    assert all(
        name in text
        for name in ("| band_gap [eV]", "| is_wide (error rate)", "| kind (error rate)")
    )
