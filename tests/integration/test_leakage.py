"""Validation and test rows do not influence the training, however extreme they are."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]
Record = dict[str, Any]
OVERRIDES = [
    "dataset.path=data.json",
    "hydra.run.dir=run",
    "trainer.max_epochs=2",
    "trainer.batch_size=16",
    "model.hidden=8",
    "model.head_hidden=8",
    "model.n_convolutions=1",
    "node_features=[elemental,learned]",
    "dataset.split.method=column",
    "dataset.split.column=part",
    "global_features=[lattice,symmetry,composition]",
    "dataset.targets=[band_gap,kind]",
    "dataset.tasks.kind=classification",
    "dataset.class_weights=balanced",
    "trainer.learn_task_weights=true",
]


def with_extremes(record: Record) -> Record:
    """Return the record with an extreme target, a new class and element, and a threefold cell."""
    crystal = deepcopy(record["crystal_structure"])
    crystal["lattice"] = [[3 * x for x in vector] for vector in crystal["lattice"]]
    crystal["species"] = ["Cf", *crystal["species"][1:]]
    return record | {"band_gap": -1e6, "kind": "c", "crystal_structure": crystal}


@pytest.fixture(scope="module")
def train(
    csgcnn: Command, records: list[Record], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """Train with extreme records in some parts, and return the checkpoint `last` or `best`."""
    parts = ["train"] * 36 + ["val"] * 6 + ["test"] * 6
    data = [
        record | {"part": part, "kind": "aabac"[i % 5]}
        for i, (record, part) in enumerate(zip(records, parts, strict=False))
    ]
    done: dict[tuple[str, ...], Path] = {}

    def checkpoint(*altered: str, name: str = "last") -> dict[str, Any]:
        if altered not in done:
            done[altered] = folder = tmp_path_factory.mktemp("leak")
            changed = [
                with_extremes(record) if record["part"] in altered else record for record in data
            ]
            if "one train row" in altered:
                changed[0] = with_extremes(changed[0])
            (folder / "data.json").write_text(json.dumps(changed))
            answer = csgcnn("train", *OVERRIDES, cwd=folder)
            assert answer.code == 0, answer.said
        return load_checkpoint(done[altered] / "run" / "checkpoints" / f"{name}.ckpt")

    return checkpoint


def tensors(tree: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by their path in it."""
    if isinstance(tree, torch.Tensor):
        return {name: tree}
    branches = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list | tuple)
        else ()
    )
    return {
        path: leaf
        for key, branch in branches
        for path, leaf in tensors(branch, f"{name}.{key}").items()
    }


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.mark.slow
def test_validation_and_test_rows_change_nothing_that_is_fitted(
    train: Callable[..., dict[str, Any]],
) -> None:
    clean, altered = train(), train("val", "test")
    assert not differing(clean["state_dict"], altered["state_dict"])
    names = set(tensors(clean["state_dict"]))
    assert {".scaler.mean", ".scaler.std", ".global_features.mean", ".global_features.std"} <= names
    for part in ("model", "loss", "optimizer"):  # the loss: weights of classes and of tasks
        assert not differing(clean["training"][part], altered["training"][part]), part
    assert clean["elements"] == altered["elements"]
    assert 98 not in altered["elements"]
    losses = [[row["train_loss"] for row in run["training"]["history"]] for run in (clean, altered)]
    assert losses[0] == losses[1]
    validated = [run["training"]["history"][-1]["val_mae_band_gap"] for run in (clean, altered)]
    assert validated[1] > 1e5 > validated[0], "the extremes are there"


@pytest.mark.slow
def test_test_rows_do_not_choose_the_epoch(train: Callable[..., dict[str, Any]]) -> None:
    clean, altered = train(name="best"), train("test", name="best")
    assert not differing(clean["state_dict"], altered["state_dict"])
    assert clean["metrics"] == altered["metrics"]


@pytest.mark.slow
def test_a_single_training_row_changes_all_of_it(train: Callable[..., dict[str, Any]]) -> None:
    """Without this test, the tests above would prove nothing."""
    clean, altered = train(), train("one train row")
    changed = differing(clean["state_dict"], altered["state_dict"])
    assert {".scaler.mean", ".scaler.std", ".global_features.mean", ".embedding.weight"} <= set(
        changed
    )
    assert differing(clean["training"]["loss"], altered["training"]["loss"])
    assert set(altered["elements"]) - set(clean["elements"]) == {98}


@pytest.mark.slow
def test_a_split_by_composition(csgcnn: Command, records: list[Record], tmp_path: Path) -> None:
    def reduced(record: Record) -> frozenset[tuple[str, int]]:
        count = Counter(record["crystal_structure"]["species"])
        return frozenset((element, n // math.gcd(*count.values())) for element, n in count.items())

    stretched = deepcopy(records)
    for record in stretched:
        record["material_id"] += " stretched"
        crystal = record["crystal_structure"]
        crystal["lattice"] = [[1.02 * x for x in vector] for vector in crystal["lattice"]]
    (tmp_path / "data.json").write_text(json.dumps(records + stretched))
    overrides = [override for override in OVERRIDES if not re.search("split|kind|class", override)]
    split = ["dataset.split.method=group", "dataset.split.column=composition"]
    answer = csgcnn("train", *overrides, *split, "trainer.learn_task_weights=false", cwd=tmp_path)
    assert answer.code == 0, answer.said
    formula = {record["material_id"]: reduced(record) for record in records + stretched}
    ids = json.loads((tmp_path / "run" / "splits.json").read_text())
    formulas = [{formula[id_] for id_ in ids[part]} for part in ("train", "val", "test")]
    assert sum(map(len, formulas)) == len(set.union(*formulas)) == len(set(formula.values()))
    assert [len(ids[part]) for part in ("train", "val", "test")] == pytest.approx(
        [96, 12, 12], abs=2
    )
