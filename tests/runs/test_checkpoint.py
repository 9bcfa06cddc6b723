"""Checkpoints of the present format, and the checks that hold for all formats."""

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refusal, same

from csgcnn import load
from csgcnn.config.targets import plugins_allowed
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError
from csgcnn.io import replacing
from csgcnn.runs.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from csgcnn.runs.tensor_tree import split_tree
from csgcnn.runs.untrusted import Limits
from csgcnn.training.trainer import Trainer

# csgcnn train model.hidden=8 model.n_convolutions=1 model.head_hidden=8 edge=rbf edge.n_basis=8
# node_features=learned node_features.learned.dim=4 trainer.max_epochs=3 trainer.device=cpu
FORMAT_1 = Path(__file__).with_name("format_1.ckpt")
STORED = Path(__file__).with_name("format_4.ckpt")
EXPECTED_OF_FORMAT_1 = [1.799589, 2.449398, 1.752008]  # eV, of the first records of dielectric
Content = dict[str, Any]


class Trap:
    """Creates the folder it is given when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.fixture
def content() -> Content:
    return load_checkpoint(FORMAT_1)


def refused(path: Path, *parts: str) -> None:
    message = refusal(load, path)
    assert all(part in message for part in parts), message


def write(path: Path, text: Any, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A safetensors file with this description."""
    text = text if isinstance(text, str) else json.dumps(text)
    path.write_bytes(safetensors.torch.save(tensors or {}, {"csgcnn": text}))
    return path


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
        "training": trained.state(),
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


@pytest.mark.parametrize("stored", [FORMAT_1, STORED], ids=lambda path: path.stem)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(kept: float, stored: Path, tmp_path: Path) -> None:
    whole = stored.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: int(kept * len(whole))])
    refused(tmp_path / "cut.ckpt", "truncated")


@pytest.mark.parametrize("stored", [FORMAT_1, STORED], ids=lambda path: path.stem)
def test_a_damaged_file_is_refused(stored: Path, tmp_path: Path) -> None:
    damaged = bytearray(stored.read_bytes())
    damaged[100:400] = bytes(300)
    (tmp_path / "bad.ckpt").write_bytes(damaged)
    refused(tmp_path / "bad.ckpt")


def test_other_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent.ckpt", "no such file")
    refused(tmp_path, "is a directory; did you mean")
    (tmp_path / "text.ckpt").write_text("material_id,band_gap\n")
    refused(tmp_path / "text.ckpt", "not a csgcnn checkpoint")
    (tmp_path / "weights.ckpt").write_bytes(safetensors.torch.save({"a": torch.ones(1)}))
    refused(tmp_path / "weights.ckpt", "not a csgcnn checkpoint", "no entry csgcnn")
    (tmp_path / "json.ckpt").write_text('{"__metadata__": {"csgcnn": "{}"}}')
    refused(tmp_path / "json.ckpt", "not a csgcnn checkpoint")


@pytest.mark.parametrize(
    "tree", [[1, 2], {"model": 1}, {"format": 1, "config": {}}, {"format": "1"}, {}, None]
)
def test_other_content_is_refused(tree: Any, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "old.ckpt")
    for path in (tmp_path / "old.ckpt", write(tmp_path / "new.ckpt", tree)):
        refused(path, "not a csgcnn checkpoint: it lacks one of format, config, targets")


@pytest.mark.parametrize("version", [0, -1, True, "4"])
def test_an_impossible_format_is_refused(version: Any, tmp_path: Path, content: Content) -> None:
    write(tmp_path / "a.ckpt", *split_tree({**content, "format": version}))
    refused(tmp_path / "a.ckpt", "not a csgcnn checkpoint")


def test_a_newer_format_is_refused(tmp_path: Path, content: Content) -> None:
    newer = {**content, "format": FORMAT + 1, "csgcnn": "9.8.7"}
    torch.save(newer, tmp_path / "old.ckpt")
    for path in (tmp_path / "old.ckpt", write(tmp_path / "new.ckpt", *split_tree(newer))):
        refused(path, str(FORMAT + 1), "9.8.7", "update csgcnn")


@pytest.mark.parametrize("hidden_in", ["config", "state_dict", "extra"])
def test_a_pickled_object_is_refused_and_not_executed(
    hidden_in: str, tmp_path: Path, content: Content
) -> None:
    trap = tmp_path / "sprung"
    torch.save(content | {hidden_in: {"x": Trap(trap)}}, tmp_path / "trap.ckpt")
    refused(tmp_path / "trap.ckpt", "nothing was executed")
    assert not trap.exists()
    torch.load(tmp_path / "trap.ckpt", weights_only=False)
    assert trap.exists(), "the trap works where classes are trusted"


def test_pickles_in_a_description_stay_texts(tmp_path: Path, content: Content) -> None:
    trap = tmp_path / "sprung"
    pickled = pickle.dumps(Trap(trap), 0).decode()
    save_checkpoint({**content, "extra": pickled}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["extra"] == pickled
    assert not trap.exists()


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("1" * 100_000, ""),
        ('{"format":4', "damaged"),
        ('{"format":4,"config":{"$tensor":"absent"}}', "damaged"),
        ('{"format":4,"config":NaN,"targets":[],"elements":[],"state_dict":{}}', "its config"),
        (
            '{"format":4,"config":{},"targets":[],"elements":[],"state_dict":{"a":{"$float":"1"}}}',
            "its state_dict is not a dict of tensors",
        ),
    ],
)
def test_a_hostile_description_is_refused(text: str, part: str, tmp_path: Path) -> None:
    assert part in refusal(load_checkpoint, write(tmp_path / "a.ckpt", text))


def test_a_large_description_is_refused(tmp_path: Path, content: Content) -> None:
    save_checkpoint(content, tmp_path / "a.ckpt")
    small = Limits(description_bytes=100)
    assert "its header has" in refusal(
        lambda path: load_checkpoint(path, small), tmp_path / "a.ckpt"
    )


@pytest.mark.usefixtures("little_memory")
def test_a_tensor_that_is_named_over_and_over_is_refused(tmp_path: Path, content: Content) -> None:
    state = {str(i): {"$tensor": "a"} for i in range(100)}
    text, tensors = split_tree({**content, "state_dict": {}})
    described = json.dumps({**json.loads(text), "state_dict": state})
    path = write(tmp_path / "a.ckpt", described, {**tensors, "a": torch.ones(10_000)})
    refused(path, "larger than the file")


@pytest.mark.parametrize(
    "target", ["os.system", "csgcnn.config.os.system", "torch.optim.os.system", "builtins.eval"]
)
@pytest.mark.parametrize("part", ["model", "edge_calculator", "node_features", "pooling"])
def test_a_target_outside_csgcnn_is_refused(
    target: str, part: str, tmp_path: Path, content: Content
) -> None:
    trap = tmp_path / "sprung"
    content["config"][part] = {"_target_": target, "command": f"touch {trap}"}
    save_checkpoint(content, tmp_path / "trap.ckpt")
    with pytest.raises(UserError, match=r"refused|plugins=\["):
        load(tmp_path / "trap.ckpt")
    assert not trap.exists()


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


def test_a_checkpoint_that_contradicts_itself_is_refused(tmp_path: Path, content: Content) -> None:
    config, state = content["config"], content["state_dict"]
    changes: list[Content] = [
        {"state_dict": dict(list(state.items())[1:])},
        {"targets": content["targets"] * 2},
        {"config": {name: value for name, value in config.items() if name != "graph"}},
        {"config": {name: value for name, value in config.items() if name != "model"}},
    ]
    for change in changes:
        save_checkpoint(content | change, tmp_path / "a.ckpt")
        refused(tmp_path / "a.ckpt", "configuration")


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


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(position=st.floats(0, 1), byte=st.integers(0, 255), n_cut=st.integers(0, 40))
def test_a_changed_file_is_a_model_or_refused(
    position: float, byte: int, n_cut: int, tmp_path: Path
) -> None:
    whole = STORED.read_bytes()
    i = int(position**3 * len(whole))  # most changes in the header
    (tmp_path / "a.ckpt").write_bytes(whole[:i] + bytes([byte]) + whole[i + n_cut :])
    with suppress(UserError):
        load(tmp_path / "a.ckpt")
