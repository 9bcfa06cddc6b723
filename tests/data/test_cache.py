import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cache_files import SETTINGS, assert_same, entries, not_again
from old_stores import make_format_6

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.records import ReadOptions
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.data.cache import default_cache_folder, known_warnings, open_dataset
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError, UserError


def test_the_second_time_nothing_is_built(data: Path, folder: Path) -> None:
    done: list[int] = []
    built, rejected, _ = open_dataset(data, SETTINGS, progress=done.append)
    assert done == [12]
    assert len(built) == 11
    assert [entry.id for entry in rejected] == ['bad, "one"']
    cached, rejected_again, _ = open_dataset(data, SETTINGS, builder=not_again)
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
        store = open_dataset(data, other).store
        assert store.settings == other
    by_name = open_dataset(data, SETTINGS, ReadOptions(id_column="name")).store
    assert by_name.ids[0] == f"row {rows[0]['material_id']}"
    open_dataset(data, SETTINGS, ReadOptions(structure_column="structure"))
    assert len(entries(folder)) == 8

    elsewhere = data.parents[1] / "elsewhere" / data.name
    elsewhere.parent.mkdir()
    shutil.copy(data, elsewhere)
    open_dataset(elsewhere, SETTINGS, builder=not_again)
    rows[0]["band_gap"] = 99.0
    data.write_text(json.dumps(rows))
    store = open_dataset(data, SETTINGS).store
    assert store.columns["band_gap"][0] == 99.0
    assert len(entries(folder)) == 9


def test_prototypes_are_a_column_unless_the_data_have_one(
    data: Path, folder: Path, rows: list[dict[str, Any]]
) -> None:
    open_dataset(data, SETTINGS)
    options = ReadOptions(prototypes=True)
    found = open_dataset(data, SETTINGS, options).store.columns["prototype"]
    assert all(label.startswith("A") for label in found)
    assert len(entries(folder)) == 2
    again = open_dataset(data, SETTINGS, options, builder=not_again).store
    assert again.columns["prototype"] == found
    data.write_text(json.dumps([{"prototype": "mine", **row} for row in rows]))
    assert set(open_dataset(data, SETTINGS, options).store.columns["prototype"]) == {"mine"}


def test_a_changed_structure_file_of_a_folder_is_noticed(
    data: Path, folder: Path, rows: list[dict[str, Any]]
) -> None:
    cifs = data.parent / "cifs"
    cifs.mkdir()
    (cifs / "id_prop.csv").write_text("a,1.0\nb,2.0\n")
    for name, row in zip("ab", rows, strict=False):
        (cifs / f"{name}.json").write_text(json.dumps(row["structure"]))
    before = open_dataset(cifs, SETTINGS).store
    (cifs / "b.json").write_text(json.dumps(rows[5]["structure"]))
    after = open_dataset(cifs, SETTINGS).store
    assert before.elements[0] == after.elements[0]
    assert before.elements[1] != after.elements[1]


def test_a_csv_whose_columns_have_unusual_names(
    data: Path, folder: Path, rows: list[dict[str, Any]]
) -> None:
    (data.parent / "a.json").write_text(json.dumps(rows[0]["structure"]))
    table = data.parent / "table.csv"
    table.write_text("label,where,id,gap\nfirst,a.json,same,1\nsecond,a.json,same,2\n")
    store, rejected, _ = open_dataset(table, SETTINGS, ReadOptions("label", "where"))
    assert (store.ids, rejected) == (["first", "second"], [])


def test_the_files_of_a_csv_may_be_linked(
    data: Path, folder: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(rows[0]["structure"]))
    (data.parent / "mine.json").symlink_to(tmp_path / "a.json")
    (data.parent / "all").symlink_to(tmp_path)
    table = data.parent / "table.csv"
    table.write_text("id,file,gap\nfirst,mine.json,1\nsecond,./all/a.json,2\n")
    store, rejected, _ = open_dataset(table, SETTINGS)
    assert (store.ids, rejected) == (["first", "second"], [])


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


# --- warnings ---

LONE = {"lattice": [[9, 0, 0], [0, 9, 0], [0, 0, 9]], "species": ["Xe"], "frac_coords": [[0] * 3]}
OF_LONE = [StructureNote("lone", "isolated_atoms", "1 of 1 atoms without a neighbor within 8 Å")]


@pytest.fixture
def data_with_warning(data: Path, rows: list[dict[str, Any]]) -> Path:
    data.write_text(json.dumps([*rows, {"material_id": "lone", "structure": LONE}]))
    return data


def test_warnings_are_cached_with_the_graphs(data_with_warning: Path, folder: Path) -> None:
    assert open_dataset(data_with_warning, SETTINGS).warnings == OF_LONE
    assert open_dataset(data_with_warning, SETTINGS, builder=not_again).warnings == OF_LONE
    below_a_file = data_with_warning / "cache"
    assert open_dataset(data_with_warning, SETTINGS, cache_folder=below_a_file).warnings == OF_LONE


def test_a_store_of_format_6_opens_with_one_warning(
    data_with_warning: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = open_dataset(data_with_warning, SETTINGS)
    (store,) = entries(folder)
    assert open_dataset(store, SETTINGS).warnings == OF_LONE
    assert not caplog.messages
    old_store = Path(shutil.copytree(store, tmp_path / "old"))
    make_format_6(old_store)
    old = open_dataset(old_store, SETTINGS)
    assert_same(old.store, built.store)
    assert (old.rejected, old.warnings) == (built.rejected, [])
    (message,) = caplog.messages
    assert "csgcnn build dataset.path=DATA output=FOLDER" in message
    assert str(old_store) in message


def test_a_damaged_list_of_warnings_is_refused(data_with_warning: Path, folder: Path) -> None:
    open_dataset(data_with_warning, SETTINGS)
    (store,) = entries(folder)
    (store / "warnings.json").write_text('[["a", "b"]]')
    with pytest.raises(UserError, match=r"warnings\.json: .*csgcnn build"):
        open_dataset(store, SETTINGS)


def test_a_cache_folder_is_refused_where_the_graphs_are_built(data: Path, folder: Path) -> None:
    open_dataset(data, SETTINGS)
    (store,) = entries(folder)
    with pytest.raises(ConfigError, match=r"dataset\.cache_dir has no effect on .*; omit it"):
        open_dataset(store, SETTINGS, cache_folder=folder)


def test_a_store_that_was_saved_from_python_has_no_warnings(
    data_with_warning: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "saved").mkdir()
    open_dataset(data_with_warning, SETTINGS).store.save(tmp_path / "saved")
    assert len(GraphStore.load(tmp_path / "saved")) == 12
    assert known_warnings(tmp_path / "saved") == []
