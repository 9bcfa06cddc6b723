import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from record_lists import read_records
from structure_text import CIF, Write

from csgcnn.crystals.structure_files import read_structure_file
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.text_files import TextLimits
from csgcnn.errors import StructureError, UserError

# pymatgen warns of what it corrects.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "a device, pipe or socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, pipe or socket"),
        (Path.mkdir, "a folder"),
        (lambda path: path.symlink_to(path.parent), "a folder"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to(path.parent / "gone.cif"), "no such file"),
    ],
    ids=["pipe", "device", "folder", "link to a folder", "link to itself", "link to nothing"],
)
def test_only_regular_files_are_opened(
    write: Write, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "a.cif"
    make(path)
    with pytest.raises(StructureError, match=reason):
        to_crystal(path)
    link = tmp_path / "link.cif"
    link.symlink_to(write("real.cif", CIF))
    assert len(to_crystal(link).atomic_number) == 2


@pytest.mark.parametrize(
    ("name", "reason"), [("a\0.cif", "null byte"), ("a" * 300 + ".cif", "name too long")]
)
def test_names_that_the_system_refuses_are_reported(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=rf"cannot be read \(.*{reason}"):
        to_crystal(tmp_path / name)


def test_a_file_and_its_text_have_at_most_the_largest_size(write: Write) -> None:
    packed, plain = write("a.cif.gz", gzip.compress(CIF.encode())), write("a.cif", CIF)
    for path in (packed, plain):
        read_structure_file(path, TextLimits(max_bytes=len(CIF)))
    too_small = TextLimits(max_bytes=len(CIF) - 1)
    with pytest.raises(StructureError, match="unpacks to more than"):
        read_structure_file(packed, too_small)
    with pytest.raises(StructureError, match="bytes; a structure file may have up to"):
        read_structure_file(plain, too_small)


def test_a_structure_file_above_the_default_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    with open(path, "wb") as file:
        file.truncate(2**27 + 1)
    with pytest.raises(StructureError, match=r"the file has 1\.34e\+08 bytes; .* may have up to"):
        to_crystal(path)


def test_a_decompression_bomb_is_not_unpacked(write: Write) -> None:
    limits = TextLimits(free_gzip_bytes=2**20, max_blank_bytes=2**30)
    read_structure_file(write("a.cif.gz", gzip.compress(CIF.encode() + b"\n" * 2**19)), limits)
    bomb = gzip.compress(b"\n" * 2**25)
    path = write("a.cif.gz", gzip.compress(CIF.encode()) + bomb)
    reason = f"gzip file of {path.stat().st_size} bytes unpacks to more than"
    tracemalloc.start()
    with pytest.raises(StructureError, match=reason):
        read_structure_file(path, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_data_set_that_is_a_decompression_bomb_is_refused(write: Write) -> None:
    bomb = write("set.json.gz", gzip.compress(b'["') + gzip.compress(b"a" * 2**24) * 8)
    with pytest.raises(UserError, match=r"set\.json\.gz: the gzip file of .* unpacks to more than"):
        read_records(bomb)


def test_megabytes_of_blanks_are_refused(write: Write) -> None:
    path = write("set.csv.gz", gzip.compress(b"id,file,gap\n" + b" " * (2**23 + 2**21)))
    with pytest.raises(UserError, match=r"set\.csv\.gz: the file holds \d+ MiB of blanks"):
        read_records(path)
    write("a.cif", CIF.encode() + b"\n" * 2**20)
    assert len(to_crystal(path.with_name("a.cif")).atomic_number) == 2
