import csv
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from cache_files import SETTINGS, assert_same, entries, not_again

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.records import ReadOptions
from csgcnn.data.cache import default_cache_folder, open_dataset, write_rejected
from csgcnn.errors import UserError


def test_the_second_time_nothing_is_built(data: Path, folder: Path) -> None:
    done: list[int] = []
    built, rejected = open_dataset(data, SETTINGS, progress=done.append)
    assert done == [12]
    assert len(built) == 11
    assert [entry.id for entry in rejected] == ['bad, "one"']
    cached, rejected_again = open_dataset(data, SETTINGS, builder=not_again)
    assert_same(cached, built)
    assert rejected_again == rejected
    assert len(entries(folder)) == 1


def test_the_key_is_bytes_settings_and_reading_options(
    data: Path, folder: Path, rows: list[dict[str, Any]]
) -> None:
    open_dataset(data, SETTINGS)
    for other in (
        GraphSettings(cutoff=7.0),
        GraphSettings(max_neighbors=8),
        GraphSettings(shells="truncate"),
        GraphSettings(compress=False),
        GraphSettings(global_features=("composition",)),
    ):
        store, _ = open_dataset(data, other)
        assert store.settings == other
    by_name, _ = open_dataset(data, SETTINGS, ReadOptions(id_column="name"))
    assert by_name.ids[0] == f"row {rows[0]['material_id']}"
    open_dataset(data, SETTINGS, ReadOptions(structure_column="structure"))
    assert len(entries(folder)) == 8

    elsewhere = data.parents[1] / "elsewhere" / data.name
    elsewhere.parent.mkdir()
    shutil.copy(data, elsewhere)
    open_dataset(elsewhere, SETTINGS, builder=not_again)
    rows[0]["band_gap"] = 99.0
    data.write_text(json.dumps(rows))
    store, _ = open_dataset(data, SETTINGS)
    assert store.columns["band_gap"][0] == 99.0
    assert len(entries(folder)) == 9


def test_a_changed_structure_file_of_a_folder_is_noticed(
    data: Path, folder: Path, rows: list[dict[str, Any]]
) -> None:
    cifs = data.parent / "cifs"
    cifs.mkdir()
    (cifs / "id_prop.csv").write_text("a,1.0\nb,2.0\n")
    for name, row in zip("ab", rows, strict=False):
        (cifs / f"{name}.json").write_text(json.dumps(row["structure"]))
    before, _ = open_dataset(cifs, SETTINGS)
    (cifs / "b.json").write_text(json.dumps(rows[5]["structure"]))
    after, _ = open_dataset(cifs, SETTINGS)
    assert before.elements[0] == after.elements[0]
    assert before.elements[1] != after.elements[1]


def test_a_csv_whose_columns_have_unusual_names(
    data: Path, folder: Path, rows: list[dict[str, Any]]
) -> None:
    (data.parent / "a.json").write_text(json.dumps(rows[0]["structure"]))
    table = data.parent / "table.csv"
    table.write_text("label,where,id,gap\nfirst,a.json,same,1\nsecond,a.json,same,2\n")
    store, rejected = open_dataset(table, SETTINGS, ReadOptions("label", "where"))
    assert (store.ids, rejected) == (["first", "second"], [])


def test_the_files_of_a_csv_may_be_linked(
    data: Path, folder: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(rows[0]["structure"]))
    (data.parent / "mine.json").symlink_to(tmp_path / "a.json")
    (data.parent / "all").symlink_to(tmp_path)
    table = data.parent / "table.csv"
    table.write_text("id,file,gap\nfirst,mine.json,1\nsecond,./all/a.json,2\n")
    store, rejected = open_dataset(table, SETTINGS)
    assert (store.ids, rejected) == (["first", "second"], [])


def test_parser_warnings_are_counted_by_kind(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    axes = [("a", "alpha"), ("b", "beta"), ("c", "gamma")]
    cell = "".join(f"_cell_length_{edge} 4\n_cell_angle_{angle} 90\n" for edge, angle in axes)
    atoms = "".join(
        f"_atom_site_{name}\n" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
    )
    for number in range(3):
        (tmp_path / f"{number}.cif").write_text(
            f"data_x\n{cell}loop_\n{atoms}Fe1 Fe 0 0 0.{number}\n"
        )
    (tmp_path / "id_prop.csv").write_text("0,1\n1,2\n2,3\n")
    with caplog.at_level(logging.WARNING):
        open_dataset(tmp_path, SETTINGS)
    (message,) = caplog.messages
    assert message.startswith("3 structures: No _symmetry_equiv_pos_as_xyz type key found.")
    assert message.endswith("(first in 0)")


def test_nothing_usable_is_an_error_with_the_first_reason(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps([{"id": i, "structure": {"species": ["H"]}} for i in ("x", "y")]))
    with pytest.raises(
        UserError, match=r"bad\.json: none of its 2 structures can be used; the first, x: "
    ):
        open_dataset(path, SETTINGS)
    assert entries(folder) == []


def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CSGCNN_CACHE", str(tmp_path / "chosen"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "chosen"
    monkeypatch.delenv("CSGCNN_CACHE")
    assert default_cache_folder() == tmp_path / "xdg" / "csgcnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "csgcnn"


def test_rejected_reasons_survive_commas_quotes_and_lines(tmp_path: Path) -> None:
    rejected = [Rejected("a,b", 'said "no"\nand went'), Rejected("é", "")]
    write_rejected(rejected, tmp_path / "rejected.csv")
    with open(tmp_path / "rejected.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "reason"], *map(list, rejected)]
