import csv
import errno
import json
import logging
import multiprocessing
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from filelock import FileLock
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import GraphChunk, Rejected, build_graphs
from csgcnn.crystals.records import ReadOptions, Record
from csgcnn.data.cache import default_cache_folder, open_dataset, write_rejected
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError

SETTINGS = GraphSettings()


@pytest.fixture
def rows(dielectric_records: list[Record]) -> list[dict[str, Any]]:
    """Twelve records as a user would write them, one of them unusable."""
    named = [
        {"material_id": record.id, "structure": record.source, "name": f"row {record.id}"}
        | record.columns
        for record in dielectric_records[:11]
    ]
    bad = {"material_id": 'bad, "one"', "structure": {"species": ["H"]}, "name": "bad"}
    return [*named, bad | {"band_gap": 1.0}]


@pytest.fixture
def data(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "mine" / "set.json"
    path.parent.mkdir()
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CSGCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def not_again(*_: object) -> NoReturn:
    """Replace the builder of graphs where nothing may be built."""
    raise AssertionError("the graphs were built again")


def assert_same(one: GraphStore, other: GraphStore) -> None:
    assert (one.ids, one.columns, one.settings) == (other.ids, other.columns, other.settings)
    everything = torch.arange(len(one))
    for name in ("atomic_number", "edge_index", "distance", "edge_multiplicity"):
        assert torch.equal(
            getattr(one.batch(everything), name), getattr(other.batch(everything), name)
        )


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


def shorten(path: Path) -> None:
    content = path.read_bytes()
    # A store that is open keeps the old file.
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("distance.npy", shorten),
        ("lattice.npy", shorten),
        ("meta.json", shorten),
        ("distance.npy", Path.unlink),
        ("meta.json", Path.unlink),
        ("rejected.json", Path.unlink),
    ],
)
def test_a_damaged_cache_is_named_and_built_again(
    data: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    built, rejected = open_dataset(data, SETTINGS)
    (entry,) = entries(folder)
    damage(entry / name)
    with caplog.at_level(logging.WARNING):
        again, rejected_again = open_dataset(data, SETTINGS)
    assert_same(again, built)
    assert rejected_again == rejected
    assert len(caplog.records) == 1
    assert name in caplog.text
    assert entries(folder) == [entry]
    open_dataset(data, SETTINGS, builder=not_again)


@pytest.mark.parametrize("content", [b"[[]]", b'[["a", 1]]', b"{}", b"[" * 100_000, b"\xff"])
def test_malformed_reasons_are_built_again(data: Path, folder: Path, content: bytes) -> None:
    _, rejected = open_dataset(data, SETTINGS)
    (entry,) = entries(folder)
    meta = json.loads((entry / "meta.json").read_text())
    meta["crc32"]["rejected.json"] = zlib.crc32(content)
    (entry / "rejected.json").write_bytes(content)
    (entry / "meta.json").write_text(json.dumps(meta))
    assert open_dataset(data, SETTINGS)[1] == rejected


@st.composite
def damaged(draw: st.DrawFn, files: dict[str, bytes]) -> tuple[str, bytes]:
    """A file of a cache, some bytes of which are flipped, replaced, inserted or cut."""
    name = draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(draw(st.integers(1, 3))):
        at, n_lost = (
            draw(st.integers(0, len(content))),
            draw(st.sampled_from([1, 1, 4, 0, 50, len(content)])),
        )
        content[at : at + n_lost] = draw(
            st.sampled_from([b"", b"9", b"\0", b"\xff\x7f", b"[", b'"', b"\0\0\xc0\x7f"])
        )
    return name, bytes(content)


def test_any_damage_is_found_or_harmless(
    data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    built, rejected = open_dataset(data, SETTINGS)
    (entry,) = entries(folder)
    files = {path.name: path.read_bytes() for path in entry.iterdir()}
    reasons: list[str] = []

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(damaged(files))
    def try_one(damage: tuple[str, bytes]) -> None:
        for name, content in files.items():
            (entry / name).write_bytes(content)
        name, content = damage
        assume(content != files[name])
        (entry / name).write_bytes(content)
        try:
            GraphStore.load(entry)
        except ValueError as error:
            reasons.append(str(error))
        again, rejected_again = open_dataset(data, SETTINGS)
        assert_same(again, built)
        assert rejected_again == rejected
        assert_same(GraphStore.load(entry), built)

    try_one()
    assert len(reasons) > 10
    assert all(reason.startswith(str(entry)) for reason in reasons)


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


def test_of_two_processes_at_once_one_builds(data: Path, folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    n_built, started = fork.Value("i", 0), fork.Barrier(2, timeout=20)

    def counted(*args: Any) -> Iterator[GraphChunk]:
        with n_built.get_lock():
            n_built.value += 1
        time.sleep(0.3)
        return build_graphs(*args)

    class Exit(logging.Handler):
        """Coming second is not a fault that deserves a warning."""

        def emit(self, record: logging.LogRecord) -> None:
            os._exit(2)

    def process() -> None:
        logging.getLogger("csgcnn").addHandler(Exit(logging.WARNING))
        started.wait()
        store, rejected = open_dataset(data, SETTINGS, builder=counted)
        os._exit(0 if (len(store), len(rejected)) == (11, 1) else 1)

    processes = [fork.Process(target=process) for _ in range(2)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(30)
    assert [one.exitcode for one in processes] == [0, 0]
    assert n_built.value == 1
    assert len(entries(folder)) == 1
    assert len(open_dataset(data, SETTINGS, builder=not_again)[0]) == 11


def test_without_locks_all_build_and_the_first_wins(
    data: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    def no_locks(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError

    expected, _ = open_dataset(data, SETTINGS, cache_folder=tmp_path / "other")
    (first,) = entries(tmp_path / "other")

    def overtaken(*args: Any) -> Iterator[GraphChunk]:
        """Build as usual, while another process finishes first."""
        yield from build_graphs(*args)
        shutil.copytree(first, folder / first.name)

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    assert_same(open_dataset(data, SETTINGS, builder=overtaken)[0], expected)
    assert not caplog.messages
    assert [entry.name for entry in entries(folder)] == [first.name]


def test_a_cache_folder_that_cannot_be_made_only_warns(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, _ = open_dataset(data, SETTINGS, cache_folder=data / "below a file")
    assert len(store) == 11
    assert "not cached" in caplog.text
    assert str(data / "below a file") in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_folder_only_warns(
    data: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    store, _ = open_dataset(data, SETTINGS)
    assert len(store) == 11
    assert "not cached" in caplog.text


def test_a_full_disk_only_warns(
    data: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store, _ = open_dataset(data, SETTINGS)
    assert len(store) == 11
    assert "not cached: [Errno 28] No space left on device" in caplog.text
    assert entries(folder) == []


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
