"""Test reading and writing checkpoints of the present format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoint_files import FORMAT_1, STORED, Content, refused
from refusals import same

from csgcnn import load
from csgcnn.config.targets import plugins_allowed
from csgcnn.data.store import GraphStore
from csgcnn.io import replacing
from csgcnn.runs.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from csgcnn.training.state import training_state
from csgcnn.training.trainer import Trainer

EXPECTED_OF_FORMAT_1 = [1.799589, 2.449398, 1.752008]  # eV, of the first records of dielectric


def test_a_stored_checkpoint_of_format_1_predicts_as_it_did(records: list[Content]) -> None:
    model = load(FORMAT_1)
    assert (model.names, model.units) == (["band_gap"], ["eV"])
    found = model.predict([record["crystal_structure"] for record in records[:3]])
    np.testing.assert_allclose(found[:, 0], EXPECTED_OF_FORMAT_1, atol=1e-4)
    assert repr(model) == "Predictor(band_gap [eV]; 63 elements)"


def test_a_state_of_a_training_comes_back_to_the_bit(
    tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    trained = trainer(max_epochs=1, ema=0.9)
    trained.fit(lambda: None)
    content = {
        "config": {"a": [1, None, "x"]},
        "targets": [],
        "elements": [1, 8],
        "split": {"train": [f"mp-{i}" for i in range(1000)], "val": ["a", "b"], "test": []},
        "state_dict": trained.evaluated.state_dict(),
        "training": training_state(trained),
    }
    save_checkpoint(content, tmp_path / "a.ckpt")
    back = load_checkpoint(tmp_path / "a.ckpt")
    assert back["format"] == FORMAT
    assert same({name: back[name] for name in content}, content)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_other_programs_read_its_weights(tmp_path: Path, content: Content) -> None:
    save_checkpoint(content, tmp_path / "a.ckpt")
    tensors = safetensors.torch.load_file(tmp_path / "a.ckpt")
    for name, tensor in content["state_dict"].items():
        assert torch.equal(tensors[f"state_dict.{name}"], tensor)


def test_unknown_fields_are_ignored(tmp_path: Path, content: Content) -> None:
    save_checkpoint({**content, "later": {"a": torch.ones(2)}}, tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt").names == ["band_gap"]


def test_the_plugins_of_a_checkpoint_are_recorded_and_need_the_opt_in_of_the_user(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "poolings.py").write_text(
        "from csgcnn.nn.pooling import MeanPooling\n\n\nclass MyPooling(MeanPooling):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    content["config"]["pooling"] = {
        "_target_": "my_package.poolings.MyPooling",
        "_partial_": True,
    }
    content["config"]["plugins"] = ["my_package"]
    save_checkpoint({**content, "plugins": ["my_package"]}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["plugins"] == ["my_package"]
    refused(tmp_path / "a.ckpt", "plugins=[my_package]")
    with plugins_allowed(["my_package"]):
        model = load(tmp_path / "a.ckpt")
    assert type(model.network.pooling).__name__ == "MyPooling"


def test_removed_keys_are_reported(tmp_path: Path, content: Content) -> None:
    assert load_checkpoint(FORMAT_1)["removed"] == []
    content["config"]["graph"]["vectors"] = True
    save_checkpoint(content, tmp_path / "a.ckpt")
    back = load_checkpoint(tmp_path / "a.ckpt")
    assert "vectors" not in back["config"]["graph"]
    assert [sentence.partition(" ")[0] for sentence in back["removed"]] == ["graph.vectors"]
    assert load(tmp_path / "a.ckpt").names == ["band_gap"]


def test_an_interrupted_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(STORED.read_bytes())

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == STORED.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    save_checkpoint({}, tmp_path / "a.ckpt")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.ckpt").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_it_predicts_with_the_stored_weights(
    tmp_path: Path, content: Content, store: GraphStore, records: list[Content]
) -> None:
    structures = [record["crystal_structure"] for record in records]
    expected = load(FORMAT_1).predict(structures) + 1.0
    content["state_dict"]["scaler.mean"] += 1.0
    save_checkpoint(content, tmp_path / "up.ckpt")
    np.testing.assert_allclose(load(tmp_path / "up.ckpt").predict(structures), expected, rtol=1e-5)
