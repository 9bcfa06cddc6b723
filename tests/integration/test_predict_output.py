"""What csgcnn predict writes, and what it never overwrites."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csgcnn import load
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
Record = dict[str, Any]
GAP = "band_gap [eV]"


@pytest.fixture
def ckpt(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize("existing", ["p.csv", "p.rejected.csv", "p.warnings.csv"])
def test_nothing_is_overwritten_before_the_user_says_so(
    existing: str, csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path
) -> None:
    (tmp_path / existing).write_text("mine")
    words = ["predict", f"ckpt={ckpt}", f"structures={cifs}", "output=p.csv", "workers=1"]
    answer = csgcnn(*words, cwd=tmp_path)
    assert answer.code == 2
    assert f"{existing} exists" in answer.err
    assert "overwrite=true" in answer.err
    assert answer.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"
    assert csgcnn(*words, "overwrite=true", cwd=tmp_path).code == 0
    assert (tmp_path / "p.csv").read_text().startswith("id,")


def test_the_refusal_comes_before_any_work(csgcnn: Command, tmp_path: Path) -> None:
    (tmp_path / "p.csv").touch()
    answer = csgcnn("predict", "ckpt=absent", "structures=no", "output=p.csv", cwd=tmp_path)
    assert (answer.code, "p.csv exists" in answer.err) == (2, True)


def test_columns_of_structure_files_are_refused(
    csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path
) -> None:
    words = ["predict", f"ckpt={ckpt}", f"structures={cifs}", "workers=1"]
    for key in ("id_column", "structure_column"):
        answer = csgcnn(*words, f"{key}=x", cwd=tmp_path)
        assert (answer.code, "has no columns; omit" in answer.err) == (2, True), answer.said
    assert not list(tmp_path.iterdir())


def test_the_lists_of_another_table_are_kept(
    csgcnn: Command, ckpt: Path, some_bad: Path, cifs: Path, tmp_path: Path
) -> None:
    words = ["predict", f"ckpt={ckpt}", "workers=1"]
    assert csgcnn(*words, f"structures={some_bad}", "output=p.csv", cwd=tmp_path).code == 1
    kept = (tmp_path / "p.rejected.csv").read_bytes()
    answer = csgcnn(*words, f"structures={cifs}", "output=p.csv.gz", cwd=tmp_path)
    assert (answer.code, "p.rejected.csv exists" in answer.err) == (2, True), answer.said
    assert (tmp_path / "p.rejected.csv").read_bytes() == kept


def test_the_structures_are_never_replaced_by_their_predictions(
    csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path
) -> None:
    name = next(cifs.iterdir()).name
    (tmp_path / "list.csv").write_text(f"name,file\none,{cifs / name}\n")
    words = ["predict", f"ckpt={ckpt}", "structures=list.csv", "output=list.csv"]
    answer = csgcnn(*words, "overwrite=true", cwd=tmp_path)
    assert (answer.code, "list.csv is an input" in answer.err) == (2, True), answer.said
    assert (tmp_path / "list.csv").read_text().startswith("name,file")


def test_training_crystals_are_marked(
    csgcnn: Command, run: Path, ckpt: Path, records: list[Record], tmp_path: Path, table: Table
) -> None:
    train = set(json.loads((run / "splits.json").read_text())["train"])
    others = [record for record in records if record["material_id"] not in train]
    id_ = next(iter(train))
    # Another crystal whose id is equal by chance, and a training crystal under another id.
    by_chance = {**others[0], "material_id": id_}
    of_id = next(record for record in records if record["material_id"] == id_)
    data = [by_chance, {**of_id, "material_id": "renamed"}, *others[1:], *records[:40]]
    unique = {record["material_id"]: record for record in reversed(data)}
    unique[id_] = by_chance
    (tmp_path / "data.json").write_text(json.dumps([*unique.values()]))
    words = ["predict", f"ckpt={ckpt}", "structures=data.json", "workers=1"]
    answer = csgcnn(*words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = {row["id"]: row["in_training"] for row in table(tmp_path / "predictions.csv")}
    assert {name for name, cell in rows.items() if cell == "true"} == (
        (train & {*unique} - {id_}) | {"renamed"}
    )
    assert set(rows.values()) == {"true", "false"}
    n_marked = [*rows.values()].count("true")
    assert f"{n_marked} structures are in the training set (column in_training)" in answer.said
    frame = load(ckpt).predict(of_id["crystal_structure"], as_frame=True)
    assert frame["in_training"].tolist() == ["true"]


def test_an_old_checkpoint_compares_ids_and_says_so(
    csgcnn: Command, run: Path, ckpt: Path, data_file: Path, tmp_path: Path, table: Table
) -> None:
    content = load_checkpoint(ckpt)
    del content["fingerprints"]
    save_checkpoint(content, tmp_path / "old.ckpt")
    words = ["predict", "ckpt=old.ckpt", f"structures={data_file}", "workers=1"]
    answer = csgcnn(*words, cwd=tmp_path)
    rows = table(tmp_path / "predictions.csv")
    train = set(json.loads((run / "splits.json").read_text())["train"])
    assert {row["id"] for row in rows if row["in_training"] == "true"} == train
    assert "by ids alone" in answer.said


def test_numbers_have_eight_digits(
    csgcnn: Command, ckpt: Path, cifs: Path, tmp_path: Path, table: Table
) -> None:
    assert csgcnn("predict", f"ckpt={ckpt}", f"structures={cifs}", cwd=tmp_path).code == 0
    rows = table(tmp_path / "predictions.csv")
    files = [cifs / f"{row['id']}.cif" for row in rows]
    predicted = load(ckpt).predict(files)[:, 0].tolist()
    assert [float(row[GAP]) for row in rows] == pytest.approx(predicted, rel=1e-6)
    assert max(len(row[GAP].strip("-0").replace(".", "")) for row in rows) in (7, 8)


def test_deviations_come_with_an_interval(
    csgcnn: Command, ckpts: list[Path], cifs: Path, tmp_path: Path, table: Table
) -> None:
    words = ["predict", f"ckpt={ckpts[0].parent}/*.ckpt", f"structures={cifs}", "workers=1"]
    for level, n_stds in ((0.9, 1.644854), (0.5, 0.6744898)):
        answer = csgcnn(*words, f"level={level}", f"output={level}.csv", cwd=tmp_path)
        assert answer.code == 0, answer.said
        for row in table(tmp_path / f"{level}.csv"):
            value, std = float(row[GAP]), float(row["band_gap_std [eV]"])
            expected = [value - n_stds * std, value + n_stds * std]
            found = [float(row[f"band_gap_{end} [eV]"]) for end in ("lower", "upper")]
            assert found == pytest.approx(expected, abs=1e-5)
    words[1] = f"ckpt={ckpts[0]}"
    answer = csgcnn(*words, "level=0.5", "output=c.csv", cwd=tmp_path)
    assert (answer.code, "level=0.5 has no effect" in answer.err) == (2, True), answer.said
    answer = csgcnn(*words, "level=90", "output=c.csv", cwd=tmp_path)
    assert (answer.code, "level" in answer.err) == (2, True), answer.said
    frame = load(ckpts).predict([*cifs.iterdir()], as_frame=True, level=0.5)
    assert "band_gap_lower [eV]" in frame
    one = load(ckpts[0]).predict([*cifs.iterdir()], as_frame=True, level=0.5)
    assert "band_gap_lower [eV]" not in one
