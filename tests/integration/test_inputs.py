"""Test trainings with inputs beside the structure: a temperature and a functional."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import Answer

import csgcnn as package
from csgcnn.cli.overrides import canonical
from csgcnn.commands.predict import predict
from csgcnn.config.compose import compose
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.screening.partial_table import PartialTable

Command = Callable[..., Answer]
Table = Callable[[Path], list[dict[str, str]]]
INPUTS = "dataset.inputs=[temperature,functional]"


@pytest.fixture(scope="module")
def conditions(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty crystals at three temperatures by two methods, two records of which lack an input."""
    rows = [
        {
            "id": f"{record['material_id']}-{temperature}",
            "crystal_structure": record["crystal_structure"],
            "gap": record["band_gap"] - temperature / 300,
            "temperature": temperature,
            "functional": ("pbe", "hse")[(number + temperature // 100) % 2],
        }
        for number, record in enumerate(records[:20])
        for temperature in (100, 200, 300)
    ]
    rows[4]["temperature"], rows[9]["functional"] = "cold", None
    path = tmp_path_factory.mktemp("conditions") / "conditions.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def trained(
    csgcnn: Command, small: list[str], conditions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with inputs at the head, and an ensemble with a state, in one folder."""
    folder = tmp_path_factory.mktemp("inputs")
    words = [*small, f"dataset.path={conditions}", INPUTS, "dataset.on_error=skip"]
    words += ["dataset.targets=[gap]", "dataset.units={}"]
    for name, more in (("head", []), ("state", ["model.inputs=state", "ensemble=2"])):
        epochs = "trainer.max_epochs=1"
        answer = csgcnn("train", *words, *more, epochs, f"hydra.run.dir={name}", cwd=folder)
        assert answer.code == 0, answer.said
    return folder


@pytest.mark.parametrize("name", ["head", "state"])
def test_predictions_of_a_table_are_those_of_the_training(
    csgcnn: Command, trained: Path, conditions: Path, table: Table, tmp_path: Path, name: str
) -> None:
    assert csgcnn("build", f"dataset.path={conditions}", "output=built", cwd=tmp_path).code == 0
    for structures in (conditions, "built"):
        words = [f"ckpt={trained / name}", f"structures={structures}", "output=x.csv"]
        more = ["on_error=skip", "overwrite=true"]
        answer = csgcnn("predict", *words, *more, cwd=tmp_path)
        assert answer.code == 0, answer.said
        predicted = {row["id"]: row for row in table(tmp_path / "x.csv")}
        assert len(predicted) == 58
        for row in table(trained / name / "predictions.csv"):
            value = float(predicted[row["id"]]["gap"])
            assert value == pytest.approx(float(row["gap_prediction"]), rel=1e-4, abs=1e-5)
            assert predicted[row["id"]]["temperature"] == row["id"].rpartition("-")[2]
        reasons = [row["reason"] for row in table(tmp_path / "x.rejected.csv")]
        assert reasons == [
            "temperature is 'cold', expected a number, an input of the model",
            "functional is missing, expected one of hse, pbe, an input of the model",
        ]


def test_all_records_of_a_crystal_are_in_one_part(trained: Path) -> None:
    parts = json.loads((trained / "head" / "splits.json").read_text())
    crystals = [{id_.rpartition("-")[0] for id_ in ids} for ids in parts.values()]
    assert sum(map(len, crystals)) == len(set.union(*crystals)) == 20
    assert (
        json.loads((trained / "head" / "metrics.json").read_text())["duplicates_across_splits"] == 0
    )


def test_a_range_gives_a_curve(
    csgcnn: Command, trained: Path, cifs: Path, table: Table, tmp_path: Path
) -> None:
    words = [f"ckpt={trained / 'state'}", f"structures={cifs}", "inputs.functional=hse"]
    words += ["output=x.csv", "inputs.temperature=100:300:50"]
    answer = csgcnn("predict", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "x.csv")
    assert "4 structures predicted: " in answer.said
    assert [row["temperature"] for row in rows] == ["100", "150", "200", "250", "300"] * 4
    assert len({row["gap"] for row in rows[:5]}) == 5
    model = package.load(trained / "state")
    given = {"temperature": "100:300:50", "functional": "hse"}
    frame = model.predict([f"{path}" for path in sorted(cifs.glob("*.cif"))], given, as_frame=True)
    assert frame.columns[:3].tolist() == ["temperature", "functional", "gap"]
    np.testing.assert_allclose(frame["gap"], [float(row["gap"]) for row in rows], rtol=1e-5)


def test_an_interrupted_curve_is_resumed(
    csgcnn: Command, trained: Path, cifs: Path, table: Table, tmp_path: Path
) -> None:
    def run(structures: str, **more: Any) -> None:
        words = [f"ckpt={trained / 'head'}", f"structures={structures}", f"output={tmp_path}/x.csv"]
        words += ["inputs.functional=all", "inputs.temperature=[100,300]", "workers=1"]
        words += [f"{key}={value}" for key, value in more.items()]
        predict(compose("predict", canonical("predict", words)), chunk_size=1)

    run(f"{cifs}/*.cif")
    whole = (tmp_path / "x.csv").read_bytes()
    assert len(table(tmp_path / "x.csv")) == 16
    (tmp_path / "x.csv").unlink()
    partial = tmp_path / "x.csv.partial"
    with pytest.MonkeyPatch.context() as patch:
        add = PartialTable.add

        def stopped(self: PartialTable, part: Any) -> None:
            if self.n_records == 2:
                raise KeyboardInterrupt
            add(self, part)

        patch.setattr(PartialTable, "add", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(f"{cifs}/*.cif")
    assert partial.exists()
    run(f"{cifs}/*.cif", resume="true")
    assert (tmp_path / "x.csv").read_bytes() == whole


def test_evaluate_reads_the_inputs(csgcnn: Command, trained: Path, conditions: Path) -> None:
    metrics = json.loads((trained / "head" / "metrics.json").read_text())["test"]["gap"]
    words = ["ckpt=head", f"dataset.path={conditions}", "dataset.on_error=skip", "split=test"]
    answer = csgcnn("evaluate", *words, "check_invariance=true", cwd=trained)
    assert answer.code == 0, answer.said
    assert f"MAE of gap: {metrics['mae']:.4g}" in answer.said
    assert "largest change of gap by rotation" in answer.said


def test_python_predicts_with_inputs(trained: Path, records: list[dict[str, Any]]) -> None:
    model = package.load(trained / "head")
    assert model.inputs == ["temperature", "functional"]
    structures = [record["crystal_structure"] for record in records[:2]]
    both = {"temperature": [100.0, 300.0], "functional": ["pbe", "hse"]}
    low, high = model.predict(structures, both)
    (again,) = model.predict(structures[1], {"temperature": 300, "functional": "hse"})
    np.testing.assert_allclose(again, high, rtol=1e-5)
    curve = model.predict(structures, {"temperature": "100:300:100", "functional": "all"})
    assert curve.shape == (12, 1)
    np.testing.assert_allclose(curve[[1, 10]], [low, high], rtol=1e-5)
    with pytest.raises(package.StructureError, match="functional is missing, expected one of hse"):
        model.predict(structures, {"temperature": 300})
    with pytest.raises(
        package.UserError, match=r"inputs.functional=scan: expected one of hse, pbe"
    ):
        model.predict(structures, {"temperature": 300, "functional": "scan"})


def test_the_checkpoint_holds_the_categories(trained: Path, run: Path) -> None:
    content = load_checkpoint(trained / "state" / "checkpoints" / "best.ckpt")
    assert [tuple(one["categories"]) for one in content["inputs"]] == [(), ("hse", "pbe")]
    assert "inputs" not in load_checkpoint(run / "checkpoints" / "best.ckpt")


def test_a_run_starts_from_the_weights_of_one_with_inputs(
    csgcnn: Command, trained: Path, small: list[str], conditions: Path, tmp_path: Path
) -> None:
    words = [*small, f"dataset.path={conditions}", "dataset.on_error=skip", "trainer.max_epochs=1"]
    words += [f"init_from={trained / 'head'}", "dataset.targets=[gap]"]
    for name, more, message in (
        ("same", [INPUTS], "body and head"),
        ("other", ["dataset.inputs=[temperature]"], "the head is re-initialized: dataset.inputs"),
        ("state", [INPUTS, "model.inputs=state"], "model.inputs=head (here state)"),
    ):
        answer = csgcnn("train", *words, *more, f"hydra.run.dir={name}", cwd=tmp_path)
        assert message in answer.said, answer.said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "temperature is 'cold', expected a number"),
        (["dataset.inputs=[tempreature]"], "no such column; the columns are"),
        (["dataset.inputs=[gap]"], "dataset.inputs=[gap] is a target"),
        (
            ["dataset.inputs=[id_]", "dataset.derived.id_=gap*0"],
            "has one value in all training rows",
        ),
        (["dataset.inputs=null", "model.inputs=state"], "model.inputs=state needs dataset.inputs"),
        (["head=gp"], "a kernel head does not read dataset.inputs"),
        (["dataset.split.duplicates=ignore"], "duplicates=ignore has no effect with"),
    ],
)
def test_what_cannot_be_an_input_is_refused(
    words: list[str],
    message: str,
    csgcnn: Command,
    small: list[str],
    conditions: Path,
    tmp_path: Path,
) -> None:
    own = [f"dataset.path={conditions}", "dataset.targets=[gap]", INPUTS]
    keys = {word.partition("=")[0] for word in words}
    own = [word for word in own if word.partition("=")[0] not in keys]
    answer = csgcnn("train", *small, *own, *words, cwd=tmp_path)
    assert answer.code in (1, 2)
    assert message in answer.err, answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a number, an input of the model"),
        (["inputs.temp=300"], "inputs.temp: the model has no such input"),
        (["inputs.temperature=warm"], "inputs.temperature=warm: expected a number"),
        (["inputs.temperature=300:100:50"], "expected start:stop:step"),
        (["inputs.functional=scan"], "inputs.functional=scan: expected one of hse, pbe"),
    ],
)
def test_missing_and_unknown_inputs_of_a_prediction_are_refused(
    words: list[str], message: str, csgcnn: Command, trained: Path, cifs: Path, tmp_path: Path
) -> None:
    answer = csgcnn(
        "predict", f"ckpt={trained / 'head'}", f"structures={cifs}", *words, cwd=tmp_path
    )
    assert answer.code in (1, 2)
    assert message in answer.said, answer.said


def test_a_model_without_inputs_refuses_them(
    csgcnn: Command, run: Path, cifs: Path, tmp_path: Path
) -> None:
    words = [f"ckpt={run}", f"structures={cifs}", "inputs.temperature=300"]
    answer = csgcnn("predict", *words, cwd=tmp_path)
    assert answer.code in (1, 2)
    assert "inputs.temperature has no effect on this model, which reads no inputs" in answer.said
