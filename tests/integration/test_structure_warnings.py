"""Warnings about structures reach the user: in files, tables, on the terminal and in Python."""

import shutil
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from old_stores import make_format_6
from record_lists import read_records

from csgcnn import DataWarning, load
from csgcnn.commands.predict import predict
from csgcnn.config.compose import compose
from csgcnn.crystals.graph_builder import GraphPlan, build_graphs
from csgcnn.screening.partial_table import Part, PartialTable

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
Record = dict[str, Any]

LONE_IDS = ["m03", "m07", "m09", "m11"]
SUMMARY = "4 structures: atoms without a neighbor within the cutoff (m03, m07, m09, …)"


def cif(edge: float) -> str:
    """Iron in a cubic cell; from 8 Å on, its atom is isolated."""
    axes = [("a", "alpha"), ("b", "beta"), ("c", "gamma")]
    cell = "".join(
        f"_cell_length_{edge_} {edge}\n_cell_angle_{angle} 90\n" for edge_, angle in axes
    )
    names = ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
    loop = "".join(f"_atom_site_{name}\n" for name in names)
    operations = "loop_\n_space_group_symop_operation_xyz\n'x, y, z'\n"
    return f"data_Fe\n{cell}{operations}loop_\n{loop}Fe1 Fe 0 0 0\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve CIFs with targets; atoms of m03, m07, m09 and m11 are isolated."""
    path = tmp_path_factory.mktemp("doubtful") / "cifs"
    path.mkdir()
    for number in range(12):
        edge = 30 + number if f"m{number:02}" in LONE_IDS else 2.5 + number / 10
        (path / f"m{number:02}.cif").write_text(cif(edge))
    lines = [f"m{number:02},{number / 2}\n" for number in range(12)]
    (path / "id_prop.csv").write_text("".join(lines))
    return path


def serious(path: Path, table: Table) -> list[tuple[str, str, str]]:
    """Return id, code and message of the warnings about isolated atoms in a list of warnings."""
    return [
        (row["id"], row["severity"], row["message"])
        for row in table(path)
        if row["code"] == "isolated_atoms"
    ]


LISTED = [(id_, "serious", "1 of 1 atoms without a neighbor within 8 Å") for id_ in LONE_IDS]


def said_of_isolated(answer: Any) -> list[str]:
    return [line for line in answer.said.splitlines() if "without a neighbor" in line]


@pytest.mark.slow
def test_a_run_with_cached_graphs_reports_the_same_warnings(
    csgcnn: Command, folder: Path, tmp_path: Path, table: Table
) -> None:
    words = ("dataset=cif_folder", f"dataset.path={folder}", "trainer.max_epochs=1")
    for name in ("first", "second"):
        answer = csgcnn(
            "train", *words, "trainer.figures=false", f"hydra.run.dir={name}", cwd=tmp_path
        )
        assert answer.code == 0, answer.said
        (line,) = said_of_isolated(answer)
        assert f"{SUMMARY}; see warnings.csv" in line
        assert SUMMARY in (tmp_path / name / "train.log").read_text()
        assert serious(tmp_path / name / "warnings.csv", table) == LISTED
    first, second = (tmp_path / name / "warnings.csv" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()

    evaluate = ("evaluate", "ckpt=first/checkpoints/best.ckpt", *words[:2])
    answer = csgcnn(*evaluate, "output=errors.csv", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert serious(tmp_path / "errors.warnings.csv", table) == LISTED
    (tmp_path / "errors.warnings.csv").unlink()
    answer = csgcnn(*evaluate, cwd=tmp_path)
    assert [line.endswith(SUMMARY) for line in said_of_isolated(answer)] == [True]
    assert not [*tmp_path.glob("*.warnings.csv")]


def test_an_ensemble_lists_the_warnings_of_its_data(
    csgcnn: Command, folder: Path, tmp_path: Path, table: Table
) -> None:
    words = ("dataset=cif_folder", f"dataset.path={folder}", "trainer.max_epochs=1", "ensemble=2")
    answer = csgcnn("train", *words, "trainer.figures=false", "hydra.run.dir=e", cwd=tmp_path)
    assert answer.code == 0, answer.said
    for name in ("e", "e/member-0"):
        assert serious(tmp_path / name / "warnings.csv", table) == LISTED


def test_predictions_of_files_and_of_built_graphs_carry_the_codes(
    csgcnn: Command, folder: Path, ckpts: list[Path], tmp_path: Path, table: Table
) -> None:
    overrides = ["graph.global_features=[density]", f"dataset.path={folder}"]
    answer = csgcnn("build", *overrides, "output=graphs", "dataset=cif_folder", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert f"{SUMMARY}; see graphs.warnings.csv" in answer.said
    assert serious(tmp_path / "graphs.warnings.csv", table) == LISTED
    for structures in (folder, "graphs"):
        words = (f"ckpt={ckpts[0]}", f"structures={structures}", "output=p.csv", "workers=1")
        words += ("overwrite=true",)
        answer = csgcnn("predict", *words, cwd=tmp_path)
        assert answer.code == 0, answer.said
        # The line about the domain of the model says it once.
        (line,) = said_of_isolated(answer)
        assert line.startswith("isolated_atoms: 4 predictions may be far off")
        assert line.endswith("ids: m03, m07, m09, ...")
        codes = {row["id"]: row["warnings"] for row in table(tmp_path / "p.csv")}
        assert len(codes) == 12
        assert [id_ for id_ in codes if "isolated_atoms" in codes[id_]] == LONE_IDS
        assert serious(tmp_path / "p.warnings.csv", table) == LISTED
    shutil.copy(folder / "m00.cif", tmp_path)
    words = (
        f"ckpt={ckpts[0]}",
        "structures=m00.cif",
        "output=p.csv",
        "overwrite=true",
        "workers=1",
    )
    assert csgcnn("predict", *words, cwd=tmp_path).code == 0
    assert not (tmp_path / "p.warnings.csv").exists(), "it is of the command before"


def test_a_resumed_prediction_keeps_the_warnings(
    folder: Path, ckpts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"ckpt={ckpts[0]}", f"structures={folder}", "workers=1"]
    whole = compose("predict", [*overrides, "output=whole.csv"])
    part = compose("predict", [*overrides, "output=part.csv"])
    resumed = compose("predict", [*overrides, "output=part.csv", "resume=true"])
    add = PartialTable.add

    def interrupted(self: PartialTable, chunk: Part) -> None:
        add(self, chunk)
        if self.n_records >= 8:
            raise KeyboardInterrupt

    with chdir(tmp_path):
        predict(whole, chunk_size=4)
        monkeypatch.setattr(PartialTable, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict(part, chunk_size=4)
        monkeypatch.undo()
        predict(resumed, chunk_size=4)
    for name in ("part.csv", "part.warnings.csv"):
        expected = (tmp_path / name.replace("part", "whole")).read_bytes()
        assert (tmp_path / name).read_bytes() == expected


@pytest.mark.slow
def test_several_processes_report_the_same_warnings(
    folder: Path, ckpts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(ckpts[0]).graph
    plan = partial(GraphPlan, settings, chunk_size=3, serial_seconds=0)
    alone, shared = (
        [
            note
            for chunk in build_graphs(read_records(folder), plan(workers=workers))
            for note in chunk.warnings
        ]
        for workers in (1, 2)
    )
    assert shared == alone
    assert [note.id for note in alone if note.code == "isolated_atoms"] == LONE_IDS


def test_python_warns_and_the_frame_has_the_codes(folder: Path, ckpts: list[Path]) -> None:
    model, files = load(ckpts[0]), [folder / f"m{number:02}.cif" for number in (0, 3, 7)]
    with pytest.warns(DataWarning) as issued:
        frame = model.predict(files, as_frame=True)
    lines = [str(one.message) for one in issued]
    (line,) = (line for line in lines if "without a neighbor" in line)
    assert line.startswith("isolated_atoms: 2 predictions may be far off")
    assert line.endswith("ids: structure 1, structure 2")
    assert ["isolated_atoms" in codes for codes in frame["warnings"]] == [False, True, True]
    assert issued[0].filename == __file__
    with pytest.warns(DataWarning, match=r"isolated_atoms: 1 prediction .*ids: structure 0"):
        model.predict(folder / "m03.cif")


def test_a_folder_of_format_6_is_predicted_with_one_warning(
    csgcnn: Command, graph_store: Path, ckpts: list[Path], tmp_path: Path, table: Table
) -> None:
    old = Path(shutil.copytree(graph_store, tmp_path / "old"))
    make_format_6(old)
    answer = csgcnn("predict", f"ckpt={ckpts[0]}", "structures=old", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert answer.said.count("csgcnn build dataset.path=DATA output=FOLDER") == 1
    assert len(table(tmp_path / "predictions.csv")) == 60


def test_a_table_is_not_replaced_when_nothing_was_predicted(
    csgcnn: Command, folder: Path, ckpts: list[Path], tmp_path: Path
) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.json").write_text("{}")
    words = ("predict", f"ckpt={ckpts[0]}", "output=p.csv", "workers=1", "on_error=skip")
    words += ("overwrite=true",)
    answer = csgcnn(*words, "structures=a.json", cwd=tmp_path)
    assert answer.code == 1
    assert not (tmp_path / "p.csv").exists()
    assert csgcnn(*words, f"structures={folder}", cwd=tmp_path).code == 0
    kept = {name: (tmp_path / name).read_bytes() for name in ("p.csv", "p.warnings.csv")}
    answer = csgcnn(*words, "structures=[a.json,b.json,c.json,d.json]", cwd=tmp_path)
    assert answer.code == 1
    assert "no structure was predicted" in answer.said
    assert "p.csv is that of an earlier command" in answer.said
    assert "4 structures could not be used (a: " in answer.said
    assert "; b: " in answer.said
    assert "; c: " in answer.said
    assert "d: " not in answer.said.split("could not be used")[1]
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    assert len((tmp_path / "p.rejected.csv").read_text().splitlines()) == 5
    assert not [*tmp_path.glob("*.partial")]
