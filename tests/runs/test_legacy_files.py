"""Test that damaged and forged files of torch.save are refused."""

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from legacy_files import (
    STORED,
    WHOLE,
    load,
    members,
    refused,
    storage,
    tensor,
    write_zip,
)
from refusals import refusal, same

from csgcnn.errors import UserError
from csgcnn.predictor import Predictor
from csgcnn.runs.untrusted import Limits

pytestmark = pytest.mark.usefixtures("little_memory")


def overlapping() -> bytes:
    """Of two members the directory says that they are the same bytes of the file."""
    pickled = tensor(storage("1"))
    inside = {"data.pkl": pickled, "version": b"3", "data/0": bytes(16), "data/1": bytes(16)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in inside.items():
            archive.writestr(f"archive/{name}", content)
        archive.infolist()[3].header_offset = archive.infolist()[2].header_offset
    return buffer.getvalue()


def zipped(*names: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")  # two members of the same name
        for name in names:
            archive.writestr(name, bytes(10_000))
    return buffer.getvalue()


TENSOR_BYTES = members(WHOLE)["data/0"]
FILES = {
    "empty": (b"", "truncated"),
    "text": (b"material_id,band_gap\n", "is not a model"),
    "another archive": (zipped("hello.txt"), "is not a model"),
    "an empty archive": (zipped(), "is not a model"),
    "half": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "the last byte missing": (WHOLE[:-1], "truncated"),
    "a byte of a tensor": (WHOLE.replace(TENSOR_BYTES, TENSOR_BYTES[::-1]), "CRC"),
    "compressed": (zipped("a/data.pkl", compression=zipfile.ZIP_DEFLATED), "compressed"),
    "two of a name": (zipped("a/data.pkl", "a/data.pkl"), "two of the same name"),
    "overlapping": (overlapping(), "truncated"),
    "of terminal codes": (zipped("a/data.pkl\x1b[31m\n"), "is not a model"),
}


@pytest.mark.parametrize("what", FILES)
def test_other_files_are_refused(what: str, tmp_path: Path) -> None:
    content, part = FILES[what]
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", part)


def test_a_directory_and_a_pipe_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "is a directory; did you mean")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is not a regular file")
    refused(tmp_path / "absent", "is not a regular file")


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        (Limits(file_bytes=len(WHOLE) - 1), "expected at most"),
        (Limits(members=3), "members"),
        (Limits(depth=1), "nested too deeply"),
    ],
)
def test_limits(limits: Limits, part: str) -> None:
    load(STORED)
    assert part in refusal(partial(load, limits=limits), STORED)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert"]), st.integers(0), st.integers(0, 255)),
    min_size=1,
)


def changed(content: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    for change, position, byte in changes[:5]:
        i = position % (len(content) + 1)
        end = {"flip": i + 1, "cut": i + 1 + byte * 20, "insert": i}[change]
        content = content[:i] + (b"" if change == "cut" else bytes([byte])) + content[end:]
    return content


def fuzz(function: Callable[..., None]) -> Callable[..., None]:
    """Sixty cases that never change."""
    check = settings(
        max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return check(given(changes=CHANGES)(function))


@fuzz
def test_a_damaged_file_reads_as_before_or_is_refused(
    changes: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(changed(WHOLE, changes))
    with suppress(UserError):
        assert same(load(tmp_path / "a"), load(STORED))


@fuzz
def test_a_forged_file_is_a_model_or_refused(
    changes: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    inside = members(WHOLE)
    pickled = changed(inside.pop("data.pkl"), changes)
    with suppress(UserError):
        Predictor.load(write_zip(tmp_path / "a", pickled, **inside))
