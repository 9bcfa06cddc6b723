"""Keys that have no effect are refused, however they are written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("command", "override", "expected"),
    [
        ("train", "+trainer.foo=1", "there is no key trainer.foo"),
        ("train", "+trainer.max_epoch=1", "did you mean trainer.max_epochs?"),
        ("train", "++dataset.splits.train=.5", "did you mean dataset.split.train?"),
        ("train", "+callbacks=x", "there is no key callbacks"),
        ("train", "+foo.bar=1", "there is no key foo.bar"),
        ("train", "+graph.foo=1", "there is no key graph.foo"),
        ("train", "+model.hiden=3", "hiden is no argument of"),
        ("train", "+hydra.foo=1", "there is no key hydra.foo"),
        ("train", "~trainer.foo", "there is no key trainer.foo"),
        ("train", "~trainer.max_epochs", "trainer.max_epochs cannot be deleted"),
        ("predict", "+foo=1", "there is no key foo"),
        ("evaluate", "+dataset.foo=1", "there is no key dataset.foo"),
        ("evaluate", "dataset.split.method=random", "has no effect on csgcnn evaluate"),
        ("build", "dataset.targets=[gap]", "dataset.targets has no effect on csgcnn build"),
        ("describe", "dataset.on_error=skip", "dataset.on_error has no effect"),
        ("benchmark", "+trainer.foo=1", "there is no key trainer.foo"),
        ("train", "dataset.split.file=a.json", "needs dataset.split.method=file, not random"),
        (
            "train",
            "dataset.split.fold=0",
            "method=fold, matbench, kfold, leave_*, target_tail or time, not",
        ),
        (
            "train",
            "dataset.split.column=x",
            "needs dataset.split.method=group, column, fold, target_tail or time",
        ),
        ("train", "dataset.split.clusters=4", "needs dataset.split.method=leave_cluster"),
        ("train", "dataset.split.tail=low", "needs dataset.split.method=target_tail"),
        ("train", "dataset.split.in_distribution=0.2", "method=leave_*, target_tail or time"),
        ("train", "++dataset.split={fold: 1}", "dataset.split.fold=1 needs"),
        ("train", "init_parts=body", "init_parts=body needs init_from=…"),
        ("train", "dataset.max_rejected=0.1", "needs dataset.on_error=skip"),
        ("predict", "by=gap", "by=gap needs top=…"),
        ("train", "dataset.units.gap=eV", "did you mean band_gap?"),
        ("train", "dataset.units.refractive_index=1", "refractive_index is not a target"),
        ("train", "dataset.derived.wide=band_gap > 3", "wide is not a target"),
        ("train", "dataset.task_weights.band_gap=2", "has no effect on one target, band_gap"),
        ("evaluate", "plot.format=pdf", "needs output=FOLDER"),
        ("benchmark", "dataset.split.fold=1", "folds=… chooses the folds"),
        ("benchmark", "dataset=elastic", "dataset=… has no effect beside task=…"),
    ],
)
def test_a_key_without_effect_is_refused(
    csgcnn: Command, tmp_path: Path, command: str, override: str, expected: str
) -> None:
    required = {
        "predict": ["ckpt=a", "structures=b"],
        "evaluate": ["ckpt=a", "dataset=elastic"],
        "build": ["output=a", "dataset=elastic"],
        "describe": ["dataset=elastic"],
        "benchmark": ["task=matbench_jdft2d"],
    }
    answer = csgcnn(command, *required.get(command, []), override)
    assert answer.returncode == 2, answer.stderr
    assert expected in answer.stderr
    assert answer.stderr.count("\n") <= 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--multirun", "seed=0,1", "hydra.run.dir=a"], "write hydra.sweep.dir=FOLDER"),
        (["hydra.sweep.dir=a"], "hydra.sweep.dir has no effect without --multirun"),
        (["resume=run", "hydra.run.dir=a"], "hydra.run.dir has no effect: resume=run continues"),
    ],
)
def test_a_folder_that_nothing_is_written_to_is_refused(
    csgcnn: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 1\n")
    answer = csgcnn("train", *arguments)
    assert (answer.returncode, expected in answer.stderr) == (2, True), answer.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("dataset.split.method=random", "method=random has no folds; omit it"),
        ("dataset.split.test=0.3", "needs dataset.split.method=random or group, not kfold"),
        ("dataset.split.folds=3", "dataset.split.folds has no effect"),
    ],
)
def test_a_split_that_a_cross_validation_does_not_use_is_refused(
    csgcnn: Command, tmp_path: Path, override: str, expected: str
) -> None:
    answer = csgcnn("benchmark", "folds=3", "dataset=elastic", override)
    assert (answer.returncode, expected in answer.stderr) == (2, True), answer.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trainer.device=cpu", "trainer.cuda_graphs=true"], "device=auto or cuda, not cpu"),
        (["trainer.device=cpu", "trainer.deterministic=true"], "device=auto or cuda, not cpu"),
        (["trainer.figures=false", "plot.width=170"], "no effect with trainer.figures=false"),
    ],
)
def test_a_key_that_other_choices_leave_unread_is_refused(
    csgcnn: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    answer = csgcnn("train", *arguments)
    assert (answer.returncode, expected in answer.stderr) == (2, True), answer.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cuda:1", "auto", "cpu"])
def test_keys_of_another_device_that_ask_for_nothing_are_accepted(
    exit_code: Callable[..., object],
    replace_command: Callable[..., None],
    device: str,
) -> None:
    seen = []
    replace_command("train", seen.append)
    value = "false" if device == "cpu" else "true"
    keys = ("trainer.cuda_graphs", "trainer.deterministic")
    words = [f"trainer.device={device}", *(f"{key}={value}" for key in keys)]
    assert exit_code("train", *words) == 0
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epochs", "10"], "trainer.max_epochs=10"),
        (["epochs=10"], "trainer.max_epochs=10"),
        (["--lr=1e-3"], "optimizer.lr=1e-3"),
        (["lr=1e-3"], "optimizer.lr=1e-3"),
        (["batch_size=32"], "trainer.batch_size=32"),
        (["--batch-size", "32"], "trainer.batch_size=32"),
        (["--model", "csgann"], "model=csgann"),
        (["--seed", "3"], "seed=3"),
        (["model.layers=3"], "model.n_convolutions"),
        (["device=cpu"], "trainer.device=cpu"),
    ],
)
def test_names_of_other_programs_are_answered_with_the_key(
    csgcnn: Command, arguments: list[str], expected: str
) -> None:
    answer = csgcnn("train", *arguments)
    assert (answer.returncode, expected in answer.stderr) == (2, True), answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_plain_file_overrides_the_defaults(csgcnn: Command, tmp_path: Path) -> None:
    text = "model: csgcnn\nedge: rbf\ntrainer.max_epochs: 3\ndataset: {path: x.json}\n"
    (tmp_path / "mine.yaml").write_text(text)
    words = ["--config-dir", ".", "--config-name", "mine", "--cfg", "job"]
    shown = csgcnn("train", *words, "seed=4").stdout
    for expected in ("GatedConvolution", "RadialBasis", "max_epochs: 3", "x.json", "seed: 4"):
        assert expected in shown
    assert "batch_size: 64" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trainer: {max_epoch: 3}", "mine.yaml: there is no key trainer.max_epoch; did you mean"),
        ("trainer: {max_epochs: x}", "mine.yaml: trainer.max_epochs: expected an integer"),
        ("dataset: {split: {file: a.json}}", "needs dataset.split.method=file"),
    ],
)
def test_mistakes_of_a_plain_file_are_named(
    csgcnn: Command, tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    answer = csgcnn("train", "--config-dir", ".", "--config-name", "mine")
    assert (answer.returncode, expected in answer.stderr) == (2, True), answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("option", "key"),
    [("edge=rbf", "edge_calculator.step"), ("node_features=bits", "node_features.learned")],
)
def test_a_key_of_a_recipe_that_the_chosen_option_does_not_have_can_be_left_out(
    csgcnn: Command, option: str, key: str
) -> None:
    answer = csgcnn("train", "recipe=cogn", option)
    assert answer.returncode == 2
    assert f"recipe=cogn sets it for another option; ~{key} leaves it out" in answer.stderr
    assert csgcnn("train", "recipe=cogn", option, f"~{key}", "--cfg", "job").returncode == 0
