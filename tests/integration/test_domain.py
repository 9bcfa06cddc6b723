"""Predictions far outside the training set are marked, on the command line and in Python."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import mx2
from ase.io import write
from pymatgen.core import Lattice, Structure

from csgcnn import DataWarning, load
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint
from csgcnn.runs.predictions import NO_DOMAIN

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
GAP = "band_gap [eV]"


@pytest.fixture(scope="module")
def ckpt(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def far(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an isolated atom, MoS2 with vacuum, and a training crystal."""
    folder = tmp_path_factory.mktemp("far")
    Structure(Lattice.cubic(100), ["H"], [[0, 0, 0]]).to(str(folder / "atom.cif"))
    for vacuum in (12, 30, 100):
        write(folder / f"mos2_{vacuum}.vasp", mx2("MoS2", vacuum=vacuum / 2))
    (folder / "usual.json").write_text(json.dumps(records[0]["crystal_structure"]))
    return folder


@pytest.fixture(scope="module")
def old_ckpt(ckpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as an earlier version would have written it."""
    path = tmp_path_factory.mktemp("old") / "old.ckpt"
    content = load_checkpoint(ckpt)
    del content["domain"], content["embeddings"]
    old = without_ranges(content)
    assert len(old["state_dict"]) == len(content["state_dict"]) - 2
    save_checkpoint(old, path)
    return path


def without_ranges(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {
        key: without_ranges(value)
        for key, value in tree.items()
        if not str(key).endswith(("global_features.low", "global_features.high"))
    }


def by_id(rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in rows}


def test_predictions_far_from_the_training_set_are_bounded_and_marked(
    csgcnn: Command, ckpt: Path, far: Path, tmp_path: Path, table: Table
) -> None:
    answer = csgcnn("predict", f"ckpt={ckpt}", f"structures={far}", cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = by_id(table(tmp_path / "predictions.csv"))
    assert list(rows["atom"]) == [
        "id",
        GAP,
        "nearest_id",
        "nearest_distance",
        "nearest_percentile",
        "in_training",
        "unseen_elements",
        "out_of_domain",
        "warnings",
    ]
    reasons = {id_: row["out_of_domain"].split(";") for id_, row in rows.items()}
    assert "isolated_atoms:1" in reasons["atom"]
    assert any(reason.startswith("volume_per_atom:1e+06 Å3") for reason in reasons["atom"])
    assert max(abs(float(row[GAP])) for row in rows.values()) < 20
    gaps = [float(rows[f"mos2_{vacuum}"][GAP]) for vacuum in (12, 30, 100)]
    assert np.ptp(gaps) < 0.1 or all(reasons[f"mos2_{vacuum}"] for vacuum in (12, 30, 100))
    for vacuum in (30, 100):
        assert [reason for reason in reasons[f"mos2_{vacuum}"] if "volume_per_atom" in reason]
    (line,) = (line for line in answer.said.splitlines() if "isolated_atoms" in line)
    assert line.endswith("ids: atom")


def test_every_way_to_predict_writes_the_same_reasons(
    csgcnn: Command, ckpt: Path, data_file: Path, graph_store: Path, tmp_path: Path, table: Table
) -> None:
    columns = []
    words = ("predict", f"ckpt={ckpt}")
    for number, options in enumerate(
        (
            [f"structures={data_file}", "workers=1"],
            [f"structures={data_file}", "workers=2"],
            [f"structures={graph_store}", "workers=1"],
            [f"structures={graph_store}", "batch_size=7"],
        )
    ):
        answer = csgcnn(*words, *options, f"output=out{number}.csv", cwd=tmp_path)
        assert answer.code == 0, answer.said
        rows = table(tmp_path / f"out{number}.csv")
        columns.append([(row["unseen_elements"], row["out_of_domain"]) for row in rows])
    assert all(column == columns[0] for column in columns)
    marked = [reasons for _, reasons in columns[0] if reasons]
    assert 0 < len(marked) < 60
    parquet = (f"structures={graph_store}", "output=out.parquet")
    assert csgcnn(*words, *parquet, cwd=tmp_path).code == 0
    frame = pytest.importorskip("pandas").read_parquet(tmp_path / "out.parquet")
    assert list(frame["out_of_domain"]) == [reasons for _, reasons in columns[0]]
    zipped = (f"structures={graph_store}", "output=out.csv.gz")
    assert csgcnn(*words, *zipped, cwd=tmp_path).code == 0
    unzipped = gzip.decompress((tmp_path / "out.csv.gz").read_bytes())
    assert unzipped == (tmp_path / "out2.csv").read_bytes()


def test_python_warns_and_names_the_reasons(ckpt: Path, far: Path) -> None:
    model = load(ckpt)
    paths = [far / "usual.json", far / "atom.cif"]
    with pytest.warns(DataWarning, match=r"isolated_atoms: 1 prediction .*ids: structure 1"):
        frame = model.predict(paths, as_frame=True)
    assert list(frame.columns) == [
        GAP,
        "nearest_id",
        "nearest_distance",
        "nearest_percentile",
        "in_training",
        "unseen_elements",
        "out_of_domain",
        "warnings",
    ]
    assert "isolated_atoms:1" in frame["out_of_domain"][1]
    assert not model.domain.isolated_atoms


def test_a_run_counts_its_rows_outside_the_domain(
    run: Path, ckpt: Path, csgcnn: Command, data_file: Path, tmp_path: Path, table: Table
) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    rows = table(run / "predictions.csv")
    for part in ("val", "test"):
        marked = [row for row in rows if row["split"] == part and row["out_of_domain"]]
        assert metrics[part]["band_gap"]["n_out_of_domain"] == len(marked)
    words = ("evaluate", f"ckpt={ckpt}", f"dataset.path={data_file}", "output=errors.csv")
    answer = csgcnn(*words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    in_run = {row["id"]: row["out_of_domain"] for row in rows}
    evaluated = {row["id"]: row["out_of_domain"] for row in table(tmp_path / "errors.csv")}
    assert {id_: evaluated[id_] for id_ in in_run} == in_run
    train_ids = json.loads((run / "splits.json").read_text())["train"]
    assert not any(evaluated[id_] for id_ in train_ids)
    assert "crystals are out of the domain of the training set: MAE of band_gap" in answer.said


def test_an_ensemble_is_as_cautious_as_its_members(ckpt: Path, far: Path, tmp_path: Path) -> None:
    content = load_checkpoint(ckpt)
    domain = content["domain"]
    assert domain["pairs"]
    save_checkpoint(
        {**content, "domain": {**domain, "pairs": [], "isolated_atoms": True}}, tmp_path / "a.ckpt"
    )
    save_checkpoint({**content, "elements": []}, tmp_path / "b.ckpt")
    both = load([tmp_path / "a.ckpt", tmp_path / "b.ckpt"]).domain
    assert (both.elements, both.pairs, both.isolated_atoms) == (set(), set(), False)


def test_an_earlier_checkpoint_predicts_as_before_and_says_so_once(
    csgcnn: Command, ckpt: Path, old_ckpt: Path, far: Path, tmp_path: Path, table: Table
) -> None:
    answer = csgcnn("predict", f"ckpt={old_ckpt}", f"structures={far}", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert answer.said.count(NO_DOMAIN) == 1
    rows = by_id(table(tmp_path / "predictions.csv"))
    assert list(rows["atom"]) == ["id", GAP, "in_training", "unseen_elements", "warnings"]
    assert abs(float(rows["atom"][GAP])) > 1000, "nothing is clamped"
    old, new = load(old_ckpt), load(ckpt)
    inside = far / "usual.json"
    with pytest.warns(DataWarning, match="earlier version"):
        found = old.predict(inside)
    assert found.tolist() == new.predict(inside).tolist()


def test_a_training_of_an_earlier_version_resumes(
    run: Path, csgcnn: Command, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = load_checkpoint(last)
    save_checkpoint(without_ranges(content), last)
    words = (f"resume={tmp_path / 'run'}", "trainer.max_epochs=4", "trainer.figures=false")
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
