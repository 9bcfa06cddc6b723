"""Trainings with the site features of potentials, from the command line."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coordination import Coordination

from csgcnn import load
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]

PLUGIN = "plugins=[coordination]"
FEATURE = (
    "+node_features.coordination={_target_:csgcnn.nn.node_features.SiteFeatures,"
    "potential:coordination,dim:4}"
)
GAP = "band_gap_prediction [eV]"


@pytest.fixture(scope="module")
def run(csgcnn: Command, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network reads the features of a plugin's potential."""
    folder = tmp_path_factory.mktemp("site_features")
    answer = csgcnn("train", *small, PLUGIN, FEATURE, "hydra.run.dir=run", cwd=folder)
    assert answer.code == 0, answer.said
    return folder / "run"


def test_the_checkpoint_names_potential_version_and_weights(run: Path) -> None:
    config = load_checkpoint(run / "checkpoints" / "best.ckpt")["config"]
    weights = Coordination.weights_hash[:12]
    assert config["graph"]["site_features"] == [f"coordination {np.__version__} {weights}"]
    assert config["graph"]["site_features"][0] in (run / "config.yaml").read_text()


def test_predictions_compute_the_features_themselves(
    run: Path, records: list[dict[str, Any]], table: Table
) -> None:
    rows = {row["id"]: float(row[GAP]) for row in table(run / "predictions.csv")}
    known = [record for record in records if record["material_id"] in rows]
    model = load(run, plugins=["coordination"])
    values = model.predict([record["crystal_structure"] for record in known])
    expected = [rows[record["material_id"]] for record in known]
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-4, atol=1e-4)
    one = model.predict(known[0]["crystal_structure"])
    np.testing.assert_allclose(one[0], values[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("potential", "reason"),
    [
        ("coordination 0.1 e3b0c44298fc", "of coordination 0.1 (weights e3b0c44298fc) are needed"),
        ("unheard-of 1.0 0123456789ab", "there is no potential unheard-of"),
    ],
)
def test_models_of_other_potentials_are_refused_by_name(
    potential: str, reason: str, run: Path, csgcnn: Command, data_file: Path, tmp_path: Path
) -> None:
    content = load_checkpoint(run / "checkpoints" / "best.ckpt")
    content["config"]["graph"]["site_features"] = [potential]
    save_checkpoint(content, tmp_path / "other.ckpt")
    words = ["ckpt=other.ckpt", f"structures={data_file}", PLUGIN]
    answer = csgcnn("predict", *words, cwd=tmp_path)
    assert answer.code == 1, answer.said
    assert reason in answer.err
    assert "its own configuration" not in answer.err


def test_other_graphs_of_the_same_crystals_take_known_features(
    run: Path, csgcnn: Command, small: list[str]
) -> None:
    Coordination.computed.clear()
    words = [*small, PLUGIN, FEATURE, "hydra.run.dir=other", "graph.cutoff=6", "model=csgcnn"]
    answer = csgcnn("train", *words, cwd=run.parent)
    assert answer.code == 0, answer.said
    assert not Coordination.computed


def test_built_graphs_hold_the_features(
    run: Path, csgcnn: Command, small: list[str], data_file: Path, tmp_path: Path
) -> None:
    words = [f"dataset.path={data_file}", "output=graphs", "graph.site_features=coordination"]
    answer = csgcnn("build", PLUGIN, *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    settings = json.loads((tmp_path / "graphs" / "meta.json").read_text())["settings"]
    assert settings["site_features"][0].startswith("coordination ")
    others = [word for word in small if not word.startswith("dataset.path=")]
    words = [*others, "dataset.path=graphs", PLUGIN, FEATURE, "hydra.run.dir=run"]
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    one, other = (json.loads((at / "metrics.json").read_text()) for at in (run, tmp_path / "run"))
    assert one["test"] == other["test"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["graph.site_features=sevenet"], "there is no potential sevenet; did you mean sevennet"),
        ([PLUGIN, FEATURE, "graph.site_layers=[1,9]"], "has the layers 1 to 2, and no layer 9"),
        ([PLUGIN, FEATURE, "graph.site_layers=[0]"], "expected integers from 1"),
        (
            ["graph.site_layers=[1]"],
            "graph.site_layers=[1] needs graph.site_features or a node feature",
        ),
    ],
)
def test_wrong_choices_are_refused(
    words: list[str], reason: str, csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, *words, cwd=tmp_path)
    assert answer.code == 2, answer.said
    assert reason in answer.err


@pytest.mark.slow
def test_a_resumed_training_is_that_of_an_uninterrupted_one(
    run: Path, csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    words = [*small, PLUGIN, FEATURE, "hydra.run.dir=run"]
    answer = csgcnn("train", *words, "trainer.max_minutes=1e-9", cwd=tmp_path)
    assert answer.code == 75, answer.said
    answer = csgcnn("train", "resume=run", "trainer.max_minutes=null", PLUGIN, cwd=tmp_path)
    assert answer.code == 0, answer.said
    one, other = ((folder / "predictions.csv").read_text() for folder in (run, tmp_path / "run"))
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("potential", ["sevennet", "chgnet"])
def test_the_potentials_that_come_with_extras_train_and_predict(
    potential: str, csgcnn: Command, small: list[str], records: list[dict[str, Any]], tmp_path: Path
) -> None:
    package = {"sevennet": "sevenn", "chgnet": "chgnet"}[potential]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the extra csgcnn[{potential}]")
    words = [*small, f"node_features=[atom_init,{potential}]", "hydra.run.dir=run"]
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    model = load(tmp_path / "run")
    crystals = [record["crystal_structure"] for record in records[:2]]
    together = model.predict(crystals)
    apart = np.concatenate([model.predict(crystal) for crystal in crystals])
    np.testing.assert_allclose(together, apart, rtol=1e-3, atol=1e-3)
