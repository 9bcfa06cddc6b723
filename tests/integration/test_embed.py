"""csgcnn embed, csgcnn.embed, and the nearest training crystals of predictions."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure

import csgcnn as package
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

Command = Callable[..., Any]
NEAREST = ["nearest_id", "nearest_distance", "nearest_percentile"]


@pytest.fixture(scope="module")
def ckpt(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def structures(records: list[dict[str, Any]]) -> list[Structure]:
    return [Structure.from_dict(as_dict(record)) for record in records]


def as_dict(record: dict[str, Any]) -> dict[str, Any]:
    crystal = record["crystal_structure"]
    return Structure(crystal["lattice"], crystal["species"], crystal["frac_coords"]).as_dict()


def test_predictions_name_the_nearest_training_crystal(
    ckpt: Path, structures: list[Structure], records: list[dict[str, Any]]
) -> None:
    model = package.load(ckpt)
    frame = model.predict(structures, as_frame=True)
    train = set(load_checkpoint(ckpt)["split"]["train"])
    is_train = np.array([record["material_id"] in train for record in records])
    ids = np.array([record["material_id"] for record in records])
    # two of the training crystals are equal
    assert (frame["nearest_id"][is_train] == ids[is_train]).sum() >= is_train.sum() - 2
    assert frame["nearest_distance"][is_train].max() < 0.01
    assert set(frame["nearest_id"]) <= train
    assert frame["nearest_distance"][~is_train].median() > 1
    assert frame["nearest_percentile"].between(0, 100).all()


def test_a_crystal_far_from_the_training_set_is_marked(ckpt: Path, tmp_path: Path) -> None:
    content = load_checkpoint(ckpt)
    content["embeddings"]["percentiles"] *= 0.1
    save_checkpoint(content, tmp_path / "a.ckpt")
    far = Structure([[2.2, 0, 0], [0, 2.2, 0], [0, 0, 2.2]], ["I"], [[0, 0, 0]])
    with pytest.warns(package.DataWarning, match="far_from_training: 1 prediction may be far off"):
        frame = package.load(tmp_path / "a.ckpt").predict([far], as_frame=True)
    assert "far_from_training:" in frame["out_of_domain"][0]
    assert frame["nearest_percentile"][0] == 100


def test_embeddings_are_an_optional_part_of_a_checkpoint(
    csgcnn: Command, small: list[str], ckpt: Path, structures: list[Structure], tmp_path: Path
) -> None:
    words = ["trainer.store_embeddings=false", "hydra.run.dir=without"]
    answer = csgcnn("train", *small, *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    without = tmp_path / "without" / "checkpoints" / "best.ckpt"
    assert "embeddings" not in load_checkpoint(without)
    one, other = (package.load(path).predict(structures, as_frame=True) for path in (ckpt, without))
    assert [name for name in one if name not in other] == NEAREST
    pd.testing.assert_series_equal(one["band_gap [eV]"], other["band_gap [eV]"], check_exact=True)
    content = load_checkpoint(ckpt)
    content["embeddings"]["mean"] = content["embeddings"]["mean"][:3]
    save_checkpoint(content, tmp_path / "damaged.ckpt")
    with pytest.raises(package.UserError, match="its embeddings is not embeddings of crystals"):
        package.load(tmp_path / "damaged.ckpt")
    for name in ("mean", "scale"):
        content["embeddings"][name] = content["embeddings"]["percentiles"][:3].clone()
    content["embeddings"]["vectors"] = content["embeddings"]["vectors"][:, :3].contiguous()
    save_checkpoint(content, tmp_path / "narrow.ckpt")
    with pytest.raises(package.UserError, match="its embeddings have 3 features, not 16"):
        package.load(tmp_path / "narrow.ckpt")


def test_a_file_of_vectors_and_a_map(
    csgcnn: Command, ckpt: Path, data_file: Path, tmp_path: Path
) -> None:
    words = [f"ckpt={ckpt}", f"structures={data_file}", "sites=true"]
    answer = csgcnn("embed", *words, "map=pca", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "60 structures as vectors of 16 numbers" in answer.said
    with np.load(tmp_path / "embeddings.npz") as arrays:
        found = dict(arrays)
    assert found["vectors"].shape == (60, 16)
    assert found["site_vectors"].shape == (len(found["site_id"]), 16)
    first = found["site_id"] == found["id"][0]
    # the pooling is the mean over the sites
    np.testing.assert_allclose(
        found["site_vectors"][first].mean(0), found["vectors"][0], rtol=1e-4, atol=1e-5
    )
    with open(tmp_path / "embeddings.map.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"id", "x", "y", "band_gap [eV]", "band_gap_error [eV]", "chemistry"} <= {*rows[0]}
    assert {row["chemistry"] for row in rows} >= {"O", "F"}
    page = (tmp_path / "embeddings.map.html").read_text()
    assert "band_gap_error [eV]" in page
    assert "<script src=" not in page
    answer = csgcnn("embed", *words, "output=e.parquet", cwd=tmp_path)
    assert answer.code == 0, answer.said
    crystals, sites = (pd.read_parquet(tmp_path / f"e{s}.parquet") for s in ("", ".sites"))
    assert list(crystals)[:5] == ["id", *NEAREST, "v0"]
    np.testing.assert_array_equal(crystals["v15"], found["vectors"][:, 15])
    assert list(sites)[:4] == ["id", "site", "element", "v0"]


def test_vectors_in_python_are_those_of_the_command(
    csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path
) -> None:
    assert csgcnn("embed", f"ckpt={ckpt}", f"structures={cifs}", cwd=tmp_path).code == 0
    found = package.embed(ckpt, sorted(cifs.glob("*.cif")), sites=True)
    with np.load(tmp_path / "embeddings.npz") as arrays:
        np.testing.assert_allclose(found.vectors, arrays["vectors"], rtol=1e-4, atol=1e-5)
        assert found.prediction.domain["nearest_id"] == arrays["nearest_id"].tolist()
    assert [len(of_crystal) for of_crystal in found.sites] == [
        len(Structure.from_file(path)) for path in sorted(cifs.glob("*.cif"))
    ]


def test_outputs_that_cannot_be_written_are_refused(
    csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path
) -> None:
    words = ["embed", f"ckpt={ckpt}", f"structures={cifs}"]
    (tmp_path / "embeddings.map.csv").touch()
    for more, message in (
        (["output=a.csv"], "ends in .npz or .parquet"),
        (["map=pca"], "embeddings.map.csv exists: give another output="),
        (["map=lda"], "expected pca, tsne or umap"),
        (["output=none/a.npz"], "there is no folder"),
    ):
        answer = csgcnn(*words, *more, cwd=tmp_path)
        assert answer.code in (1, 2), answer.said
        assert message in answer.err, answer.said
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == '["embeddings.map.csv"]'


def test_rejected_structures_are_listed(csgcnn: Command, ckpt: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.cif").write_text("nothing")
    answer = csgcnn("embed", f"ckpt={ckpt}", "structures=bad.cif", cwd=tmp_path)
    assert answer.code == 1, answer.said
    assert (tmp_path / "embeddings.rejected.csv").exists()
    assert not (tmp_path / "embeddings.npz").exists()
