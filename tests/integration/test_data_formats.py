"""Training on a data set in every format, from file to finished run."""

import csv
import gzip
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("without_figures")

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
Record = dict[str, Any]
SHORT = [
    "trainer.max_epochs=1",
    "model.hidden=8",
    "dataset.split.val=0.2",
    "dataset.split.test=0.2",
]
SHORT += ["dataset.split.train=0.6", "hydra.run.dir=run"]


@pytest.fixture(scope="module")
def twenty(records: list[Record]) -> list[Record]:
    return records[:20]


def write_rows(path: Path, rows: list[list[object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_cifs(folder: Path, records: list[Record]) -> None:
    from pymatgen.core import Structure

    folder.mkdir()
    for record in records:
        crystal = record["crystal_structure"]
        structure = Structure(crystal["lattice"], crystal["species"], crystal["frac_coords"])
        structure.to(str(folder / f"{record['material_id']}.cif"), fmt="cif")


def cif_folder(folder: Path, records: list[Record], header: bool) -> list[str]:
    write_cifs(folder / "my_cifs", records)
    first: list[list[object]] = [["id", "gap"]] if header else []
    write_rows(
        folder / "my_cifs" / "id_prop.csv",
        [*first, *([r["material_id"], r["band_gap"]] for r in records)],
    )
    return ["dataset=cif_folder", "dataset.path=my_cifs"]


def csv_table(folder: Path, records: list[Record]) -> list[str]:
    write_cifs(folder / "files", records)
    rows = [[r["material_id"], f"files/{r['material_id']}.cif", r["band_gap"]] for r in records]
    write_rows(folder / "table.csv", [["id", "file", "gap"], *rows])
    return ["dataset=csv", "dataset.path=table.csv"]


def matbench(folder: Path, records: list[Record]) -> list[str]:
    from pymatgen.core import Structure

    data = []
    for record in records:
        crystal = record["crystal_structure"]
        structure = Structure(crystal["lattice"], crystal["species"], crystal["frac_coords"])
        data.append([structure.as_dict(), record["band_gap"]])
    frame = {
        "index": [r["material_id"] for r in records],
        "columns": ["structure", "gap"],
        "data": data,
    }
    with gzip.open(folder / "matbench.json.gz", "wt") as file:
        json.dump(frame, file)
    return ["dataset=matbench", "dataset.path=matbench.json.gz"]


def jarvis(folder: Path, records: list[Record]) -> list[str]:
    rows = []
    for record in records:
        crystal = record["crystal_structure"]
        atoms = {
            "lattice_mat": crystal["lattice"],
            "elements": crystal["species"],
            "coords": crystal["frac_coords"],
        }
        atoms |= {"cartesian": False, "props": [""] * len(crystal["species"])}
        missing = {"hse_gap": "na"}
        rows.append(
            {"jid": record["material_id"], "atoms": atoms, "gap": record["band_gap"], **missing}
        )
    (folder / "jdft.json").write_text(json.dumps(rows))
    return ["dataset=jarvis", "dataset.path=jdft.json", "dataset.targets=[gap]"]


WRITERS: dict[str, tuple[Callable[[Path, list[Record]], list[str]], str]] = {
    "cif_folder": (partial(cif_folder, header=False), "target"),
    "cif_folder with header": (
        partial(cif_folder, header=True),
        "gap",
    ),
    "csv": (csv_table, "gap"),
    "matbench": (matbench, "gap"),
    "jarvis": (jarvis, "gap"),
}


@pytest.mark.parametrize("format_", WRITERS)
def test_every_format_trains(
    format_: str, csgcnn: Command, twenty: list[Record], tmp_path: Path, table: Table
) -> None:
    write, target = WRITERS[format_]
    overrides = write(tmp_path, twenty)
    answer = csgcnn("train", *overrides, f"+dataset.units.{target}=eV", *SHORT, cwd=tmp_path)
    assert answer.code == 0, answer.said
    split = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert {part: len(ids) for part, ids in split.items()} == {"train": 12, "val": 4, "test": 4}
    known = {record["material_id"]: record["band_gap"] for record in twenty}
    rows = table(tmp_path / "run" / "predictions.csv")
    found = {row["id"]: float(row[f"{target} [eV]"]) for row in rows}
    assert found == pytest.approx({id_: known[id_] for id_ in found}, abs=1e-5)
    (report,) = [
        line for line in answer.out.splitlines() if line.startswith(f"test MAE of {target}")
    ]
    assert " eV, RMSE " in report
    assert re.search(r"\(predicting the mean: [\d.]+ eV\)$", report)


def test_a_run_can_use_the_split_of_another(
    csgcnn: Command, run: Path, small: list[str], tmp_path: Path
) -> None:
    shutil.copy(run / "splits.json", tmp_path / "mine.json")
    overrides = [
        "dataset.split.method=file",
        "dataset.split.file=mine.json",
        "trainer.max_epochs=1",
        "hydra.run.dir=run",
    ]
    answer = csgcnn("train", *small, *overrides, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert (tmp_path / "run" / "splits.json").read_bytes() == (run / "splits.json").read_bytes()
