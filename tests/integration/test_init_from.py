"""`init_from`: a training that starts from the weights of another."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csgcnn.config.locations import INCLUDED_DATA
from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]
QUICK = ["trainer.max_epochs=1", "trainer.figures=false"]


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


def equal_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if torch.equal(one[name], other[name])}


@pytest.fixture
def source(run: Path) -> str:
    return f"init_from={run / 'checkpoints' / 'best.ckpt'}"


def test_another_target_trains_a_new_head_on_a_frozen_body(
    csgcnn: Command, small: list[str], run: Path, source: str, tmp_path: Path
) -> None:
    other = [
        "dataset.targets=[refractive_index]",
        "trainer.freeze_body=true",
        "trainer.ema=null",
        *QUICK,
    ]
    answer = csgcnn("train", *small, source, *other, "hydra.run.dir=new", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert (
        "the head is re-initialized: the checkpoint predicts band_gap, not refractive_index"
        in answer.said
    )
    assert "are frozen" in answer.said
    new, old = weights(tmp_path / "new"), weights(run, "best")
    changed = new.keys() - equal_tensors(new, old)
    assert changed
    assert all(name.startswith(("head.", "scaler.")) for name in changed)


def test_the_same_target_starts_from_body_and_head(
    csgcnn: Command, small: list[str], run: Path, source: str, tmp_path: Path
) -> None:
    words = [
        *small,
        source,
        "optimizer.lr=1e-12",
        *QUICK,
        "seed=3",
        "hydra.run.dir=new",
    ]
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "ids of the training set" not in answer.said, "the same split"
    assert ", body and head" in answer.said
    new, old = weights(tmp_path / "new"), weights(run, "best")
    for name in new:
        if "running" not in name:
            torch.testing.assert_close(new[name], old[name], atol=1e-6, rtol=1e-6)
    assert equal_tensors(new, old) >= {"scaler.mean", "scaler.std"}


@pytest.mark.slow
def test_a_run_resumes_without_its_source(
    csgcnn: Command, small: list[str], run: Path, tmp_path: Path
) -> None:
    (tmp_path / "old.ckpt").write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    words = [
        *small,
        "init_from=old.ckpt",
        "init_parts=body",
        "trainer.layer_decay=0.5",
        "trainer.freeze_body=true",
        *QUICK,
    ]
    whole = csgcnn("train", *words, "hydra.run.dir=whole", cwd=tmp_path)
    stopped = csgcnn("train", *words, "trainer.max_minutes=1e-9", "hydra.run.dir=cut", cwd=tmp_path)
    assert (whole.code, stopped.code) == (0, 75), whole.said + stopped.said
    (tmp_path / "old.ckpt").unlink()
    answer = csgcnn("train", "resume=cut", "trainer.max_minutes=null", cwd=tmp_path)
    assert answer.code == 0, answer.said
    new, expected = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert equal_tensors(new, expected) == expected.keys()


def test_test_crystals_of_the_other_training_set_are_counted(
    csgcnn: Command, small: list[str], source: str, tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, source, "dataset.split.seed=4", *QUICK, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert re.search(r"[1-6] test crystals were in the training set of that model", answer.said)


def test_pretrained_weights_come_with_the_package(csgcnn: Command, tmp_path: Path) -> None:
    with gzip.open(INCLUDED_DATA / "formation_energy.json.gz") as file:
        (tmp_path / "some.json").write_text(json.dumps(json.load(file)[:100]))
    words = ["dataset.path=some.json", "dataset.targets=[formation_energy_per_atom]"]
    words += ["init_from=pretrained", "graph.site_features=[pretrained]"]
    kernel = [
        "head=gp",
        "trainer.max_epochs=0",
        "dataset.split.train=0.5",
        "dataset.split.test=0.4",
    ]
    answer = csgcnn("train", *words, *kernel, "trainer.figures=false", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "trained on other graphs" not in answer.said
    (n_known,) = re.findall(
        r"(\d+) test crystals were in the training set of the site", answer.said
    )
    assert f"init_from: {n_known} test crystals" in answer.said
    assert re.search(r"init_from=pretrained: loaded \d+ of \d+ tensors", answer.said)


def test_other_graphs_are_reported(
    csgcnn: Command, small: list[str], source: str, tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, source, "graph.max_neighbors=8", *QUICK, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "other graphs: graph.max_neighbors=12" in answer.said


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["model.hidden=8"], 1, "incompatible architecture: model.hidden=16 (here 8)"),
        (["edge=rbf"], 1, "edge_calculator"),
        (
            ["init_from=pretrained", "model.hidden=8"],
            1,
            " more; omit these keys, or give init_from=null",
        ),
        (["init_from=absent.ckpt"], 1, "init_from=absent.ckpt: there is no such file"),
        (["init_parts=head"], 2, "init_parts=head: expected all or body"),
        (
            ["init_from=null", "trainer.freeze_body=true"],
            2,
            "trainer.freeze_body=true needs init_from=CHECKPOINT",
        ),
        (["trainer.layer_decay=0"], 2, "trainer.layer_decay=0"),
    ],
)
def test_mistakes_are_reported(
    overrides: list[str],
    code: int,
    message: str,
    csgcnn: Command,
    small: list[str],
    source: str,
    tmp_path: Path,
) -> None:
    answer = csgcnn("train", *small, source, *overrides, cwd=tmp_path)
    assert (answer.code, message in answer.err) == (code, True), answer.said
