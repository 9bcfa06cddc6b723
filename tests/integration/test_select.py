"""csgcnn select and csgcnn.select."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import csgcnn as package
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint
from csgcnn.runs.predictions import Prediction
from csgcnn.screening.acquisition import choose
from csgcnn.screening.embedding import Embedding

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def ckpts(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints that differ in one weight, and know half of the data."""
    folder = tmp_path_factory.mktemp("members")
    paths = []
    for number in (1, 2):
        content = load_checkpoint(run / "checkpoints" / "best.ckpt")
        content["state_dict"]["head.out.weight"] *= number
        content.pop("fingerprints")
        content["split"]["train"] = content["split"]["train"][:24]
        paths.append(folder / f"{number}.ckpt")
        save_checkpoint(content, paths[-1])
    return paths


def words(ckpts: list[Path], data_file: Path) -> list[str]:
    return ["select", f"ckpt=[{ckpts[0]},{ckpts[1]}]", f"structures={data_file}", "n=6"]


@pytest.mark.parametrize(
    "more",
    [
        ["by=uncertainty"],
        ["by=ucb", "goal=max", "beta=2"],
        ["by=expected_improvement", "goal=min", "best=3"],
        ["by=expected_improvement", "goal=1.5", "best=1"],
        ["by=diverse"],
    ],
)
def test_structures_are_ranked_with_reasons(
    csgcnn: Command, ckpts: list[Path], data_file: Path, tmp_path: Path, more: list[str]
) -> None:
    answer = csgcnn(*words(ckpts, data_file), *more, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "24 crystals of the training set left out" in answer.said
    table = pd.read_csv(tmp_path / "selection.csv", dtype={"id": str})
    by = more[0].partition("=")[2]
    assert list(table)[:5] == ["rank", "id", "band_gap [eV]", "band_gap_std [eV]", by]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["id"].is_unique
    assert not set(table["id"]) & set(load_checkpoint(ckpts[0])["split"]["train"])
    assert table["reason"].str.startswith(by).all()


def test_a_batch_does_not_repeat_itself(ckpts: list[Path]) -> None:
    model = package.load(ckpts)
    # three nearly equal crystals and a less uncertain one far from them
    vectors = np.array([[0.0, 0], [0.001, 0], [0.002, 0], [50, 0]])
    cells = {
        "in_training": ["false"] * 4,
        "nearest_id": ["t"] * 4,
        "nearest_distance": [1.0, 1.0, 1.0, 50.0],
    }
    std = np.array([[3.0], [2.9], [2.8], [1.0]])
    found = Prediction(["a", "b", "c", "d"], np.zeros_like(std), std, cells)
    embedding = Embedding(found, vectors, vectors, [], {})
    assert [one.row for one in choose(model, embedding, 2, package.Rule())] == [0, 3]
    diverse = choose(model, embedding, 4, package.Rule("diverse"))
    assert [one.row for one in diverse] == [3, 0, 2, 1]
    assert [one.is_chosen for one in diverse] == [False, False, True, True]


def test_the_python_function_chooses_the_same(
    csgcnn: Command, ckpts: list[Path], cifs: Path, tmp_path: Path
) -> None:
    content = load_checkpoint(ckpts[0])
    content["split"]["train"] = []
    save_checkpoint(content, tmp_path / "a.ckpt")
    words = ["ckpt=a.ckpt", f"structures={cifs}", "by=diverse"]
    answer = csgcnn("select", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    paths = sorted(cifs.glob("*.cif"))
    frame = package.select(tmp_path / "a.ckpt", paths, 10, package.Rule("diverse"))
    named = [paths[int(id_.removeprefix("structure "))].stem for id_ in frame["id"]]
    table = pd.read_csv(tmp_path / "selection.csv", dtype={"id": str})
    assert table["id"].tolist() == named
    assert list(frame)[-2:] == ["reason", "out_of_domain"]


def test_models_and_keys_that_cannot_choose_are_refused(
    csgcnn: Command, ckpts: list[Path], data_file: Path, tmp_path: Path
) -> None:
    content = load_checkpoint(ckpts[0])
    del content["embeddings"]
    save_checkpoint(content, tmp_path / "old.ckpt")
    ensemble, one = words(ckpts, data_file), [f"ckpt={ckpts[0]}", f"structures={data_file}"]
    for command, message in (
        (["select", *one], "by=uncertainty needs standard deviations"),
        (["select", "ckpt=old.ckpt", one[1], "by=diverse"], "holds no embeddings"),
        ([*ensemble, "by=ucb"], "needs goal=max"),
        ([*ensemble, "goal=max"], "goal=max needs by=ucb or expected_improvement"),
        ([*ensemble, "by=diverse", "beta=2"], "beta=2.0 needs by=ucb"),
        ([*ensemble, "target=gap"], "did you mean band_gap?"),
        ([*ensemble, "output=a.parquet"], "ends in .csv"),
    ):
        answer = csgcnn(*command, cwd=tmp_path)
        assert answer.code in (1, 2), answer.said
        assert message in answer.err, answer.said
    assert [path.name for path in tmp_path.iterdir()] == ["old.ckpt"]
