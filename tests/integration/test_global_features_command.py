import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csgcnn.crystals.descriptors import NAMES, descriptors
from csgcnn.crystals.structures import to_crystal
from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
Record = dict[str, Any]
ALL = list(NAMES)


@pytest.fixture(scope="module")
def informed(csgcnn: Command, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with every global feature."""
    folder = tmp_path_factory.mktemp("informed")
    words = [f"graph.global_features=[{','.join(ALL)}]", "hydra.run.dir=run", "trainer.ema=null"]
    answer = csgcnn("train", *small, *words, cwd=folder)
    assert answer.code == 0, answer.said
    return folder / "run"


def test_a_checkpoint_alone_predicts_what_the_run_did(
    informed: Path, csgcnn: Command, data_file: Path, tmp_path: Path, table: Table
) -> None:
    ckpt = shutil.copy(informed / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    answer = csgcnn("predict", f"ckpt={ckpt}", f"structures={data_file}", cwd=tmp_path)
    assert answer.code == 0, answer.said
    found = {row["id"]: float(row["band_gap [eV]"]) for row in table(tmp_path / "predictions.csv")}
    expected = {
        row["id"]: float(row["band_gap_prediction [eV]"])
        for row in table(informed / "predictions.csv")
    }
    assert len(expected) == 12
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_the_statistics_are_those_of_the_training_rows(
    informed: Path, records: list[Record]
) -> None:
    state = load_checkpoint(informed / "checkpoints" / "best.ckpt")["state_dict"]
    train = set(json.loads((informed / "splits.json").read_text())["train"])
    assert len(train) == 48
    values = {
        r["material_id"]: descriptors(to_crystal(r["crystal_structure"]), sorted(ALL))
        for r in records
    }
    of_train = np.stack([values[id_] for id_ in train])
    np.testing.assert_allclose(
        state["global_features.mean"], of_train.mean(0), rtol=1e-5, atol=1e-6
    )
    varying = of_train.std(0) > 1e-3
    np.testing.assert_allclose(
        state["global_features.std"][varying], of_train.std(0)[varying], rtol=1e-4
    )
    assert (state["global_features.std"][~varying] == 1).all()
    assert not np.allclose(
        state["global_features.mean"], np.stack(list(values.values())).mean(0), rtol=1e-3
    )


@pytest.mark.slow
def test_the_choice_changes_the_cache_and_the_result(
    informed: Path, run: Path, csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    answer = csgcnn(
        "train", *small, "graph.global_features=lattice", "hydra.run.dir=run", cwd=tmp_path
    )
    assert answer.code == 0, answer.said
    losses = {
        (folder / "metrics.csv").read_text().splitlines()[1]
        for folder in (informed, run, tmp_path / "run")
    }
    assert len(losses) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("graph.global_features=latice", "did you mean lattice?"),
        ("graph.global_features=[lattice,compositon]", "did you mean composition?"),
        (
            "graph.global_features=7",
            "expected none, density, lattice, symmetry or composition",
        ),
    ],
)
def test_a_wrong_name_is_answered_at_once(
    words: str, expected: str, csgcnn: Command, tmp_path: Path
) -> None:
    answer = csgcnn("train", words, cwd=tmp_path)
    assert answer.code == 2
    assert expected in answer.said
    assert len(answer.said.strip().splitlines()) <= 2
