"""Predictions of stores of graphs."""

import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from pandas import read_csv
from pandas.testing import assert_frame_equal

from csgcnn import load
from csgcnn.commands.predict import predict
from csgcnn.config.compose import compose
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint
from csgcnn.screening.workers import Source, predict_store

Command = Callable[..., Any]


def test_a_store_of_graphs_is_predicted_as_its_structures(
    csgcnn: Command, ckpts: list[Path], data_file: Path, graph_store: Path, tmp_path: Path
) -> None:
    csgcnn("predict", f"ckpt={ckpts[0]}", f"structures={data_file}", "workers=1", cwd=tmp_path)
    expected = read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    overrides = (f"ckpt={ckpts[0]}", f"structures={graph_store}", "output=of_store.csv")
    with chdir(tmp_path):
        assert predict(compose("predict", [*overrides, "batch_size=8"]), chunk_size=16) == 0
    of_store = read_csv(tmp_path / "of_store.csv", keep_default_na=False)
    # Another size of batches changes the last of eight digits.
    assert_frame_equal(of_store, expected, rtol=1e-6)


def test_processes_share_the_rows_of_a_store(ckpts: list[Path], graph_store: Path) -> None:
    model, source = load(ckpts[0]), Source((ckpts[0],), graph_store)
    alone = list(predict_store(model, source, chunk_size=16))
    shared = list(predict_store(model, source, workers=2, chunk_size=16, parallel_rows=1))
    assert [chunk.ids for chunk in shared] == [chunk.ids for chunk in alone]
    assert len(alone) == 4
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_an_unusable_store_is_refused(
    csgcnn: Command, ckpts: list[Path], data_file: Path, graph_store: Path, tmp_path: Path
) -> None:
    content = load_checkpoint(ckpts[0])
    content["config"]["graph"] |= {"cutoff": 6.0, "max_neighbors": 8}
    save_checkpoint(content, tmp_path / "other.ckpt")
    damaged = Path(shutil.copytree(graph_store, tmp_path / "damaged"))
    (damaged / "rows.jsonl").write_text("{}")
    for overrides, code, message in (
        (
            ["ckpt=other.ckpt", f"structures={graph_store}"],
            1,
            "graph.cutoff=6.0 (not 8.0), graph.max_neighbors=8",
        ),
        ([f"ckpt={ckpts[0]}", "structures=damaged"], 1, "rows.jsonl"),
        ([f"ckpt={ckpts[0]}", f"structures=[{graph_store},damaged]"], 2, "give it by itself"),
    ):
        answer = csgcnn("predict", *overrides, cwd=tmp_path)
        assert (answer.code, message in answer.err, answer.err.count("\n")) == (code, True, 1), (
            answer.said
        )
    several = f"structures=[{graph_store},damaged]"
    answer = csgcnn("embed", f"ckpt={ckpts[0]}", several, cwd=tmp_path)
    assert (answer.code, "give it by itself" in answer.err) == (2, True), answer.said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "other.ckpt"]
