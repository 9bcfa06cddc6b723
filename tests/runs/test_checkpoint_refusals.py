"""Test that damaged and hostile checkpoints of all formats are refused."""

import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoint_files import FORMAT_1, STORED, Content, Trap, refused, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refusal

from csgcnn import load
from csgcnn.errors import UserError
from csgcnn.runs.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from csgcnn.runs.tensor_tree import split_tree
from csgcnn.runs.untrusted import Limits


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
    refused(tmp_path, "the folder holds no run with checkpoints/best.ckpt")
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


@pytest.mark.parametrize(
    "domain",
    [
        7,
        {},
        {"pairs": [[1, 2]], "ranges": {}},
        {"pairs": [[1]], "ranges": {}, "isolated_atoms": True},
        {"pairs": [[1, 101]], "ranges": {}, "isolated_atoms": True},
        {"pairs": [], "ranges": {"a": [1]}, "isolated_atoms": True},
        {"pairs": [], "ranges": {"a": ["1", 2]}, "isolated_atoms": True},
        {"pairs": [], "ranges": {"a": [1.0, float("nan")]}, "isolated_atoms": True},
        {"pairs": [], "ranges": {"\x1b[31m": [1, 2]}, "isolated_atoms": True},
        {"pairs": [], "ranges": {}, "isolated_atoms": 1},
    ],
)
def test_a_malformed_domain_is_refused(domain: Any, tmp_path: Path, content: Content) -> None:
    save_checkpoint({**content, "domain": domain}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "its domain is not pairs of elements, ranges")


@pytest.mark.parametrize("change", [{"transform": []}, {"classes": [[]]}, {"unit": {}, "grid": 1}])
def test_a_malformed_target_is_refused(change: Content, tmp_path: Path, content: Content) -> None:
    targets = [target | change for target in content["targets"]]
    save_checkpoint({**content, "targets": targets}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "its targets is not a list of targets")


def test_a_mean_of_global_features_of_another_type_is_refused(
    tmp_path: Path, content: Content
) -> None:
    name = "global_features.mean"
    state = {**content["state_dict"], name: torch.ones(2, dtype=torch.int64)}
    write(tmp_path / "a.ckpt", *split_tree({**content, "state_dict": state}))
    refused(tmp_path / "a.ckpt", "do not fit its own configuration")
