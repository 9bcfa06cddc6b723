import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csgcnn import load

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
GAP = "band_gap [eV]"


@pytest.fixture
def ckpt(run: Path, tmp_path: Path) -> Path:
    """The checkpoint alone, in an otherwise empty directory."""
    return Path(shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "a=b (1).ckpt"))


def predicted(path: Path, table: Table) -> dict[str, float]:
    return {row["id"]: float(row[GAP]) for row in table(path)}


def test_every_way_to_name_structures(
    csgcnn: Command,
    ckpt: Path,
    cifs: Path,
    data_file: Path,
    run: Path,
    tmp_path: Path,
    table: Table,
) -> None:
    def predictions(structures: object) -> dict[str, float]:
        answer = csgcnn(
            "predict",
            f"ckpt={ckpt.name}",
            f"structures={structures}",
            "overwrite=true",
            cwd=tmp_path,
        )
        assert answer.code == 0, answer.said
        assert sorted(path.name for path in tmp_path.iterdir()) == [ckpt.name, "predictions.csv"]
        return predicted(tmp_path / "predictions.csv", table)

    of_folder = predictions(cifs)
    names = sorted(path.stem for path in cifs.iterdir())
    assert sorted(of_folder) == names
    assert len(set(of_folder.values())) == len(names)
    assert predictions(cifs / f"{names[0]}.cif") == {names[0]: of_folder[names[0]]}
    assert predictions(cifs / "*.cif") == pytest.approx(of_folder, abs=1e-5)
    listed = ",".join(str(cifs / f"{name}.cif") for name in names[:2])
    assert predictions(f"[{listed}]") == pytest.approx(
        {name: of_folder[name] for name in names[:2]}, abs=1e-5
    )

    of_data = predictions(data_file)
    assert len(of_data) == 60
    assert {name: of_data[name] for name in names} == pytest.approx(of_folder, abs=1e-3), (
        "a CIF has few digits"
    )
    in_training = {
        row["id"]: float(row["band_gap_prediction [eV]"]) for row in table(run / "predictions.csv")
    }
    assert {name: of_data[name] for name in in_training} == pytest.approx(in_training, abs=1e-4)


def test_from_python(csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path, table: Table) -> None:
    from pymatgen.core import Structure

    csgcnn("predict", f"ckpt={ckpt}", f"structures={cifs}", cwd=tmp_path)
    expected = predicted(tmp_path / "predictions.csv", table)
    model, files = load(ckpt), [cifs / f"{name}.cif" for name in expected]
    assert (model.names, model.units) == (["band_gap"], ["eV"])
    for structures in (
        files,
        [str(file) for file in files],
        [Structure.from_file(file) for file in files],
    ):
        values = model.predict(structures)
        assert values.shape == (len(files), 1)
        np.testing.assert_allclose(values[:, 0], list(expected.values()), atol=1e-4)


def test_bad_structures_among_good_ones(
    csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path, table: Table
) -> None:
    folder = Path(shutil.copytree(cifs, tmp_path / "mixed"))
    good = sorted(folder.iterdir())[0].read_text()
    (folder / "broken.cif").write_text(good[:200])
    element = good.split("loop_")[-1].split()[-7]
    (folder / "unknown.cif").write_text(good.replace(f" {element} ", " Xx "))
    words = ("predict", f"ckpt={ckpt}", f"structures={folder}", "output=out.csv", "overwrite=true")
    for on_error, code in (("raise", 1), ("skip", 0)):
        answer = csgcnn(*words, f"on_error={on_error}", cwd=tmp_path)
        assert answer.code == code, answer.said
        assert "Traceback" not in answer.said
        assert "out.rejected.csv" in answer.said
        rejected = {row["id"]: row["reason"] for row in table(tmp_path / "out.rejected.csv")}
        assert rejected.keys() == {"broken", "unknown"}
        assert "broken.cif" in rejected["broken"]
        assert len(predicted(tmp_path / "out.csv", table)) == 4
    (folder / "broken.cif").unlink()
    (folder / "unknown.cif").unlink()
    assert csgcnn(*words, cwd=tmp_path).code == 0
    assert not (tmp_path / "out.rejected.csv").exists(), "it is of the run before"


def test_elements_never_seen_are_told(csgcnn: Command, ckpt: Path, tmp_path: Path) -> None:
    crystal = {
        "lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
        "species": ["Pu"],
        "frac_coords": [[0, 0, 0]],
    }
    (tmp_path / "plutonium.json").write_text(json.dumps(crystal))
    answer = csgcnn("predict", f"ckpt={ckpt}", "structures=plutonium.json", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "not in the training set" in answer.said
    assert "Pu (first in plutonium)" in answer.said


def test_evaluate_is_the_test_pass_of_the_run(
    csgcnn: Command, ckpt: Path, run: Path, data_file: Path, tmp_path: Path, table: Table
) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["test"]["band_gap"]
    words = (
        "evaluate",
        f"ckpt={ckpt}",
        "dataset=dielectric",
        f"dataset.path={data_file}",
        "output=errors.csv",
    )
    answer = csgcnn(*words, "split=test", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert f"MAE of band_gap: {metrics['mae']:.4g} eV" in answer.out
    assert "6 crystals" in answer.out
    in_run = {row["id"]: row for row in table(run / "predictions.csv") if row["split"] == "test"}
    for row in table(tmp_path / "errors.csv"):
        for column in (GAP, "band_gap_prediction [eV]"):
            assert float(row[column]) == pytest.approx(float(in_run[row["id"]][column]), abs=1e-5)

    answer = csgcnn(*words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "errors.csv")
    mae = np.mean([abs(float(row[GAP]) - float(row["band_gap_prediction [eV]"])) for row in rows])
    assert "60 crystals" in answer.out
    told = float(answer.out.split("MAE of band_gap: ")[1].split()[0])
    assert told == pytest.approx(mae, rel=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ckpt.name, "errors.csv"])


@pytest.mark.parametrize(
    ("words", "culprits"),
    [
        (["ckpt=absent.ckpt", "structures=."], ["absent.ckpt", "no such file"]),
        (["ckpt=cut.ckpt", "structures=."], ["cut.ckpt", "truncated"]),
        (["ckpt={ckpt}", "structures=nowhere"], ["nowhere", "no such file"]),
        (["ckpt={ckpt}", "structures=empty"], ["empty", "no structure file"]),
        (["ckpt={ckpt}", "structures={cifs}", "output=no/where.csv"], ["no/where.csv"]),
    ],
)
def test_what_cannot_be_predicted(
    words: list[str], culprits: list[str], csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.ckpt").write_bytes(ckpt.read_bytes()[:-2000])
    (tmp_path / "empty").mkdir()
    for earlier in ("predictions.csv", "predictions.rejected.csv"):
        (tmp_path / earlier).write_text("of an earlier run")
    given = [word.format(ckpt=ckpt, cifs=cifs) for word in words]
    answer = csgcnn("predict", *given, "overwrite=true", cwd=tmp_path)
    assert answer.code == 1
    assert all(culprit in answer.err for culprit in culprits), answer.err
    assert "Traceback" not in answer.said

    for earlier in ("predictions.csv", "predictions.rejected.csv"):
        assert (tmp_path / earlier).read_text() == "of an earlier run"


def test_evaluate_takes_the_rows_of_the_training_not_those_of_the_default_split(
    csgcnn: Command, small: list[str], data_file: Path, tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, "dataset.split.seed=7", "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["band_gap"]
    words = ["ckpt=run/checkpoints/best.ckpt", "dataset=dielectric", f"dataset.path={data_file}"]
    assert (
        f"MAE of band_gap: {metrics['mae']:.4g} eV"
        in csgcnn("evaluate", *words, "split=test", cwd=tmp_path).out
    )
    assert (
        "48 of these crystals were in the training set"
        in csgcnn("evaluate", *words, cwd=tmp_path).said
    )


def test_tables_cannot_be_written_where_there_is_no_folder(
    csgcnn: Command, ckpt: Path, data_file: Path, tmp_path: Path
) -> None:
    evaluate = ["evaluate", f"ckpt={ckpt}", "dataset=dielectric", f"dataset.path={data_file}"]
    for words in (evaluate, ["predict", f"ckpt={ckpt}", f"structures={data_file}"]):
        answer = csgcnn(*words, "output=nowhere/table.csv", cwd=tmp_path)
        assert answer.code == 1
        assert "nowhere" in answer.err
        assert "Traceback" not in answer.said


def test_evaluate_measures_against_what_the_run_did(
    csgcnn: Command, ckpt: Path, run: Path, data_file: Path, tmp_path: Path
) -> None:
    baseline = json.loads((run / "metrics.json").read_text())["baseline_test_mae"]["band_gap"]
    words = ["evaluate", "dataset=dielectric", f"dataset.path={data_file}", "split=test"]
    assert (
        f"(predicting the mean: {baseline:.4g} eV)"
        in csgcnn(*words, f"ckpt={ckpt}", cwd=tmp_path).out
    )


def test_a_checkpoint_that_does_not_say_its_split_is_not_guessed(
    csgcnn: Command, data_file: Path, tmp_path: Path
) -> None:
    old = Path(__file__).parents[1] / "runs" / "format_1.ckpt"
    words = ["evaluate", "dataset=dielectric", f"dataset.path={data_file}", f"ckpt={old}"]
    answer = csgcnn(*words, "split=test", cwd=tmp_path)
    assert answer.code == 1
    assert "does not name these crystals" in answer.err
    assert csgcnn(*words, cwd=tmp_path).code == 0
