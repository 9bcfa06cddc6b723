"""What the services hold is read back; without a network."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_record import train

from csgcnn.runs.loggers.mlflow import MlflowLogger
from csgcnn.runs.loggers.tensorboard import TensorBoardLogger
from csgcnn.runs.loggers.wandb import WandbLogger


def stop_and_resume(folder: Path, make: Any, **loggers: Any) -> None:
    """Record two epochs, stop, and resume after the first."""
    with pytest.raises(SystemExit):
        train(folder, 2, end=SystemExit(143), service=make())
    # W&B names the folders of offline runs by the second.
    time.sleep(1)
    train(folder, 3, done=1, service=make())


def test_tensorboard(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs the extra csgcnn[tensorboard]",
    )
    stop_and_resume(tmp_path, TensorBoardLogger)
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    losses = [(event.step, event.value) for event in found.Scalars("train_loss")]
    assert losses == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [event.value for event in found.Scalars("test/gap/mae")] == [0.5]
    assert found.Images("parity")
    (text,) = found.Tensors("config/text_summary")
    assert '"hidden": 16' in text.tensor_proto.string_val[0].decode()


@pytest.mark.slow
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra csgcnn[mlflow]")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    uri = f"sqlite:///{tmp_path / 'store.db'}"
    stop_and_resume(tmp_path / "run", lambda: MlflowLogger("perovskites", uri))
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("perovskites")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params == {"seed": "1", "model.hidden": "16"}
    assert run.data.metrics["test/gap/mae"] == 0.5
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    assert [item.path for item in client.list_artifacts(run.info.run_id, "figures")] == [
        "figures/parity.png",
    ]


def wandb_records(path: Path) -> Iterator[Any]:
    """Read the records of an offline run, which is a log of LevelDB after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, data = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        length, kind = struct.unpack_from("<HB", content, position + 4)
        data += content[position + 7 : position + 7 + length]
        position += 7 + length
        # whole records and last parts; a header is not split between blocks of 32 KiB
        if kind in (1, 4):
            yield Record.FromString(data)
            data = b""
        if (left := -position % 2**15) < 7:
            position += left


def cells(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra csgcnn[wandb]")
    stop_and_resume(tmp_path, lambda: WandbLogger("perovskites", "offline"))
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    records = [record for path in files for record in wandb_records(path)]
    runs = [record.run for record in records if record.HasField("run")]
    assert {(run.project, run.run_id) for run in runs} == {("perovskites", runs[0].run_id)}
    assert cells(runs[0].config.update)["model"] == {"hidden": 16}
    epochs = [cells(record.history.item) for record in records if record.HasField("history")]
    losses = {row["epoch"]: row["train_loss"] for row in epochs if "train_loss" in row}
    assert losses == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
    summary: dict[str, Any] = {}
    for record in records:
        summary |= cells(record.summary.update) if record.HasField("summary") else {}
    assert summary["test/gap/mae"] == 0.5
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/parity*.png"))
