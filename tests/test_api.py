"""The public API, as a notebook uses it."""

import gzip
import json
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

import csgcnn

DATA = Path(__file__).parents[1] / "data" / "dielectric.json.gz"
QUICK: dict[str, Any] = {
    "max_epochs": 1,
    "batch_size": 16,
    "hidden": 8,
    "device": "cpu",
    "threads": 1,
    "workers": 1,
    "progress": False,
    "figures": False,
}


class Atoms:
    """The part of `ase.Atoms` that is read."""

    def __init__(self, structure: Structure, pbc: bool = True) -> None:
        self.structure = structure
        self.pbc = np.array([pbc] * 3)

    def get_cell(self) -> Any:
        return self.structure.lattice.matrix

    def get_chemical_symbols(self) -> list[str]:
        return [str(site.specie) for site in self.structure]

    def get_scaled_positions(self) -> Any:
        return self.structure.frac_coords


def structure_of(crystal: dict[str, Any]) -> Structure:
    return Structure(crystal["lattice"], crystal["species"], crystal["frac_coords"])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Forty small crystals as pymatgen structures, with ids in the index."""
    with gzip.open(DATA, "rt") as file:
        records = [r for r in json.load(file) if len(r["crystal_structure"]["species"]) <= 8][:40]
    structures = [structure_of(record["crystal_structure"]) for record in records]
    ids = [record["material_id"] for record in records]
    gaps = [record["band_gap"] for record in records]
    return pd.DataFrame({"structure": structures, "band_gap": gaps}, index=ids)


@pytest.fixture(scope="module")
def result(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> csgcnn.TrainingResult:
    folder = tmp_path_factory.mktemp("api") / "run"
    with warnings.catch_warnings(action="ignore", category=csgcnn.DataWarning):
        return csgcnn.train(frame, "band_gap", "csgcnn", folder=folder, **QUICK)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import csgcnn, sys; dir(csgcnn); assert not {'torch', 'pymatgen'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_first_prediction_imports_neither_the_compiler_of_torch_nor_pyg(
    result: csgcnn.TrainingResult,
) -> None:
    code = """if True:
        import sys
        import csgcnn
        structure = {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "species": ["K"],
                     "frac_coords": [[0, 0, 0]]}
        print(csgcnn.load(sys.argv[1]).predict([structure]))
        assert not {"torch._dynamo", "torch_geometric", "pandas"} & set(sys.modules)
        """
    subprocess.run([sys.executable, "-c", code, str(result.folder)], check=True)


def test_every_public_name_exists() -> None:
    assert all(getattr(csgcnn, name) for name in csgcnn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = csgcnn.lode  # type: ignore[attr-defined]


def test_training_on_a_frame(result: csgcnn.TrainingResult, frame: pd.DataFrame) -> None:
    table = result.predictions
    test = table[table["split"] == "test"]
    assert set(table["id"]) <= set(frame.index)
    np.testing.assert_allclose(test["band_gap"], frame.loc[test["id"], "band_gap"], rtol=1e-5)
    mae = np.abs(test["band_gap_prediction"] - test["band_gap"]).mean()
    assert result.metrics["test"]["band_gap"]["mae"] == pytest.approx(mae, rel=1e-4)
    with warnings.catch_warnings(action="ignore", category=csgcnn.DataWarning):
        predicted = result.predictor.predict(frame.loc[test["id"], "structure"])[:, 0]
    np.testing.assert_allclose(predicted, test["band_gap_prediction"], rtol=1e-4, atol=1e-4)
    assert "trained 1 epoch" in (result.folder / "train.log").read_text()


def test_a_second_training_in_the_same_process(
    result: csgcnn.TrainingResult,
    frame: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"target": "band_gap", "model": "csgcnn", **QUICK}
    with warnings.catch_warnings(action="ignore", category=csgcnn.DataWarning):
        again = csgcnn.train(frame, **settings, verbose=False)
        other = csgcnn.train(frame, **settings, seed=1, **{"trainer.ema": None})
    assert again.metrics["test"] == result.metrics["test"]
    assert other.metrics["test"] != result.metrics["test"]
    assert again.folder.parent.parent == Path("runs")
    assert capsys.readouterr().out.count("trained 1 epoch") == 1


def test_evaluation_repeats_the_test(result: csgcnn.TrainingResult, frame: pd.DataFrame) -> None:
    ckpt = result.folder / "checkpoints" / "best.ckpt"
    found = csgcnn.evaluate(ckpt, frame, split="test", device="cpu")
    expected = result.metrics["test"]["band_gap"]["mae"]
    assert found.metrics["band_gap"]["mae"] == pytest.approx(expected, rel=1e-5)
    assert len(found.predictions) == result.metrics["n_rows"]["test"]
    with pytest.warns(csgcnn.DataWarning, match="were in the training set"):
        csgcnn.evaluate(ckpt, frame, device="cpu")


def test_every_kind_of_structure_is_predicted_alike(
    result: csgcnn.TrainingResult, frame: pd.DataFrame, tmp_path: Path
) -> None:
    model, column = result.predictor, frame["structure"].iloc[:3]
    (tmp_path / "a.json").write_text(json.dumps(column.iloc[0].as_dict()))
    expected = model.predict(list(column))
    for given in (
        column,
        [Atoms(structure) for structure in column],
        [structure.as_dict() for structure in column],
    ):
        np.testing.assert_allclose(model.predict(given), expected, rtol=1e-5, atol=1e-5)
    for one in (tmp_path / "a.json", str(tmp_path / "a.json"), Atoms(column.iloc[0])):
        np.testing.assert_allclose(model.predict(one), expected[:1], rtol=1e-5, atol=1e-5)
    table = model.predict(column, as_frame=True)
    assert list(table.index) == list(column.index)
    np.testing.assert_allclose(table.iloc[:, 0], expected[:, 0], rtol=1e-6)
    nothing = model.predict([], as_frame=True)
    assert (len(nothing), list(nothing)) == (0, list(table))
    with pytest.raises(csgcnn.StructureError, match=r"structure 0: .* not periodic along a"):
        model.predict(Atoms(column.iloc[0], pbc=False))


def test_unseen_elements_are_warned_of(result: csgcnn.TrainingResult) -> None:
    plutonium = Structure(Lattice.cubic(4), ["Pu"], [[0, 0, 0]])
    with pytest.warns(csgcnn.DataWarning, match=r"Pu \(first in structure 0\)"):
        result.predictor.predict(plutonium)


def test_interrupted_training_is_resumed(
    result: csgcnn.TrainingResult, frame: pd.DataFrame, tmp_path: Path
) -> None:
    folder, settings = tmp_path / "run", {**QUICK, "max_epochs": 500}

    def interrupt() -> None:
        while not (folder / "metrics.csv").exists() and threading.main_thread().is_alive():
            done.wait(0.01)
        signal.raise_signal(signal.SIGINT)

    done = threading.Event()
    watcher = threading.Thread(target=interrupt, daemon=True)
    handler = signal.getsignal(signal.SIGINT)
    watcher.start()
    with (
        warnings.catch_warnings(action="ignore", category=csgcnn.DataWarning),
        pytest.raises(KeyboardInterrupt, match=r"csgcnn\.train\(resume="),
    ):
        csgcnn.train(frame, "band_gap", "csgcnn", folder=folder, **settings)
    assert signal.getsignal(signal.SIGINT) is handler
    n_epochs = len((folder / "metrics.csv").read_text().splitlines()) - 1
    with warnings.catch_warnings(action="ignore", category=csgcnn.DataWarning):
        resumed = csgcnn.train(resume=folder, max_epochs=n_epochs + 1)
    assert resumed.metrics["epochs"] == n_epochs + 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_epoch": 3}, csgcnn.ConfigError, "did you mean max_epochs?"),
        ({"trainer.max_epochss": 3}, csgcnn.ConfigError, "max_epochss"),
        ({"max_epochs": 0}, csgcnn.ConfigError, "max_epochs=0"),
        ({"model": "csgnn"}, csgcnn.ConfigError, "csgnn"),
        ({"dataset": "nowhere.json"}, csgcnn.UserError, "no data at"),
        ({"target": "gap"}, csgcnn.UserError, "gap"),
        ({"max_minutes": 1e-9}, csgcnn.UserError, "was stopped"),
        ({"resume": "nowhere"}, csgcnn.UserError, "there is no run"),
    ],
)
def test_mistakes_raise_user_errors(
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
    frame: pd.DataFrame,
    tmp_path: Path,
) -> None:
    folder = {} if "resume" in arguments else {"folder": tmp_path / "run"}
    given = {"dataset": frame, "target": "band_gap", **QUICK, **folder, **arguments}
    if "resume" in arguments:
        given["dataset"] = None
    with (
        warnings.catch_warnings(action="ignore", category=csgcnn.DataWarning),
        pytest.raises(error, match=message),
    ):
        csgcnn.train(**given)
    if "max_minutes" not in arguments:
        assert not (tmp_path / "run").exists()


def test_a_frame_without_structures_is_refused(tmp_path: Path) -> None:
    numbers = pd.DataFrame({"band_gap": [1.0]})
    with pytest.raises(csgcnn.UserError, match="no column of structures"):
        csgcnn.train(numbers, "band_gap", folder=tmp_path / "run")
