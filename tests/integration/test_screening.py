import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from csgcnn import load
from csgcnn.commands.predict import predict
from csgcnn.config.compose import compose
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.data.cache import open_dataset
from csgcnn.errors import UserError
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint
from csgcnn.screening.partial_table import Part, PartialTable
from csgcnn.screening.workers import Source, predict_store
from csgcnn.training.interruption import Interruption

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
Record = dict[str, Any]
GAP, STD = "band_gap [eV]", "band_gap_std [eV]"


@pytest.fixture(scope="module")
def ckpts(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of the same target that differ a little."""
    folder = tmp_path_factory.mktemp("ensemble")
    content = load_checkpoint(run / "checkpoints" / "best.ckpt")
    for number in range(3):
        state = {
            name: tensor * (1 + 0.01 * number * tensor.is_floating_point())
            for name, tensor in content["state_dict"].items()
        }
        save_checkpoint({**content, "state_dict": state}, folder / f"{number}.ckpt")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def graphs(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the data set's graphs."""
    folder = tmp_path_factory.mktemp("graphs") / "store"
    folder.mkdir()
    settings = GraphSettings(global_features=("density",))
    store, _ = open_dataset(data_file, settings, cache_folder=folder.parent / "cache", workers=1)
    store.save(folder)
    return folder


@pytest.fixture(scope="module")
def some_bad(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in which the records 5, 25 and 45 cannot be used."""
    mixed = [
        {**record, "crystal_structure": {}} if i % 20 == 5 else record
        for i, record in enumerate(records)
    ]
    path = tmp_path_factory.mktemp("bad") / "mixed.json"
    path.write_text(json.dumps(mixed))
    return path


@pytest.fixture
def interrupted(caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Run `csgcnn predict OVERRIDES` until 32 records are done, then interrupt it."""

    def command(*overrides: str, cwd: Path) -> None:
        add, n_calls = PartialTable.add, 0

        def add_or_interrupt(self: PartialTable, part: Part) -> None:
            nonlocal n_calls
            n_calls += 1
            if n_calls > 2:
                signal.raise_signal(signal.SIGINT)
            add(self, part)

        with (
            chdir(cwd),
            patch.object(PartialTable, "add", add_or_interrupt),
            pytest.raises(SystemExit) as end,
            Interruption(),
        ):
            predict(compose("predict", overrides), chunk_size=16)
        assert end.value.code == 130
        assert "32 records are done" in caplog.text

    return command


@pytest.mark.slow
def test_killed_anywhere_it_resumes_to_the_same_bytes(
    ckpts: list[Path], some_bad: Path, graphs: Path, tmp_path: Path
) -> None:
    records = [f"ckpt={ckpts[0]}", f"structures={some_bad}", "output=out.csv", "workers=1"]
    store = [
        f"ckpt='{ckpts[0].parent}/[01].ckpt'",
        f"structures={graphs}",
        "output=out.csv.gz",
        "top=7",
        "by=band_gap",
    ]
    words = [*records, "device=cpu", "--", *store, "device=cpu"]
    command = [sys.executable, Path(__file__).with_name("crash_harness.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    for line in done.stdout.splitlines():
        n_kills, is_same = line.split()
        assert (int(n_kills) > 4, is_same) == (True, "True"), done
    assert done.stdout.count("\n") == 2


def test_what_is_done_is_not_read_again(
    csgcnn: Command, interrupted: Command, ckpts: list[Path], records: list[Record], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i, record in enumerate(records):
        (folder / f"{i:02}.json").write_text(json.dumps(record["crystal_structure"]))
    words = (f"ckpt={ckpts[0]}", f"structures={folder}", "workers=1")
    csgcnn("predict", *words, "output=whole.csv", cwd=tmp_path)
    interrupted(*words, cwd=tmp_path)
    for i in range(32):
        (folder / f"{i:02}.json").write_text("not read")
    answer = csgcnn("predict", *words, "resume=true", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "60 structures predicted" in answer.out
    assert (tmp_path / "predictions.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "many",
        "predictions.csv",
        "whole.csv",
    ]


def test_going_on_with_something_else_is_refused(
    csgcnn: Command, interrupted: Command, ckpts: list[Path], some_bad: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copy(some_bad, tmp_path / "data.json"))
    words = [f"ckpt={ckpts[0]}", f"structures={data}", "workers=1"]
    interrupted(*words, cwd=tmp_path)
    answer = csgcnn("predict", f"ckpt={ckpts[1]}", *words[1:], "resume=true", cwd=tmp_path)
    assert (answer.code, "was started with another ckpt" in answer.err) == (1, True), answer.said
    data.write_text(some_bad.read_text() + "\n")
    answer = csgcnn("predict", *words, "resume=true", cwd=tmp_path)
    assert (answer.code, "was started with another structures" in answer.err) == (1, True), (
        answer.said
    )
    assert answer.err.count("\n") == 1
    shutil.copy(some_bad, data)
    (tmp_path / "predictions.csv.partial" / "part-000000.json").write_text("")
    assert "is damaged" in csgcnn("predict", *words, "resume=true", cwd=tmp_path).err
    assert csgcnn("predict", *words, cwd=tmp_path).code == 1
    assert [path.name for path in tmp_path.glob("*.partial")] == [], (
        "without resume=true it starts again"
    )
    assert len((tmp_path / "predictions.rejected.csv").read_text().splitlines()) == 4


def test_going_on_in_a_folder_whose_files_are_others_is_refused(
    csgcnn: Command, interrupted: Command, ckpts: list[Path], records: list[Record], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i, record in enumerate(records):
        (folder / f"{i:02}.json").write_text(json.dumps(record["crystal_structure"]))
    words = (f"ckpt={ckpts[0]}", f"structures={folder}", "workers=1")
    interrupted(*words, cwd=tmp_path)
    (folder / "00.json").rename(folder / "a.json")
    answer = csgcnn("predict", *words, "resume=true", cwd=tmp_path)
    assert (answer.code, "no longer those" in answer.err) == (1, True), answer.said
    (folder / "a.json").rename(folder / "00.json")
    assert csgcnn("predict", *words, "resume=true", cwd=tmp_path).code == 0, (
        "a refusal costs nothing"
    )


def test_a_finished_table_is_left_alone(
    csgcnn: Command, ckpts: list[Path], some_bad: Path, tmp_path: Path
) -> None:
    words = (f"ckpt={ckpts[0]}", f"structures={some_bad}", "resume=true", "workers=1")
    assert csgcnn("predict", *words, cwd=tmp_path).code == 1, (
        "there is nothing to resume: it starts"
    )
    before = (tmp_path / "predictions.csv").stat()
    answer = csgcnn("predict", *words, cwd=tmp_path)
    assert (answer.code, "nothing to do" in answer.out) == (1, True)
    assert csgcnn("predict", *words, "on_error=skip", cwd=tmp_path).code == 0
    assert (tmp_path / "predictions.csv").stat() == before


def test_an_ensemble_answers_mean_and_deviation(
    csgcnn: Command,
    ckpts: list[Path],
    data_file: Path,
    tmp_path: Path,
    table: Table,
    records: list[Record],
) -> None:
    singles = []
    for ckpt in ckpts:
        csgcnn("predict", f"ckpt={ckpt}", f"structures={data_file}", "workers=1", cwd=tmp_path)
        singles.append([float(row[GAP]) for row in table(tmp_path / "predictions.csv")])
    words = (f"structures={data_file}", "workers=1")
    assert csgcnn("predict", f"ckpt=[{','.join(map(str, ckpts))}]", *words, cwd=tmp_path).code == 0
    listed = (tmp_path / "predictions.csv").read_bytes()
    assert csgcnn("predict", f"ckpt={ckpts[0].parent}/?.ckpt", *words, cwd=tmp_path).code == 0
    assert (tmp_path / "predictions.csv").read_bytes() == listed
    rows = table(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["id", GAP, STD]
    mean, std = ([float(row[column]) for row in rows] for column in (GAP, STD))
    np.testing.assert_allclose(mean, np.mean(singles, 0), atol=1e-4)
    np.testing.assert_allclose(std, np.std(singles, 0, ddof=1), atol=1e-4)
    assert min(std) > 0

    model, structures = load(ckpts), [record["crystal_structure"] for record in records]
    told, deviation = model.predict_with_std(structures)
    np.testing.assert_allclose(told[:, 0], mean, atol=1e-4)
    np.testing.assert_allclose(deviation[:, 0], std, atol=1e-4)
    np.testing.assert_array_equal(model.predict(structures), told)
    with pytest.raises(UserError, match="several checkpoints"):
        load(ckpts[0]).predict_with_std(structures)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"config": {"graph": {"cutoff": 6.0}}}, "graph.cutoff (8.0 and 6.0)"),
        ({"targets": [{"name": "gap"}]}, "targets (band_gap and gap)"),
        ({"targets": [{"unit": "meV"}]}, "band_gap.unit (eV and meV)"),
    ],
)
def test_members_answer_one_question(
    change: dict[str, Any],
    told: str,
    csgcnn: Command,
    ckpts: list[Path],
    data_file: Path,
    tmp_path: Path,
) -> None:
    content = load_checkpoint(ckpts[1])
    for key, value in change.items():
        if key == "targets":
            content["targets"] = [{**content["targets"][0], **value[0]}]
        else:
            content["config"]["graph"] |= value["graph"]
    save_checkpoint(content, tmp_path / "other.ckpt")
    answer = csgcnn(
        "predict", f"ckpt=[{ckpts[0]},other.ckpt]", f"structures={data_file}", cwd=tmp_path
    )
    assert answer.code == 1
    assert all(part in answer.err for part in (told, str(ckpts[0]), "other.ckpt")), answer.err
    assert answer.err.count("\n") == 1


def test_the_wanted_rows(
    csgcnn: Command, ckpts: list[Path], data_file: Path, tmp_path: Path, table: Table
) -> None:
    words = (f"ckpt={ckpts[0].parent}/*.ckpt", f"structures={data_file}", "workers=1")

    def rows(*more: str) -> list[tuple[str, float, float]]:
        answer = csgcnn("predict", *words, *more, cwd=tmp_path)
        assert answer.code == 0, answer.said
        found = [
            (row["id"], float(row[GAP]), float(row[STD]))
            for row in table(tmp_path / "predictions.csv")
        ]
        if len(found) < 60:
            assert f"60 structures predicted, {60 - len(found)} left out" in answer.out
        return found

    every = rows()
    middle = sorted(gap for _, gap, _ in every)[30]
    assert rows(f"where=band_gap < {middle}") == [row for row in every if row[1] < middle]
    narrow = sorted(std for *_, std in every)[40]
    both = [row for row in every if row[1] >= middle and row[2] != narrow]
    assert rows(f"where=band_gap>={middle} and band_gap_std != {narrow}") == both
    assert rows("top=7") == sorted(every, key=lambda row: -row[1])[:7]
    assert rows("top=7", "order=lowest") == sorted(every, key=lambda row: row[1])[:7]
    assert rows("top=100", "by=band_gap_std") == sorted(every, key=lambda row: -row[2])
    assert (
        rows("top=2", f"where=band_gap < {middle}")
        == sorted((r for r in every if r[1] < middle), key=lambda r: -r[1])[:2]
    )
    assert rows("where=band_gap > 1e6") == []


def test_classes_are_wanted_by_their_probabilities(
    csgcnn: Command, small: list[str], data_file: Path, tmp_path: Path, table: Table
) -> None:
    task = [
        "dataset.derived.wide=band_gap > 3",
        "dataset.tasks.wide=classification",
        "dataset.targets=[wide]",
    ]
    assert csgcnn("train", *small, *task, "hydra.run.dir=run", cwd=tmp_path).code == 0
    words = (
        "ckpt=[run/checkpoints/best.ckpt,run/checkpoints/last.ckpt]",
        f"structures={data_file}",
        "workers=1",
    )
    assert csgcnn("predict", *words, cwd=tmp_path).code == 0
    rows = table(tmp_path / "predictions.csv")
    zero, one = "wide_probability_0", "wide_probability_1"
    assert list(rows[0]) == ["id", "wide", zero, f"{zero}_std", one, f"{one}_std"]
    assert {row["wide"] for row in rows} <= {"0", "1"}
    assert csgcnn("predict", *words, f"by={one}", "top=5", cwd=tmp_path).code == 0
    best = sorted(rows, key=lambda row: -float(row[one]))[:5]
    assert table(tmp_path / "predictions.csv") == best
    for more, told in (("top=5", f"by=… of {zero}"), ("where=wide == 1", "wide is text")):
        answer = csgcnn("predict", *words, more, cwd=tmp_path)
        assert (answer.code, told in answer.err) == (2, True), answer.said


def test_a_store_of_graphs_is_predicted_as_its_structures(
    csgcnn: Command, ckpts: list[Path], data_file: Path, graphs: Path, tmp_path: Path
) -> None:
    csgcnn("predict", f"ckpt={ckpts[0]}", f"structures={data_file}", "workers=1", cwd=tmp_path)
    expected = (tmp_path / "predictions.csv").read_bytes()
    words = (f"ckpt={ckpts[0]}", f"structures={graphs}", "output=of_store.csv")
    with chdir(tmp_path):
        assert predict(compose("predict", [*words, "batch_size=8"]), chunk_size=16) == 0
    assert (tmp_path / "of_store.csv").read_bytes() == expected


def test_processes_share_the_rows_of_a_store(ckpts: list[Path], graphs: Path) -> None:
    model, source = load(ckpts[0]), Source((ckpts[0],), graphs)
    alone = list(predict_store(model, source, chunk_size=16))
    shared = list(predict_store(model, source, workers=2, chunk_size=16, parallel_rows=1))
    assert [chunk.ids for chunk in shared] == [chunk.ids for chunk in alone]
    assert len(alone) == 4
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_a_store_that_cannot_be_predicted(
    csgcnn: Command, ckpts: list[Path], data_file: Path, graphs: Path, tmp_path: Path
) -> None:
    content = load_checkpoint(ckpts[0])
    content["config"]["graph"] |= {"cutoff": 6.0, "max_neighbors": 8}
    save_checkpoint(content, tmp_path / "other.ckpt")
    damaged = Path(shutil.copytree(graphs, tmp_path / "damaged"))
    (damaged / "rows.jsonl").write_text("{}")
    for words, code, told in (
        (
            ["ckpt=other.ckpt", f"structures={graphs}"],
            1,
            "graph.cutoff=6.0 (not 8.0), graph.max_neighbors=8",
        ),
        ([f"ckpt={ckpts[0]}", "structures=damaged"], 1, "rows.jsonl"),
        ([f"ckpt={ckpts[0]}", f"structures=[{graphs},damaged]"], 2, "predict it by itself"),
    ):
        answer = csgcnn("predict", *words, cwd=tmp_path)
        assert (answer.code, told in answer.err, answer.err.count("\n")) == (code, True, 1), (
            answer.said
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "other.ckpt"]


def test_formats_by_the_name_of_the_output(
    csgcnn: Command, ckpts: list[Path], some_bad: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    words = (
        f"ckpt={ckpts[0].parent}/*.ckpt",
        f"structures={some_bad}",
        "on_error=skip",
        "workers=1",
    )
    for name in ("a.csv", "b.csv.gz", "c.parquet"):
        assert csgcnn("predict", *words, f"output={name}", cwd=tmp_path).code == 0
    expected = (tmp_path / "a.csv").read_bytes()
    assert gzip.decompress((tmp_path / "b.csv.gz").read_bytes()) == expected
    header, *rows = csv.reader(expected.decode().splitlines())
    columns = parquet.read_table(tmp_path / "c.parquet").to_pydict()
    assert list(columns) == header == ["id", GAP, STD]
    assert [*zip(*columns.values(), strict=True)] == [
        (id_, float(gap), float(std)) for id_, gap, std in rows
    ]
    assert {path.name for path in tmp_path.glob("*.rejected.csv")} == {
        f"{name}.rejected.csv" for name in "abc"
    }
    for output, told in (("d.xlsx", ".csv, .csv.gz or .parquet"), ("d", "ends in")):
        answer = csgcnn("predict", *words, f"output={output}", cwd=tmp_path)
        assert (answer.code, told in answer.err) == (2, True), answer.said
    with patch("csgcnn.screening.table_files.find_spec", lambda _: None):
        answer = csgcnn("predict", *words, "output=d.parquet", cwd=tmp_path)
    assert (answer.code, "pip install pyarrow" in answer.err) == (2, True), answer.said


def test_a_sweep_of_predictions(
    csgcnn: Command, ckpts: list[Path], data_file: Path, tmp_path: Path, table: Table
) -> None:
    words = (
        f"structures={data_file}",
        f"ckpt={ckpts[0]},{ckpts[1]}",
        "output=${hydra:job.num}.csv",
        "workers=1",
    )
    answer = csgcnn(
        "predict", "--multirun", *words, "where=band_gap > 2", "resume=true", cwd=tmp_path
    )
    assert answer.code == 0, answer.said
    found = [
        {row["id"]: float(row[GAP]) for row in table(tmp_path / f"{number}.csv")}
        for number in range(2)
    ]
    assert found[0] != found[1]
    assert all(gap > 2 for part in found for gap in part.values())


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("where=band_gap", "<column> <sign> <number>"),
        ("where=bandgap < 1", "there is no column 'bandgap'"),
        ("where=id > 1", "id is text"),
        ("top=0", "an integer of at least 1"),
        ("top=many", "an integer"),
        ("by=band_gap", "give top=N"),
        ("order=up", "highest or lowest"),
        ("ckpt=no*where.ckpt", "no file matches"),
    ],
)
def test_what_is_refused(
    word: str, told: str, csgcnn: Command, ckpts: list[Path], data_file: Path, tmp_path: Path
) -> None:
    answer = csgcnn("predict", f"ckpt={ckpts[0]}", f"structures={data_file}", word, cwd=tmp_path)
    assert answer.code in (1, 2)
    assert told in answer.err
    assert answer.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
