"""`csgcnn describe`, from the command line and from Python."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import csgcnn as api

Command = Callable[..., Any]
Record = dict[str, Any]


@pytest.fixture
def data(records: list[Record], tmp_path: Path) -> Path:
    """Sixty crystals, of which two are unusable, one is repeated with another label."""
    some = [dict(record) for record in records]
    crystal = some[3]["crystal_structure"]
    some[3]["crystal_structure"] = crystal | {"species": ["Xx", *crystal["species"][1:]]}
    some[4]["band_gap"] = None
    again = some[7] | {"material_id": "again", "band_gap": some[7]["band_gap"] + 5}
    path = tmp_path / "data.json"
    path.write_text(json.dumps([*some, again]))
    return path


def test_the_report_names_what_to_check(csgcnn: Command, data: Path, tmp_path: Path) -> None:
    answer = csgcnn(
        "describe", "dataset.path=data.json", "dataset.targets=[band_gap]", "output=report.json",
        cwd=tmp_path,
    )  # fmt: skip
    assert answer.code == 0, answer.said
    report = json.loads((tmp_path / "report.json").read_text())
    with data.open() as file:
        content = json.load(file)
    ids = [record["material_id"] for record in content]
    assert (report["n_records"], report["n_usable"]) == (61, 59)
    assert {entry["id"] for entry in report["rejected"]} == {ids[3], ids[4]}
    assert [ids[7], "again"] in report["duplicates"]
    assert report["conflicts"][0]["ids"] == [ids[7], "again"]
    assert report["conflicts"][0]["kind"] == "equal"
    (target,) = report["targets"]
    assert target["n_missing"] == 1
    assert sum(target["distribution"]["histogram"]) == target["distribution"]["n"] == 59
    assert sum(report["split"]["sizes"].values()) == 59
    oxygen = next(entry for entry in report["elements"] if entry["symbol"] == "O")
    with_oxygen = [r for r in content if "O" in r["crystal_structure"]["species"]]
    assert oxygen["n_crystals"] == len(with_oxygen)
    assert sum(entry["share_of_atoms"] for entry in report["elements"]) == pytest.approx(1)
    for text in (ids[3], "unknown element", f"{ids[7]} = again", "band_gap", "median", "█"):
        assert text in answer.out, text
    assert max(map(len, answer.out.splitlines())) <= 100


def test_findings_as_a_table(csgcnn: Command, data: Path, tmp_path: Path) -> None:
    answer = csgcnn("describe", f"dataset.path={data}", "output=findings.csv", cwd=tmp_path)
    assert answer.code == 0, answer.said
    with (tmp_path / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"rejected", "equal crystals", "conflict"} <= {row["finding"] for row in rows}
    assert any(row["other_id"] == "again" for row in rows)
    # All columns of numbers are described.
    assert "refractive_index" in answer.out
    (tmp_path / "findings.csv").write_text("mine")
    again = ("describe", f"dataset.path={data}", "output=findings.csv")
    answer = csgcnn(*again, cwd=tmp_path)
    assert (answer.code, "findings.csv exists: give another output=, or" in answer.err) == (2, True)
    assert (tmp_path / "findings.csv").read_text() == "mine"
    assert csgcnn(*again, "overwrite=true", cwd=tmp_path).code == 0
    assert (tmp_path / "findings.csv").read_text() != "mine"


def test_structures_without_targets(csgcnn: Command, tmp_path: Path) -> None:
    folder = tmp_path / "cifs"
    folder.mkdir()
    cell = "\n".join(f"_cell_length_{x} 4.2\n_cell_angle_{y} 90" for x, y in
                     zip("abc", ("alpha", "beta", "gamma"), strict=True))  # fmt: skip
    sites = "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z"
    (folder / "po.cif").write_text(f"data_po\n{cell}\n{sites}\nPo 0 0 0\n")
    (folder / "cscl.cif").write_text(f"data_x\n{cell}\n{sites}\nCs 0 0 0\nCl 0.5 0.5 0.5\n")
    (folder / "broken.cif").write_text("data_y\n")
    answer = csgcnn("describe", f"dataset.path={folder}", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "3 records, 2 usable, 1 rejected" in " ".join(answer.out.split())
    assert "columns: none" in answer.out
    assert "Po" in answer.out
    assert "split (random): the random split of 2 rows leaves" in answer.out


def test_a_folder_of_built_graphs(csgcnn: Command, data: Path, tmp_path: Path) -> None:
    build = ("build", f"dataset.path={data}", "dataset.on_error=skip", "output=a.graphs")
    assert csgcnn(*build, cwd=tmp_path).code == 0
    answer = csgcnn("describe", "dataset.path=a.graphs", "dataset.targets=[band_gap]", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "61 records, 59 usable, 2 rejected" in answer.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["dataset.path=absent.json"], 1, "absent.json"),
        (["dataset.path=data.json", "output=report.txt"], 2, "ends in .json, .csv or .html"),
        (["dataset.path=data.json", "output=no/report.json"], 1, "there is no folder"),
        (["dataset.path=data.json", "dataset.targets=[gap]"], 1, "gap' does not exist"),
        (["dataset.path=data.json", "outptu=report.json"], 2, "did you mean output"),
    ],
)
def test_what_cannot_be_described(
    csgcnn: Command, data: Path, words: list[str], code: int, message: str
) -> None:
    answer = csgcnn("describe", *words, cwd=data.parent)
    assert answer.code == code
    assert message in answer.err


def test_from_python(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = api.describe(data, "band_gap", verbose=False, max_difference=1000.0)
    assert capsys.readouterr().out == ""
    assert isinstance(report, api.DataReport)
    assert report.n_usable == 59
    assert report.conflicts == []
    assert json.loads(json.dumps(report.to_dict()))["targets"][0]["name"] == "band_gap"
    classes = api.describe(
        data, "is_wide", verbose=True, **{"dataset.derived": {"is_wide": "band_gap > 2"},
                                          "dataset.tasks": {"is_wide": "classification"}}
    )  # fmt: skip
    assert sum(classes.targets[0].classes.values()) == 59
    assert "is_wide" in capsys.readouterr().out


def test_a_transform_rejects_rows_outside_its_domain(data: Path) -> None:
    derived = {"dataset.derived.x": "band_gap - 2"}
    plain = api.describe(data, "x", verbose=False, **derived)
    report = api.describe(data, "x", verbose=False, **derived, **{"dataset.transform.x": "log10"})
    assert report.n_usable < plain.n_usable
    assert any("dataset.transform.x=log10" in entry.reason for entry in report.rejected)
    before, after = (found.targets[0].distribution for found in (plain, report))
    assert before
    assert after
    assert after.quartiles[-1] == pytest.approx(before.quartiles[-1], rel=1e-5), (
        "in the unit of the target"
    )


def test_extreme_numbers_stay_in_their_columns(csgcnn: Command, tmp_path: Path) -> None:
    crystal = {"lattice": [[30, 0, 0], [0, 30, 0], [0, 0, 30]], "species": ["H"]}
    values = {"a": -1.23456e-5, "b": 123456.7, "c": None}
    data = [
        {"id": id_, "gap": value, "crystal_structure": crystal | {"frac_coords": [[0, 0, 0]]}}
        for id_, value in values.items()
    ]
    (tmp_path / "data.json").write_text(json.dumps(data))
    answer = csgcnn("describe", "dataset.path=data.json", cwd=tmp_path)
    assert answer.code == 0, answer.said
    row = next(line for line in answer.out.splitlines() if line.startswith("gap   "))
    expected = "gap 2 61728 61728 -1e-05 30864 61728 92593 123457"
    assert " ".join(row.split()) == expected
    assert "a = b = c" in answer.out
    assert "3 structures: atoms without a neighbor" in answer.out
