import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from csgcnn import load
from csgcnn.crystals.crystal import to_crystal
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError
from csgcnn.io import replacing
from csgcnn.runs.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from csgcnn.training.trainer import Trainer

# csgcnn train model.hidden=8 model.n_convolutions=1 model.head_hidden=8 edge=rbf edge.n_basis=8 node_features=learned
# node_features.learned.dim=4 trainer.max_epochs=3 trainer.device=cpu
STORED = Path(__file__).with_name("format_1.ckpt")
EXPECTED_OF_STORED = [
    1.799589,
    2.449398,
    1.752008,
]  # eV, of the first three records of data/dielectric.json.gz


class Trap:
    """Creates the file it is given when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.fixture
def content() -> dict[str, Any]:
    """What the stored checkpoint holds."""
    return torch.load(STORED, weights_only=True)


def test_a_stored_checkpoint_of_format_1_predicts_what_it_did(
    records: list[dict[str, Any]],
) -> None:
    model = load(STORED)
    assert (model.names, model.units) == (["band_gap"], ["eV"])
    found = model.predict([record["crystal_structure"] for record in records[:3]])
    np.testing.assert_allclose(found[:, 0], EXPECTED_OF_STORED, atol=1e-4)
    assert repr(model) == "Predictor(band_gap [eV]; 63 elements)"


def test_round_trip_to_the_bit(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    model = trainer().model
    described = {"config": {"a": [1, None, "x"]}, "targets": [], "elements": [1, 8]}
    save_checkpoint({**described, "state_dict": model.state_dict()}, tmp_path / "a.ckpt")
    back = load_checkpoint(tmp_path / "a.ckpt")
    assert back["format"] == FORMAT
    assert {name: back[name] for name in described} == described
    assert list(back["state_dict"]) == list(model.state_dict())
    assert all(
        torch.equal(back["state_dict"][name], value) for name, value in model.state_dict().items()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file(kept: float, tmp_path: Path) -> None:
    whole = STORED.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: int(kept * len(whole))])
    refused(tmp_path / "cut.ckpt", "truncated")


def test_a_damaged_file(tmp_path: Path) -> None:
    damaged = bytearray(STORED.read_bytes())
    damaged[100:400] = bytes(300)
    (tmp_path / "bad.ckpt").write_bytes(damaged)
    refused(tmp_path / "bad.ckpt")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path / "absent.ckpt", "no such file")
    refused(tmp_path)
    (tmp_path / "text.ckpt").write_text("material_id,band_gap\n")
    refused(tmp_path / "text.ckpt", "not a csgcnn checkpoint")
    with zipfile.ZipFile(tmp_path / "zip.ckpt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(tmp_path / "zip.ckpt")
    for i, other in enumerate(
        [{"model": torch.ones(1)}, [1, 2], {"format": 1, "config": {}}, {"format": "1"}]
    ):
        torch.save(other, tmp_path / f"{i}.ckpt")
        refused(tmp_path / f"{i}.ckpt", "not a csgcnn checkpoint")


def test_a_newer_format(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content | {"format": FORMAT + 1, "csgcnn": "9.8.7"}, tmp_path / "new.ckpt")
    refused(tmp_path / "new.ckpt", str(FORMAT + 1), "9.8.7", "update csgcnn")


def test_a_format_that_never_was(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content | {"format": 0}, tmp_path / "old.ckpt")
    refused(tmp_path / "old.ckpt")


@pytest.mark.parametrize("hidden_in", ["config", "state_dict", "extra"])
def test_a_foreign_class_is_refused_and_not_executed(
    hidden_in: str, tmp_path: Path, content: dict[str, Any]
) -> None:
    trap = tmp_path / "sprung"
    torch.save(content | {hidden_in: {"x": Trap(trap)}}, tmp_path / "trap.ckpt")
    refused(tmp_path / "trap.ckpt", "nothing was executed")
    assert not trap.exists()
    torch.load(tmp_path / "trap.ckpt", weights_only=False)
    assert trap.exists(), "the trap works where classes are trusted"


@pytest.mark.parametrize(
    "target", ["os.system", "csgcnn.config.os.system", "torch.optim.os.system", "builtins.eval"]
)
@pytest.mark.parametrize("part", ["model", "edge_calculator", "node_features", "pooling"])
def test_a_foreign_target_in_its_configuration_is_refused(
    target: str, part: str, tmp_path: Path, content: dict[str, Any]
) -> None:
    trap = tmp_path / "sprung"
    content["config"][part] = {"_target_": target, "command": f"touch {trap}"}
    save_checkpoint(content, tmp_path / "trap.ckpt")
    with pytest.raises(UserError, match="refused"):
        load(tmp_path / "trap.ckpt")
    assert not trap.exists()


def test_a_checkpoint_that_contradicts_itself(tmp_path: Path, content: dict[str, Any]) -> None:
    first = next(iter(content["state_dict"]))
    changes: list[dict[str, Any]] = [
        {
            "state_dict": {
                name: tensor for name, tensor in content["state_dict"].items() if name != first
            }
        },
        {"targets": content["targets"] * 2},
        {"config": {name: value for name, value in content["config"].items() if name != "graph"}},
        {"config": {name: value for name, value in content["config"].items() if name != "model"}},
    ]
    for i, change in enumerate(changes):
        save_checkpoint(content | change, tmp_path / f"{i}.ckpt")
        with pytest.raises(UserError, match="configuration"):
            load(tmp_path / f"{i}.ckpt")


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


def test_others_may_read_it(tmp_path: Path) -> None:
    save_checkpoint({}, tmp_path / "a.ckpt")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.ckpt").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_it_predicts_as_the_network_it_was_made_from(
    tmp_path: Path, content: dict[str, Any], store: GraphStore, records: list[dict[str, Any]]
) -> None:
    model = load(STORED)
    content["state_dict"] = {
        name: tensor.clone() for name, tensor in model.network.state_dict().items()
    }
    content["state_dict"]["scaler.mean"] += 1.0
    save_checkpoint(content, tmp_path / "up.ckpt")
    structures = [record["crystal_structure"] for record in records]
    expected: Tensor = torch.from_numpy(model.predict(structures)) + 1.0
    torch.testing.assert_close(
        torch.from_numpy(load(tmp_path / "up.ckpt").predict(structures)), expected
    )
    assert len(to_crystal(structures[0]).atomic_number) > 0
