"""Files that are not checkpoints of the original CGCNN are refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_cgcnn import content, original_network

Command = Callable[..., Any]


class Trap:
    """Creates the folder `sprung` where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    def change(whole: dict[str, Any]) -> Any:
        part = whole if key in whole else whole["state_dict"]
        del part[key]
        return whole

    return change


def with_weight(key: str, tensor: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda whole: whole | {"state_dict": whole["state_dict"] | {key: tensor}}


TARGET = ["name=gap", "unit=eV"]

REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str], int, str]] = {
    "a call": (
        lambda whole: whole | {"args": Trap()},
        TARGET,
        1,
        "nothing was executed: it names posix.mkdir",
    ),
    "no name": (lambda whole: whole, [], 2, "add name=… and unit=…"),
    "no unit": (lambda whole: whole, ["name=gap"], 2, "add name=… and unit=…"),
    "no arguments": (without("args"), [], 2, "add name=…"),
    "a list": (
        lambda whole: [whole],
        TARGET,
        1,
        "is not a checkpoint of the original CGCNN: it has no state_dict",
    ),
    "no weights": (without("state_dict"), TARGET, 1, "it has no state_dict"),
    "no statistics": (without("normalizer"), TARGET, 1, "its normalizer has no mean and std"),
    "statistics of two": (
        lambda whole: whole | {"normalizer": {"mean": torch.ones(2), "std": 1.0}},
        TARGET,
        1,
        "mean",
    ),
    "no convolution": (without("convs.0.fc_full.weight"), TARGET, 1, "no convs.0.fc_full.weight"),
    "no bias": (without("convs.1.bn2.bias"), TARGET, 1, "its convs.1.bn2.bias is not [8]"),
    "another model": (
        with_weight("conv.weight\x1b[31m", torch.ones(1)),
        TARGET,
        1,
        "has no 'conv.weight\\x1b[31m'",
    ),
    "another shape": (
        with_weight("fc_out.weight", torch.ones(1, 7)),
        TARGET,
        1,
        "its fc_out.weight is not [1, 6]",
    ),
    "three classes": (
        with_weight("fc_out.bias", torch.ones(3)),
        ["name=a"],
        1,
        "its fc_out.weight is not [2, 6]",
    ),
    "other features": (
        with_weight("embedding.weight", torch.ones(8, 100)),
        TARGET,
        1,
        "it takes 100 atom features",
    ),
    "other Gaussians": (
        with_weight("convs.0.fc_full.weight", torch.ones(16, 67)),
        TARGET,
        1,
        "and 51 Gaussians",
    ),
    "not a number": (
        with_weight("fc_out.bias", torch.tensor([float("nan")])),
        TARGET,
        1,
        "head.out.bias is not finite",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_files_are_refused_with_one_line(what: str, csgcnn: Command, tmp_path: Path) -> None:
    change, overrides, code, answer = REFUSED[what]
    for is_zip in (True, False):
        whole = change(content(original_network(0, 8, 2, 6, 1, 1)))
        torch.save(whole, tmp_path / "a.pth.tar", _use_new_zipfile_serialization=is_zip)
        said = csgcnn("import-cgcnn", "a.pth.tar", *overrides, cwd=tmp_path)
        assert (said.code, answer in said.err) == (code, True), said.said
        assert len(said.err.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["a.pth.tar"]


def test_an_absent_file_and_an_existing_output_are_refused(csgcnn: Command, tmp_path: Path) -> None:
    for name, answer in {
        "absent.pth.tar": "no such file",
        "text": "is not a checkpoint of the original",
    }.items():
        (tmp_path / "text").write_text("id,target\n")
        said = csgcnn("import-cgcnn", name, *TARGET, cwd=tmp_path)
        assert (said.code, answer in said.err) == (1, True), said.said
    torch.save(content(original_network(0, 8, 1, 6, 1, 1)), tmp_path / "a.pth.tar")
    (tmp_path / "a.ckpt").write_text("mine")
    said = csgcnn("import-cgcnn", "a.pth.tar", *TARGET, cwd=tmp_path)
    assert (said.code, "a.ckpt exists: give another output=, or" in said.err) == (2, True)
    assert (tmp_path / "a.ckpt").read_text() == "mine"
    said = csgcnn("import-cgcnn", "a.pth.tar", *TARGET, "overwrite=true", cwd=tmp_path)
    assert said.code == 0, said.said
    assert (tmp_path / "a.ckpt").read_bytes() != b"mine"
