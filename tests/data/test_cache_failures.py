"""Test damaged caches, concurrent writers and folders that cannot be written."""

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
from cache_files import SETTINGS, assert_same, entries, not_again
from filelock import FileLock
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from csgcnn.crystals.graph_builder import GraphChunk, build_graphs
from csgcnn.data.cache import open_dataset
from csgcnn.data.store import GraphStore


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
        ("warnings.json", Path.unlink),
    ],
)
def test_a_damaged_cache_is_named_and_built_again(
    data: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    built, rejected, _ = open_dataset(data, SETTINGS)
    (entry,) = entries(folder)
    damage(entry / name)
    with caplog.at_level(logging.WARNING):
        again, rejected_again, _ = open_dataset(data, SETTINGS)
    assert_same(again, built)
    assert rejected_again == rejected
    assert len(caplog.records) == 1
    assert name in caplog.text
    assert entries(folder) == [entry]
    open_dataset(data, SETTINGS, builder=not_again)


@pytest.mark.parametrize("content", [b"[[]]", b'[["a", 1]]', b"{}", b"[" * 100_000, b"\xff"])
def test_malformed_reasons_are_built_again(data: Path, folder: Path, content: bytes) -> None:
    _, rejected, _ = open_dataset(data, SETTINGS)
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
    built, rejected, _ = open_dataset(data, SETTINGS)
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
        again, rejected_again, _ = open_dataset(data, SETTINGS)
        assert_same(again, built)
        assert rejected_again == rejected
        assert_same(GraphStore.load(entry), built)

    try_one()
    assert len(reasons) > 10
    assert all(reason.startswith(str(entry)) for reason in reasons)


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
        store, rejected, _ = open_dataset(data, SETTINGS, builder=counted)
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

    expected = open_dataset(data, SETTINGS, cache_folder=tmp_path / "other").store
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
    store = open_dataset(data, SETTINGS, cache_folder=data / "below a file").store
    assert len(store) == 11
    assert "not cached" in caplog.text
    assert str(data / "below a file") in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_folder_only_warns(
    data: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    store = open_dataset(data, SETTINGS).store
    assert len(store) == 11
    assert "not cached" in caplog.text


def test_a_full_disk_only_warns(
    data: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store = open_dataset(data, SETTINGS).store
    assert len(store) == 11
    assert "not cached: [Errno 28] No space left on device" in caplog.text
    assert entries(folder) == []


@pytest.mark.parametrize("folder", [None, Path("x" * 300)], ids=["no home", "impossible name"])
def test_graphs_stay_in_memory_without_a_usable_cache_folder(
    data: Path,
    folder: Path | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_home() -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    for name in ("CSGCNN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert len(open_dataset(data, SETTINGS, cache_folder=folder).store)
    assert "the graphs are not cached: " in caplog.text
