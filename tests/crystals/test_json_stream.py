import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from record_lists import read_records
from structure_text import CSCL, Write

from csgcnn.crystals.data_tables import json_lines_table, json_table
from csgcnn.crystals.datasets import iter_records
from csgcnn.crystals.json_stream import JsonStream
from csgcnn.crystals.text_files import TextLimits
from csgcnn.errors import UserError

VALUES: list[Any] = [
    [], {}, 0, -1.5e-7, 1234567890123, True, None, "", [[[], {}], {"a": [1, 2]}],
    'a "quoted" \\ text, ] } \u00e9 \U0001f600',
]  # fmt: skip


# Bytes that are read at once: values and characters are cut anywhere.
in_pieces = pytest.mark.parametrize("piece_bytes", [1, 2, 7, 2**20])


def read_list(path: Path, piece_bytes: int) -> list[Any]:
    stream = JsonStream(path, TextLimits(piece_bytes=piece_bytes))
    values = list(stream.items())
    stream.end()
    return values


@in_pieces
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("packed", [True, False])
def test_a_list_item_by_item(
    tmp_path: Path, ascii_only: bool, indent: int | None, packed: bool, piece_bytes: int
) -> None:
    path = tmp_path / "list.json"
    text = f" \n{json.dumps(VALUES, ensure_ascii=ascii_only, indent=indent)}\n".encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    assert read_list(path, piece_bytes) == VALUES


@in_pieces
@pytest.mark.parametrize(
    "text", ["[1 2]", "[1,]", "[1, 2", "[1]]", "[", '["a]', "[nul]", "[1] 2", "[-]"]
)
def test_a_file_without_a_valid_list_is_refused(
    tmp_path: Path, text: str, piece_bytes: int
) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(
        UserError, match=r"list\.json: not valid JSON .*at character \d.*it starts with"
    ):
        read_list(path, piece_bytes)


@in_pieces
def test_every_json_format_gives_the_same_records(write: Write, piece_bytes: int) -> None:
    rows = [{"id": f"c{number}", "gap": number / 3, "structure": CSCL} for number in range(20)]
    expected = read_records(write("a.json", rows))
    assert [record.columns["gap"] for record in expected] == [number / 3 for number in range(20)]
    values = [(row["gap"], row["structure"]) for row in rows]
    frame = {
        "columns": ["gap", "structure"],
        "index": [row["id"] for row in rows],
        "data": [[row["gap"], CSCL] for row in rows],
    }
    for name, content in {
        "lines.jsonl": "\n".join(map(json.dumps, rows)),
        "lines.jsonl.gz": gzip.compress("\n\n".join(map(json.dumps, rows)).encode()),
        "frame.json": frame,
        "reordered.json": {key: frame[key] for key in ("data", "index", "columns")},
        "longer.json": frame | {"metadata": {"data": []}},
    }.items():
        path = write(name, content)
        assert read_records(path) == expected, name
        stream = JsonStream(path, TextLimits(piece_bytes=piece_bytes))
        table = json_lines_table(stream) if "jsonl" in name else json_table(stream)
        assert [(row["gap"], row["structure"]) for _, row, _ in table.rows] == values, name


def test_records_after_the_first_thousand_may_have_more_columns(write: Write) -> None:
    rows = [{"id": number, "structure": CSCL} for number in range(1001)]
    *_, last = iter_records(write("a.json", [*rows, {"id": "last", "structure": CSCL, "gap": 1}]))
    assert (last.id, last.columns) == ("last", {"gap": 1})


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "frame.json"])
def test_memory_does_not_grow_with_the_file(write: Write, name: str) -> None:
    rows = [{"id": str(number), "note": "x" * 20_000, "structure": CSCL} for number in range(2000)]
    text = "\n".join(map(json.dumps, rows)) if "jsonl" in name else json.dumps(rows)
    if name == "frame.json":
        data = [["x" * 20_000, CSCL] for _ in rows]
        text = json.dumps(
            {"columns": ["note", "structure"], "index": list(range(len(rows))), "data": data}
        )
    path = write(name, gzip.compress(text.encode(), 1) if name.endswith(".gz") else text)
    del rows, text
    records = iter_records(path)
    for _ in range(1000):
        next(records)
    tracemalloc.start()
    n_more = sum(1 for _ in records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_more == 1000
    # The rest of the file has 20 MB.
    assert peak < 8_000_000


def test_a_value_without_end_is_not_read_to_the_end(write: Write) -> None:
    path = write("a.json", '["' + "x" * 2**25)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"not valid JSON .Unterminated string"):
        list(JsonStream(path, max_value_bytes=2**21).items())
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
