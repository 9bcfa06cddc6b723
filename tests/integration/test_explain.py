"""`csgcnn explain`, from the command line and from Python."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ase.io
import numpy as np
import pandas as pd
import pytest
import torch

import csgcnn as api

Command = Callable[..., Any]
Record = dict[str, Any]
GAP = "band_gap [eV]"


@pytest.fixture(scope="module")
def folder(
    csgcnn: Command, run: Path, cifs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of an explanation of the four CIF files, with their predictions."""
    home = tmp_path_factory.mktemp("explained")
    for words in (["explain"], ["predict", "output=predictions.csv"]):
        answer = csgcnn(*words, f"ckpt={run}", f"structures={cifs}", cwd=home)
        assert answer.code == 0, answer.said
    (home / "said.txt").write_text(answer.said)
    return home / "explanation"


def test_the_rows_of_a_crystal_add_up_to_its_prediction(folder: Path, run: Path) -> None:
    table = pd.read_csv(folder / "contributions.csv")
    predicted = pd.read_csv(folder.parent / "predictions.csv").set_index("id")[GAP]
    assert list(table["id"].unique()) == list(predicted.index)
    np.testing.assert_allclose(table.groupby("id")[GAP].sum()[predicted.index], predicted, 1e-4)
    assert set(table["part"]) == {"site", "crystal", "reference"}
    assert table[table["part"] == "reference"][GAP].nunique() == 1
    sites = table[table["part"] == "site"]
    elements = pd.read_csv(folder / "elements.csv").set_index(["id", "element"])
    expected = sites.groupby(["id", "element"])[GAP].agg(["sum", "count"]).loc[elements.index]
    np.testing.assert_allclose(elements[GAP], expected["sum"], rtol=1e-5, atol=1e-7)
    assert list(elements["n_sites"]) == list(expected["count"])


def test_sites_are_those_of_the_files_in_their_order(folder: Path, cifs: Path) -> None:
    table, edges = (pd.read_csv(folder / f"{name}.csv") for name in ("contributions", "edges"))
    frames = ase.io.read(folder / "structures.extxyz", index=":")
    for atoms in frames:
        name = atoms.info["id"]
        of_file = ase.io.read(cifs / f"{name}.cif")
        assert atoms.get_chemical_symbols() == of_file.get_chemical_symbols()
        np.testing.assert_allclose(atoms.get_all_distances(mic=True),
                                   of_file.get_all_distances(mic=True), atol=1e-5)  # fmt: skip
        sites = table[(table["id"] == name) & (table["part"] == "site")]
        assert sites["site"].tolist() == [*range(len(atoms))]
        assert sites["element"].tolist() == atoms.get_chemical_symbols()
        np.testing.assert_allclose(atoms.arrays["band_gap_contribution"], sites[GAP], atol=1e-7)
        own = edges[edges["id"] == name]
        shortest = atoms.get_all_distances(mic=True)[own["center"], own["neighbor"]]
        assert (own["distance [Å]"] > shortest - 1e-4).all()
        assert (
            own["center_element"] == np.array(atoms.get_chemical_symbols())[own["center"]]
        ).all()
        attention = own.groupby("center")[["attention_1", "attention_2", "attention_3"]].sum()
        np.testing.assert_allclose(attention, 1, rtol=1e-5)


def test_an_ensemble_explains_its_mean_with_deviations(
    csgcnn: Command, ckpts: list[Path], cifs: Path, tmp_path: Path
) -> None:
    words = (f"ckpt={ckpts[0].parent}/*.ckpt", f"structures={cifs}", "format=parquet")
    answer = csgcnn("explain", *words, "output=of_three", cwd=tmp_path)
    assert answer.code == 0, answer.said
    table = pd.read_parquet(tmp_path / "of_three" / "contributions.parquet")
    each = [api.explain(ckpt, sorted(cifs.iterdir())).contributions[GAP] for ckpt in ckpts]
    ids = [path.stem for path in sorted(cifs.iterdir())]
    assert list(table["id"].unique()) == ids
    np.testing.assert_allclose(table[GAP], np.mean(each, axis=0), rtol=1e-6)
    np.testing.assert_allclose(table["band_gap_std [eV]"], np.std(each, axis=0, ddof=1), rtol=1e-5)
    answer = csgcnn("explain", *words, "output=of_three", cwd=tmp_path)
    assert (answer.code, "overwrite=true to replace" in answer.err) == (2, True)
    answer = csgcnn("explain", *words, "output=of_three", "overwrite=true", cwd=tmp_path)
    assert answer.code == 0, answer.said


def test_unusable_structures_are_listed(
    csgcnn: Command, run: Path, cifs: Path, graph_store: Path, tmp_path: Path
) -> None:
    for path in cifs.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "bad.cif").write_text("data_x")
    words = ("explain", f"ckpt={run}", f"structures={tmp_path}/*.cif")
    answer = csgcnn(*words, cwd=tmp_path)
    assert (answer.code, "1 structure could not be used (bad: " in answer.said) == (1, True)
    assert "bad" in (tmp_path / "explanation" / "rejected.csv").read_text()
    assert csgcnn(*words, "overwrite=true", "on_error=skip", cwd=tmp_path).code == 0
    words = ("explain", f"ckpt={run}", f"structures={graph_store}", "output=other")
    answer = csgcnn(*words, cwd=tmp_path)
    assert (answer.code, "holds built graphs" in answer.err) == (2, True)
    with pytest.raises(api.StructureError, match=r"structure 0: .*bad\.cif"):
        api.explain(api.load(run), tmp_path / "bad.cif")


@pytest.mark.filterwarnings("ignore::csgcnn.DataWarning")
def test_deleting_the_top_site_changes_predictions_more_than_a_random_one(
    run: Path, records: list[Record]
) -> None:
    model, rng = api.load(run), np.random.default_rng(0)
    model.graph = replace(model.graph, compress=False)  # a node for each site
    structures = [r["crystal_structure"] for r in records]
    structures = [one for one in structures if len(one["species"]) > 2][:24]
    found = api.explain(model, structures).contributions
    sites = found[found["part"] == "site"].groupby("id", sort=False)[GAP]
    changes = {"top": 0.0, "random": 0.0}
    for structure, (_, contributions) in zip(structures, sites, strict=True):
        values = contributions.to_numpy()
        chosen = {"top": int(np.abs(values - values.mean()).argmax()),
                  "random": int(rng.integers(len(values)))}  # fmt: skip
        before = model.predict(structure)[0, 0]
        for name, site in chosen.items():
            changes[name] += abs(without_site(model, structure, site) - before)
    assert changes["top"] > 1.2 * changes["random"]


def without_site(model: api.Predictor, structure: Record, site: int) -> float:
    """The prediction if the vector of a site, before any message, is the mean over the crystal."""

    def delete(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        is_site = torch.arange(len(output)) == site
        return torch.where(is_site.unsqueeze(1), output.mean(0), output)

    hook = cast(torch.nn.Module, model.network.embedding).register_forward_hook(delete)
    try:
        return float(model.predict(structure)[0, 0])
    finally:
        hook.remove()
