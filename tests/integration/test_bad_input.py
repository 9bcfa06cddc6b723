"""Bad input at a command: the exit code, the cause in the message, and never a traceback."""

import gzip
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
Record = dict[str, Any]
CUBE = {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "species": ["Fe"], "frac_coords": [[0, 0, 0]]}
DISORDERED = {
    "lattice": {"matrix": CUBE["lattice"]},
    "sites": [
        {
            "species": [{"element": "Fe", "occu": 0.5}, {"element": "Ni", "occu": 0.5}],
            "abc": [0, 0, 0],
        }
    ],
}
_CELL = "".join(f"_cell_length_{a} 4\n" for a in "abc") + "".join(
    f"_cell_angle_{a} 90\n" for a in ("alpha", "beta", "gamma")
)
_SITE_ITEMS = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
HALF_IRON_CIF = (
    f"data_x\n{_CELL}loop_\n"
    + "".join(f"_atom_site_{item}\n" for item in _SITE_ITEMS)
    + "Fe1 Fe 0 0 0 0.5\n"
)


def assert_refused(answer: Any, code: int, *causes: str) -> None:
    assert answer.code == code, answer.said
    assert "Traceback" not in answer.said
    missing = [cause for cause in causes if cause not in answer.err]
    assert not missing, answer.err


def with_third(**changes: Any) -> Callable[[list[Record]], list[Record]]:
    def changed(records: list[Record]) -> list[Record]:
        records[2] |= changes
        return records

    return changed


def without_third_target(records: list[Record]) -> list[Record]:
    del records[2]["band_gap"]
    return records


BAD_RECORDS: dict[str, tuple[Callable[[list[Record]], Any], list[str]]] = {
    "partial occupancy": (
        with_third(crystal_structure=DISORDERED),
        ["{id}", "site 1", "disordered", "Fe 0.5"],
    ),
    "unknown element": (
        with_third(crystal_structure=CUBE | {"species": ["Xx"]}),
        ["{id}", "site 1", "'Xx'"],
    ),
    "no structure": (with_third(crystal_structure=None), ["{id}"]),
    "flat cell": (
        with_third(crystal_structure=CUBE | {"lattice": [[1, 0, 0]] * 3}),
        ["{id}", "singular"],
    ),
    "empty": (lambda records: [], ["bad.json", "empty"]),
    "NaN target": (with_third(band_gap=float("nan")), ["{id}", "band_gap", "missing"]),
    "missing target": (without_third_target, ["{id}", "band_gap", "missing"]),
    "text target": (with_third(band_gap="metal"), ["{id}", "band_gap", "'metal'", "number"]),
    "infinite target": (with_third(band_gap=float("inf")), ["{id}", "band_gap", "finite"]),
    "duplicate id": (
        lambda records: [*records, records[2]],
        ["bad.json", "{id}", "more than once"],
    ),
    "not a table": (lambda records: {"hello": 1}, ["bad.json", "hello"]),
    "not records": (lambda records: [1, 2], ["bad.json", "entry 1"]),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_an_unusable_record_aborts_the_run(
    kind: str, csgcnn: Command, records: list[Record], tmp_path: Path
) -> None:
    damage, causes = BAD_RECORDS[kind]
    (tmp_path / "bad.json").write_text(json.dumps(damage(deepcopy(records[:20]))))
    answer = csgcnn("train", "dataset.path=bad.json", cwd=tmp_path)
    assert_refused(answer, 1, *(cause.format(id=records[2]["material_id"]) for cause in causes))


@pytest.mark.parametrize(("n_bad", "code"), [(1, 0), (2, 1)])
def test_a_few_unusable_records_can_be_skipped(
    n_bad: int, code: int, csgcnn: Command, records: list[Record], tmp_path: Path
) -> None:
    damaged = deepcopy(records[:30])
    for record in damaged[:n_bad]:
        record["crystal_structure"]["species"][0] = "Xx"
    (tmp_path / "bad.json").write_text(json.dumps(damaged))
    overrides = ["dataset.on_error=skip", "trainer.max_epochs=1", "hydra.run.dir=run"]
    answer = csgcnn("train", "dataset.path=bad.json", *overrides, cwd=tmp_path)
    if code:
        assert_refused(answer, 1, "2 of 30", "5%")
    assert answer.code == code, answer.said
    assert len((tmp_path / "run" / "rejected.csv").read_text().splitlines()) == 1 + n_bad


FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "absent": ("bad", b"", ["bad.json", "dataset.path="]),
    "no JSON": ("bad.json", b"material_id,band_gap\n1,2\n", ["bad.json", "not valid JSON"]),
    "web page": ("bad.json", b"<!DOCTYPE html><html></html>", ["bad.json", "HTML"]),
    "binary": ("bad.json.gz", bytes(range(256)), ["bad.json.gz", "binary"]),
    "truncated gzip": ("bad.json.gz", gzip.compress(bytes(range(256)) * 40)[:200], ["bad.json.gz"]),
    "odd name": ("bad.xlsx", b"PK", ["bad.xlsx", ".json"]),
}


@pytest.mark.parametrize("kind", FILES)
def test_unreadable_files_are_refused(kind: str, csgcnn: Command, tmp_path: Path) -> None:
    name, content, causes = FILES[kind]
    (tmp_path / name).write_bytes(content)
    path = "bad.json" if kind == "absent" else name
    assert_refused(csgcnn("train", f"dataset.path={path}", cwd=tmp_path), 1, *causes)


@pytest.mark.parametrize(
    ("cif", "causes"),
    [
        ("data_x\n_cell_length_a 4\nloop_\n_atom_site_label\n", []),
        (
            HALF_IRON_CIF,
            ["disordered", "Fe 0.5"],
        ),
        (None, ["no such file"]),
    ],
    ids=["malformed", "partial occupancy", "absent"],
)
def test_an_unusable_cif_aborts_the_run(
    cif: str | None, causes: list[str], csgcnn: Command, cifs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for file in cifs.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if cif is not None:
        (folder / "culprit.cif").write_text(cif)
    ids = [*(file.stem for file in cifs.iterdir()), "culprit"]
    (folder / "id_prop.csv").write_text("".join(f"{id_},1.5\n" for id_ in ids))
    answer = csgcnn("train", "dataset=cif_folder", "dataset.path=folder", cwd=tmp_path)
    assert_refused(answer, 1, "1 of 5", "culprit.cif", *causes)


@pytest.mark.parametrize(
    ("overrides", "code", "causes"),
    [
        (["dataset.targets=[gap]"], 1, ["'gap'", "band_gap, refractive_index"]),
        (["dataset.targets=null"], 1, ["dataset.targets", "band_gap, refractive_index"]),
        (["dataset.targets=[formula]"], 1, ["formula holds", "dataset.tasks.formula=classif"]),
        (["dataset.id_column=name"], 1, ["'name'", "material_id"]),
        (["dataset.split.val=0", "trainer.patience=3"], 2, ["patience=3", "dataset.split.val"]),
        (["dataset.split.method=kfold", "dataset.split.fold=5"], 2, ["folds are 0 to 4"]),
        (
            ["dataset.split.train=0.999", "dataset.split.val=0.0005", "dataset.split.test=0.0005"],
            1,
            ["val and test"],
        ),
        (["dataset.split.train=0.9", "dataset.split.val=0.9"], 2, ["dataset.split"]),
        (["dataset.split.method=fold", "dataset.split.column=folds"], 1, ["folds", "band_gap"]),
        (["dataset.split.method=file", "dataset.split.file=no.json"], 1, ["no.json"]),
        (["trainer.device=cuda:99"], 2, ["cuda:99"]),
        (["model.hiden=3"], 2, ["model.hidden"]),
        (["+model.hiden=3"], 2, ["hiden is no argument", "did you mean hidden?"]),
        (["model._target_=os.system"], 2, ["os.system", "refused"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_overrides_are_refused(
    overrides: list[str],
    code: int,
    causes: list[str],
    csgcnn: Command,
    data_file: Path,
    tmp_path: Path,
) -> None:
    answer = csgcnn(
        "train", f"dataset.path={data_file}", "trainer.max_epochs=1", *overrides, cwd=tmp_path
    )
    assert_refused(answer, code, *causes)


@pytest.mark.parametrize(
    "overrides",
    [
        ["edge.step=0"],
        ["edge=rbf", "edge.n_basis=0"],
        ["scheduler.warmup=2"],
        ["loss.mse=abc"],
        ["model.hidden=0"],
        ["model.n_convolutions=-1"],
        ["edge.cutoff=0"],
    ],
    ids=" ".join,
)
def test_values_out_of_range_are_refused(
    overrides: list[str], csgcnn: Command, data_file: Path, tmp_path: Path
) -> None:
    answer = csgcnn(
        "train", f"dataset.path={data_file}", "trainer.max_epochs=1", *overrides, cwd=tmp_path
    )
    assert_refused(answer, 2, overrides[-1].partition("=")[0].partition(".")[2])


def test_evaluation_needs_the_target(
    csgcnn: Command, run: Path, records: list[Record], tmp_path: Path
) -> None:
    renamed = [{**record, "gap": record["band_gap"]} for record in records[:5]]
    for record in renamed:
        del record["band_gap"]
    (tmp_path / "other.json").write_text(json.dumps(renamed))
    overrides = [
        f"ckpt={run / 'checkpoints' / 'best.ckpt'}",
        "dataset=dielectric",
        "dataset.path=other.json",
    ]
    assert_refused(
        csgcnn("evaluate", *overrides, cwd=tmp_path), 1, "other.json", "'band_gap'", "gap"
    )
