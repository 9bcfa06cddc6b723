"""Predictions of ensembles, selected rows and output formats."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from csgcnn import load
from csgcnn.errors import UserError
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

Command = Callable[..., Any]

Table = Callable[[Path], list[dict[str, str]]]

GAP, STD = "band_gap [eV]", "band_gap_std [eV]"
BOUNDS = ["band_gap_lower [eV]", "band_gap_upper [eV]"]
NEAREST = ["nearest_id", "nearest_distance", "nearest_percentile"]
TEXTS = ["in_training", "unseen_elements", "out_of_domain", "warnings"]

Record = dict[str, Any]


@pytest.mark.slow
def test_an_ensemble_predicts_mean_and_standard_deviation(
    csgcnn: Command,
    ckpts: list[Path],
    data_file: Path,
    tmp_path: Path,
    table: Table,
    records: list[Record],
) -> None:
    overrides, singles = (f"structures={data_file}", "workers=1", "overwrite=true"), []
    for ckpt in ckpts:
        csgcnn("predict", f"ckpt={ckpt}", *overrides, cwd=tmp_path)
        singles.append([float(row[GAP]) for row in table(tmp_path / "predictions.csv")])
    assert (
        csgcnn("predict", f"ckpt=[{','.join(map(str, ckpts))}]", *overrides, cwd=tmp_path).code == 0
    )
    listed = (tmp_path / "predictions.csv").read_bytes()
    assert csgcnn("predict", f"ckpt={ckpts[0].parent}/?.ckpt", *overrides, cwd=tmp_path).code == 0
    assert (tmp_path / "predictions.csv").read_bytes() == listed
    rows = table(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["id", GAP, STD, *BOUNDS, *NEAREST, *TEXTS]
    mean, std = ([float(row[column]) for row in rows] for column in (GAP, STD))
    np.testing.assert_allclose(mean, np.mean(singles, 0), atol=1e-4)
    np.testing.assert_allclose(std, np.std(singles, 0, ddof=1), atol=1e-4)
    assert min(std) > 0

    model, structures = load(ckpts), [record["crystal_structure"] for record in records]
    predicted, deviation = model.predict_with_std(structures)
    np.testing.assert_allclose(predicted[:, 0], mean, atol=1e-4)
    np.testing.assert_allclose(deviation[:, 0], std, atol=1e-4)
    np.testing.assert_array_equal(model.predict(structures), predicted)
    with pytest.raises(UserError, match="several checkpoints"):
        load(ckpts[0]).predict_with_std(structures)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"graph": {"cutoff": 6.0}}}, "graph.cutoff (8.0 and 6.0)"),
        ({"targets": [{"name": "gap"}]}, "targets (band_gap and gap)"),
        ({"targets": [{"unit": "meV"}]}, "band_gap.unit (eV and meV)"),
    ],
)
def test_incompatible_members_are_refused(
    change: dict[str, Any],
    message: str,
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
    assert all(part in answer.err for part in (message, str(ckpts[0]), "other.ckpt")), answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.slow
def test_where_and_top_select_rows(
    csgcnn: Command, ckpts: list[Path], data_file: Path, tmp_path: Path, table: Table
) -> None:
    overrides = (f"ckpt={ckpts[0].parent}/*.ckpt", f"structures={data_file}", "workers=1")
    overrides += ("overwrite=true",)

    def rows(*more: str) -> list[tuple[str, float, float]]:
        answer = csgcnn("predict", *overrides, *more, cwd=tmp_path)
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


@pytest.mark.slow
def test_probabilities_of_classes_select_rows(
    csgcnn: Command, small: list[str], data_file: Path, tmp_path: Path, table: Table
) -> None:
    task = [
        "dataset.derived.wide=band_gap > 3",
        "dataset.tasks.wide=classification",
        "dataset.targets=[wide]",
    ]
    assert csgcnn("train", *small, *task, "hydra.run.dir=run", cwd=tmp_path).code == 0
    overrides = (
        "ckpt=[run/checkpoints/best.ckpt,run/checkpoints/last.ckpt]",
        f"structures={data_file}",
        "workers=1",
        "overwrite=true",
    )
    assert csgcnn("predict", *overrides, cwd=tmp_path).code == 0
    rows = table(tmp_path / "predictions.csv")
    zero, one = "wide_probability_0", "wide_probability_1"
    values = ["wide", zero, f"{zero}_std", one, f"{one}_std"]
    assert list(rows[0]) == ["id", *values, *NEAREST, *TEXTS]
    assert {row["wide"] for row in rows} <= {"0", "1"}
    assert csgcnn("predict", *overrides, f"by={one}", "top=5", cwd=tmp_path).code == 0
    best = sorted(rows, key=lambda row: -float(row[one]))[:5]
    assert table(tmp_path / "predictions.csv") == best
    for more, message in (("top=5", f"by=… of {zero}"), ("where=wide == 1", "wide is text")):
        answer = csgcnn("predict", *overrides, more, cwd=tmp_path)
        assert (answer.code, message in answer.err) == (2, True), answer.said


def test_the_name_of_the_output_gives_its_format(
    csgcnn: Command, ckpts: list[Path], some_bad: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    overrides = (
        f"ckpt={ckpts[0].parent}/*.ckpt",
        f"structures={some_bad}",
        "on_error=skip",
        "workers=1",
    )
    for name in ("a.csv", "b.csv.gz", "c.parquet"):
        assert csgcnn("predict", *overrides, f"output={name}", cwd=tmp_path).code == 0
    expected = (tmp_path / "a.csv").read_bytes()
    assert gzip.decompress((tmp_path / "b.csv.gz").read_bytes()) == expected
    header, *rows = csv.reader(expected.decode().splitlines())
    columns = parquet.read_table(tmp_path / "c.parquet").to_pydict()
    assert list(columns) == header == ["id", GAP, STD, *BOUNDS, *NEAREST, *TEXTS]
    numbers = {GAP, STD, *BOUNDS, *NEAREST[1:]}
    assert [*zip(*columns.values(), strict=True)] == [
        tuple(
            float(cell) if name in numbers else cell for name, cell in zip(header, row, strict=True)
        )
        for row in rows
    ]
    assert {path.name for path in tmp_path.glob("*.rejected.csv")} == {
        f"{name}.rejected.csv" for name in "abc"
    }
    for output, message in (("d.xlsx", ".csv, .csv.gz, .parquet or .npz"), ("d", "ends in")):
        answer = csgcnn("predict", *overrides, f"output={output}", cwd=tmp_path)
        assert (answer.code, message in answer.err) == (2, True), answer.said
    with patch("csgcnn.screening.table_files.find_spec", lambda _: None):
        answer = csgcnn("predict", *overrides, "output=d.parquet", cwd=tmp_path)
    assert (answer.code, "pip install pyarrow" in answer.err) == (2, True), answer.said


def test_a_sweep_predicts_with_each_checkpoint(
    csgcnn: Command, ckpts: list[Path], data_file: Path, tmp_path: Path, table: Table
) -> None:
    overrides = (
        f"structures={data_file}",
        f"ckpt={ckpts[0]},{ckpts[1]}",
        "output=${hydra:job.num}.csv",
        "workers=1",
    )
    answer = csgcnn(
        "predict", "--multirun", *overrides, "where=band_gap > 2", "resume=true", cwd=tmp_path
    )
    assert answer.code == 0, answer.said
    found = [
        {row["id"]: float(row[GAP]) for row in table(tmp_path / f"{number}.csv")}
        for number in range(2)
    ]
    assert found[0] != found[1]
    assert all(gap > 2 for part in found for gap in part.values())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("where=band_gap", "<column> <sign> <number>"),
        ("where=bandgap < 1", "there is no column 'bandgap'"),
        ("where=id > 1", "id is text"),
        ("top=0", "an integer of at least 1"),
        ("top=many", "an integer"),
        ("by=band_gap", "needs top="),
        ("order=up", "highest or lowest"),
        ("ckpt=no*where.ckpt", "no file matches"),
    ],
)
def test_invalid_overrides_are_refused(
    override: str, message: str, csgcnn: Command, ckpts: list[Path], data_file: Path, tmp_path: Path
) -> None:
    answer = csgcnn(
        "predict", f"ckpt={ckpts[0]}", f"structures={data_file}", override, cwd=tmp_path
    )
    assert answer.code in (1, 2)
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
