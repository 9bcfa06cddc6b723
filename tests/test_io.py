import errno
import json
import math
import os
import threading
from pathlib import Path

import pytest

from csgcnn.errors import UserError
from csgcnn.io import (
    csv_writer,
    exclusive,
    exclusive_when_free,
    file_digest,
    read_csv,
    replacing,
    whole_folder,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def test_written_files_can_be_read(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Å\n")
    write_bytes(tmp_path / "a.bin", b"\0\r\n")
    write_csv(tmp_path / "a.csv", ["id", "why"], [["x", 'a "quoted", cell'], ["y", 1]])
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "Å\n"
    assert (tmp_path / "a.bin").read_bytes() == b"\0\r\n"
    rows = [{"id": "x", "why": 'a "quoted", cell'}, {"id": "y", "why": "1"}]
    assert read_csv(tmp_path / "a.csv") == rows
    assert len(list(tmp_path.iterdir())) == 3


def test_numbers_have_seven_digits_and_nan_is_empty(tmp_path: Path) -> None:
    rows = [["a", 1 / 3], ["b", math.nan], ["c", 2]]
    write_csv(tmp_path / "a.csv", ["id", "x"], rows)
    assert (tmp_path / "a.csv").read_text().split() == ["id,x", "a,0.3333333", "b,", "c,2"]
    write_csv(tmp_path / "a.csv", ["id", "x"], rows[:1], exact=True)
    assert read_csv(tmp_path / "a.csv") == [{"id": "a", "x": str(1 / 3)}]


def test_readers_see_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replacing(path) as file, csv_writer(file, ["id"]) as writer:
        writer.writerows([["x"]] * 10_000)
        assert path.read_text() == "old"
    assert path.read_text().startswith("id")


def test_a_full_disk_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*metrics\.json: No space left on device"):
        write_text(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ("metrics.json", "old")
    ]


def test_a_missing_folder_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*a\.txt: No such file or directory"):
        write_text(tmp_path / "gone" / "a.txt", "x")


def test_other_errors_pass_and_leave_no_file(tmp_path: Path) -> None:
    def fails() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not list(tmp_path.iterdir())


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_json_has_null_for_numbers_that_are_not_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"mae": float("nan"), "r2": -float("inf"), "n": 1, "unit": "Å"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"mae": None, "r2": None, "n": 1, "unit": "Å"}


def test_a_folder_is_complete_or_absent(tmp_path: Path) -> None:
    def fails() -> None:
        with whole_folder(tmp_path / "store") as folder:
            (folder / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not list(tmp_path.iterdir())
    for content in ("first", "second"):
        with whole_folder(tmp_path / "store") as folder:
            (folder / "a").write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert (tmp_path / "store" / "a").read_text() == "first"


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with exclusive(path, "busy"), pytest.raises(UserError) as error, exclusive(path, "busy"):
        pytest.fail("two hold the lock")
    assert str(error.value) == "busy"
    with pytest.raises(ZeroDivisionError), exclusive(path, "busy"):
        raise ZeroDivisionError
    with exclusive(path, "busy"):
        pass


def test_a_lock_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / ".lock"
    with pytest.raises(UserError, match=r"cannot write to .*file: "), exclusive(path, "busy"):
        pytest.fail("the lock file cannot exist")


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    order, waits = list[str](), threading.Event()

    def wait() -> None:
        with exclusive_when_free(tmp_path / ".lock", waits.set, patience=0.01):
            order.append("second")

    with exclusive_when_free(tmp_path / ".lock", lambda: pytest.fail("the lock was free")):
        thread = threading.Thread(target=wait)
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
