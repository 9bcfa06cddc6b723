"""Graphs that are built once, stay in files, and exceed the memory that they may take."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.data.store import GraphStore

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
TIMING = ("seconds", "graphs_per_second")
IN_FILES = "trainer.resident_gib=1e-9"


def without_timing(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def test_training_from_files_equals_training_from_memory(
    csgcnn: Command,
    small: list[str],
    run: Path,
    table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GraphStore, "shuffled", lambda _, rows: rows[torch.randperm(len(rows))])
    answer = csgcnn("train", *small, IN_FILES, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "GiB of graphs stay in files (trainer.resident_gib=1e-09)" in answer.said
    in_files, in_memory = (
        without_timing(table(folder / "metrics.csv")) for folder in (tmp_path / "run", run)
    )
    assert in_files == in_memory
    assert (tmp_path / "run/predictions.csv").read_text() == (run / "predictions.csv").read_text()


@pytest.mark.slow
def test_a_training_from_files_resumes_bit_identically(
    csgcnn: Command, small: list[str], table: Table, tmp_path: Path
) -> None:
    overrides = [*small, IN_FILES, "trainer.max_epochs=2", "trainer.checkpoint_every=0"]
    csgcnn("train", *overrides, "hydra.run.dir=whole", cwd=tmp_path)
    csgcnn("train", *overrides, "trainer.max_minutes=1e-9", "hydra.run.dir=parts", cwd=tmp_path)
    answer = csgcnn("train", *overrides, "trainer.max_minutes=null", "resume=parts", cwd=tmp_path)
    assert answer.code == 0, answer.said
    whole, parts = (
        without_timing(table(tmp_path / name / "metrics.csv")) for name in ("whole", "parts")
    )
    assert whole == parts
    assert (tmp_path / "whole/predictions.csv").read_text() == (
        tmp_path / "parts/predictions.csv"
    ).read_text()


def test_built_graphs_are_a_data_set(
    csgcnn: Command, small: list[str], run: Path, data_file: Path, table: Table, tmp_path: Path
) -> None:
    answer = csgcnn("build", f"dataset.path={data_file}", "output=own.graphs", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert answer.out.startswith("60 crystals, 0.00911 MB of graphs: own.graphs")
    answer = csgcnn("train", *small, "dataset.path=own.graphs", "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert (tmp_path / "run/predictions.csv").read_text() == (run / "predictions.csv").read_text()
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    answers = [
        csgcnn("evaluate", ckpt, f"dataset.path={path}", "split=test", cwd=tmp_path)
        for path in ("own.graphs", data_file)
    ]
    assert answers[0].out == answers[1].out
    assert "MAE of band_gap" in answers[0].out


def test_built_graphs_of_other_settings_are_refused(
    csgcnn: Command, data_file: Path, tmp_path: Path
) -> None:
    overrides = (
        f"dataset.path={data_file}",
        "output=own.graphs",
        "graph.cutoff=5",
        "graph.compress=false",
    )
    assert csgcnn("build", *overrides, cwd=tmp_path).code == 0
    answer = csgcnn("train", "dataset.path=own.graphs", "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 2
    assert (
        "own.graphs holds graphs with other settings; add graph.cutoff=5.0 graph.compress=false"
        in answer.err
    )
    (tmp_path / "own.graphs/distance.npy").write_bytes(b"")
    answer = csgcnn("train", "dataset.path=own.graphs", "hydra.run.dir=other", cwd=tmp_path)
    assert answer.code == 1
    assert "own.graphs/distance.npy: the checksum differs" in answer.err
    assert "build these graphs again with csgcnn build" in answer.err


def test_graphs_of_structures_without_targets(
    csgcnn: Command, cifs: Path, run: Path, tmp_path: Path
) -> None:
    assert csgcnn("build", f"dataset.path={cifs}", "output=cifs.graphs", cwd=tmp_path).code == 0
    answer = csgcnn("train", "dataset=cif_folder", f"dataset.path={cifs}", cwd=tmp_path)
    assert answer.code == 1
    assert "no id_prop.csv in this folder" in answer.err
    answer = csgcnn("train", "dataset=cif_folder", "dataset.path=cifs.graphs", cwd=tmp_path)
    assert answer.code == 1
    assert "choose the target column with dataset.targets=[…]; the columns are none" in answer.err


def test_unusable_records_are_listed(
    csgcnn: Command, records: list[Any], table: Table, tmp_path: Path
) -> None:
    rows = [
        *records[:5],
        {"material_id": "bad", "crystal_structure": {"species": ["H"]}, "band_gap": 1},
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answer = csgcnn("build", "dataset.path=set.jsonl", "output=a.graphs", cwd=tmp_path)
    assert answer.code == 1
    assert "1 record could not be used (bad: " in answer.said
    assert "): a.graphs.rejected.csv" in answer.said
    assert [row["id"] for row in table(tmp_path / "a.graphs.rejected.csv")] == ["bad"]
    answer = csgcnn(
        "build", "dataset.path=set.jsonl", "output=b.graphs", "dataset.on_error=skip", cwd=tmp_path
    )
    assert answer.code == 0
    assert csgcnn("build", "dataset.path=set.jsonl", "output=b.graphs", cwd=tmp_path).code == 1


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["dataset=dielectric"], 2, "please give output=…"),
        (["output=x.graphs"], 2, "please give dataset.path=… (or "),
        (["output=there", "dataset=dielectric"], 1, "output=there exists"),
        (["output=no/where", "dataset=dielectric"], 1, "there is no folder no"),
        (["output=x.graphs", "dataset.path=nowhere.json"], 1, "no data at "),
        (
            ["output=x.graphs", "dataset=dielectric", "graph.cutof=5"],
            2,
            "did you mean graph.cutoff?",
        ),
        (
            ["output=x.graphs", "dataset=dielectric", "workers=0"],
            2,
            "workers=0: expected an integer from 1",
        ),
    ],
)
def test_wrong_overrides_are_refused(
    csgcnn: Command, overrides: list[str], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    answer = csgcnn("build", *overrides, cwd=tmp_path)
    assert answer.code == code
    assert message in answer.err
    assert "Traceback" not in answer.said


DRIVER = """
from functools import partial
from pathlib import Path
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.datasets import iter_records
from csgcnn.crystals.graph_builder import GraphPlan
from csgcnn.crystals.records import ReadOptions
from csgcnn.data.cache import build_or_wait, content_key
from csgcnn.data.shards import ShardSize, StorePlan

path, settings = Path.cwd() / "set.jsonl", GraphSettings()
folder = path.with_name(f".a.graphs.{content_key(path, settings, ReadOptions())}")
graphs = GraphPlan(settings, 1, chunk_size=16)
plan = StorePlan(partial(iter_records, path), path, graphs, shard_size=ShardSize(32))
build_or_wait(plan, folder)
"""


@pytest.mark.slow
def test_a_killed_build_resumes(csgcnn: Command, records: list[Any], tmp_path: Path) -> None:
    rows = [
        record | {"material_id": f"{record['material_id']}-{copy}"}
        for copy in range(6)
        for record in records
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    process = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not [*tmp_path.glob(".a.graphs.*.parts/000001")] and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [*tmp_path.glob(".a.graphs.*.parts/000001")]
    for name in "ab":
        answer = csgcnn(
            "build", "dataset.path=set.jsonl", f"output={name}.graphs", "workers=1", cwd=tmp_path
        )
        assert answer.code == 0, answer.said
    one, other = (GraphStore.load(tmp_path / f"{name}.graphs") for name in "ab")
    assert (one.ids, one.columns) == (other.ids, other.columns)
    for field in fields(CrystalGraphs):
        values = getattr(one.graphs, field.name), getattr(other.graphs, field.name)
        assert values[0].tobytes() == values[1].tobytes(), field.name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.graphs", "b.graphs", "set.jsonl"]
