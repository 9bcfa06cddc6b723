import csv
import errno
import os
from pathlib import Path

import pytest

from csgcnn.errors import UserError
from csgcnn.io import replacing, replacing_csv, write_bytes, write_csv, write_text


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Å\n")
    write_bytes(tmp_path / "a.bin", b"\0\r\n")
    write_csv(tmp_path / "a.csv", ["id", "why"], [["x", 'a "quoted", cell'], ["y", 1]])
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "Å\n"
    assert (tmp_path / "a.bin").read_bytes() == b"\0\r\n"
    with open(tmp_path / "a.csv", newline="") as file:
        assert list(csv.reader(file)) == [["id", "why"], ["x", 'a "quoted", cell'], ["y", "1"]]
    assert len(list(tmp_path.iterdir())) == 3


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replacing_csv(path, ["id"]) as writer:
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


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*a\.txt: No such file or directory"):
        write_text(tmp_path / "gone" / "a.txt", "x")


def test_an_error_of_the_writer_is_its_own(tmp_path: Path) -> None:
    def fails() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not list(tmp_path.iterdir())


def test_others_may_read_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
