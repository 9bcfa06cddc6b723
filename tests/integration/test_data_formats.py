"""Training on a data set in every format, from file to finished run."""

import csv
import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator
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


def semicolons(folder: Path, records: list[Record]) -> list[str]:
    write_cifs(folder / "my_cifs", records)
    rows = [f"{r['material_id']}.cif;{str(r['band_gap']).replace('.', ',')}\n" for r in records]
    (folder / "my_cifs" / "id_prop.csv").write_text("# a comment\n" + "".join(rows))
    return ["dataset=cif_folder", "dataset.path=my_cifs", "dataset.columns=[gap]"]


def nested(folder: Path, records: list[Record]) -> list[str]:
    rows = [
        {
            "material_id": record["material_id"],
            "input": {"structure": record["crystal_structure"]},
            "outputs": {"pbe": {"gap": record["band_gap"], "other": 1.5}},
        }
        for record in records
    ]
    (folder / "nested.json").write_text(json.dumps(rows))
    named = ["dataset.structure_column=input.structure", "dataset.targets=[outputs.pbe.gap]"]
    return ["dataset.path=nested.json", *named]


def ase_atoms(records: list[Record]) -> Iterator[Any]:
    from ase import Atoms

    for record in records:
        crystal = record["crystal_structure"]
        places = {"scaled_positions": crystal["frac_coords"], "cell": crystal["lattice"]}
        yield Atoms(crystal["species"], pbc=True, **places)


def extended_xyz(folder: Path, records: list[Record]) -> list[str]:
    from ase.io import write

    images = list(ase_atoms(records))
    for image, record in zip(images, records, strict=True):
        image.info = {"material_id": record["material_id"], "gap": record["band_gap"]}
    write(folder / "frames.extxyz", images)
    return ["dataset.path=frames.extxyz", "dataset.targets=[gap]"]


def ase_database(folder: Path, records: list[Record]) -> list[str]:
    from ase.db import connect

    with connect(folder / "crystals.db") as database:
        for image, record in zip(ase_atoms(records), records, strict=True):
            database.write(image, material_id=record["material_id"], gap=record["band_gap"])
    return ["dataset.path=crystals.db", "dataset.targets=[gap]"]


WRITERS: dict[str, tuple[Callable[[Path, list[Record]], list[str]], str]] = {
    "cif_folder": (partial(cif_folder, header=False), "target"),
    "cif_folder with header": (
        partial(cif_folder, header=True),
        "gap",
    ),
    "csv": (csv_table, "gap"),
    "id_prop.csv with semicolons": (semicolons, "gap"),
    "nested JSON": (nested, "outputs.pbe.gap"),
    "extended xyz": (extended_xyz, "gap"),
    "ASE database": (ase_database, "gap"),
    "matbench": (matbench, "gap"),
    "jarvis": (jarvis, "gap"),
}


@pytest.mark.parametrize(
    "format_",
    [
        format_ if number == 0 else pytest.param(format_, marks=pytest.mark.slow)
        for number, format_ in enumerate(WRITERS)
    ],
)
def test_every_format_trains(
    format_: str, csgcnn: Command, twenty: list[Record], tmp_path: Path, table: Table
) -> None:
    write, target = WRITERS[format_]
    overrides = write(tmp_path, twenty)
    answer = csgcnn("train", *overrides, f"dataset.units.{target}=eV", *SHORT, cwd=tmp_path)
    assert answer.code == 0, answer.said
    split = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert {part: len(ids) for part, ids in split.items()} == {"train": 12, "val": 4, "test": 4}
    known = {record["material_id"]: record["band_gap"] for record in twenty}
    rows = table(tmp_path / "run" / "predictions.csv")
    # Ids of id_prop.csv stay as they are written.
    found = {row["id"].removesuffix(".cif"): float(row[f"{target} [eV]"]) for row in rows}
    assert found == pytest.approx({id_: known[id_] for id_ in found}, abs=1e-5)
    (report,) = [
        line for line in answer.out.splitlines() if line.startswith(f"test MAE of {target}")
    ]
    assert " eV, RMSE " in report
    composition = r"; composition alone: [\d.]+ eV"
    assert re.search(rf"\(predicting the mean: [\d.]+ eV{composition}\)$", report)
    source = tmp_path / next(o for o in overrides if "path=" in o).partition("=")[2]
    if source.suffix in (".extxyz", ".db"):
        structures = [f"structures={source.name}", "ckpt=run/checkpoints/best.ckpt"]
        answer = csgcnn("predict", *structures, cwd=tmp_path)
        assert answer.code == 0, answer.said
        assert {row["id"] for row in table(tmp_path / "predictions.csv")} == {*known}


def test_a_repeated_id_is_named_and_can_be_skipped(
    csgcnn: Command, twenty: list[Record], tmp_path: Path
) -> None:
    (tmp_path / "double.json").write_text(json.dumps([*twenty, twenty[0]]))
    train = ["train", "dataset.path=double.json", "dataset.targets=[band_gap]", *SHORT]
    answer = csgcnn(*train, cwd=tmp_path)
    reason = "the id occurs more than once: record 21 repeats that of record 1"
    assert answer.code == 1
    assert f"{twenty[0]['material_id']}: {reason}" in answer.said
    assert "dataset.on_error=skip" in answer.said
    answer = csgcnn(*train, "dataset.on_error=skip", cwd=tmp_path)
    assert answer.code == 0, answer.said
    rejected = (tmp_path / "run" / "rejected.csv").read_text().splitlines()
    assert rejected == ["id,reason", f"{twenty[0]['material_id']},{reason}"]
    limit = ["dataset.max_rejected=0.01", "hydra.run.dir=again"]
    answer = csgcnn(*train, "dataset.on_error=skip", *limit, cwd=tmp_path)
    assert "at most 1% may be skipped" in answer.said


def test_ids_of_predictions_from_a_table(
    csgcnn: Command, run: Path, twenty: list[Record], tmp_path: Path, table: Table
) -> None:
    write_cifs(tmp_path / "files", twenty[:2])
    files = [f"files/{record['material_id']}.cif" for record in twenty[:2]]
    words = ["predict", f"ckpt={run / 'checkpoints' / 'best.ckpt'}", "structures=list.csv"]
    words += ["output=p.csv", "overwrite=true"]
    write_rows(tmp_path / "list.csv", [["name", "file"], ["one", files[0]], ["two", files[1]]])
    csgcnn(*words, cwd=tmp_path)
    assert [row["id"] for row in table(tmp_path / "p.csv")] == ["one", "two"]
    csgcnn(*words, "id_column=file", cwd=tmp_path)
    assert [row["id"] for row in table(tmp_path / "p.csv")] == files
    write_rows(tmp_path / "list.csv", [["file"], *([file] for file in files)])
    csgcnn(*words, cwd=tmp_path)
    assert [row["id"] for row in table(tmp_path / "p.csv")] == [f"{file[:-4]}" for file in files]


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


def test_columns_that_a_format_does_not_read_are_refused(
    csgcnn: Command, cifs: Path, data_file: Path, graph_store: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(cifs, tmp_path / "my_cifs")
    (tmp_path / "my_cifs" / "id_prop.csv").write_text(
        "".join(f"{path.stem},{i}\n" for i, path in enumerate(sorted(cifs.iterdir())))
    )
    built = "a folder of built graphs"
    for path, key, kind in [
        ("my_cifs", "id_column=id", "a folder with id_prop.csv"),
        ("my_cifs", "structure_column=file", "a folder with id_prop.csv"),
        (data_file, "columns=[a,b]", ".json"),
        (graph_store, "id_column=id", built),
        (graph_store, "formula_mismatch=warn", built),
    ]:
        words = ["train", f"dataset.path={path}", f"dataset.{key}", "hydra.run.dir=run"]
        answer = csgcnn(*words, cwd=tmp_path)
        expected = f"{Path(path).name} ({kind}); omit it"
        assert (answer.code, expected in answer.err) == (2, True), answer.said
        assert not (tmp_path / "run").exists()
    answer = csgcnn(
        "build", "dataset.path=my_cifs", "dataset.id_column=id", "output=a", cwd=tmp_path
    )
    assert (answer.code, "dataset.id_column has no effect" in answer.err) == (2, True), answer.said
    for key in ("id_column=id", "all_blocks=true", "formula_mismatch=warn"):
        words = ["predict", f"ckpt={run}", f"structures={graph_store}", key]
        answer = csgcnn(*words, cwd=tmp_path)
        assert (answer.code, "has no effect on" in answer.err) == (2, True), answer.said
    assert [path.name for path in tmp_path.iterdir()] == ["my_cifs"]
