from pathlib import Path

import pytest

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.errors import UserError
from csgcnn.screening.partial_table import Part, PartialTable, partial_folder

STRANGE = StructureNote("x", "parser", "strange")
FIRST = Part([["x", "1"]], [Rejected("y", 'no, "not" one\nline')], [STRANGE])


def partial(tmp_path: Path, resume: bool = True, ckpt: str = "a") -> PartialTable:
    return PartialTable(tmp_path / "out.csv", {"ckpt": ckpt, "structures": "b"}, resume)


def interrupt(table: PartialTable, *parts: Part) -> None:
    def add_parts_until_interrupted() -> None:
        with table:
            for part in parts:
                table.add(part)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_parts_until_interrupted()


def test_interrupted_table_is_resumed(tmp_path: Path) -> None:
    interrupt(partial(tmp_path), FIRST)
    with partial(tmp_path) as table:
        assert (table.n_records, table.n_rejected) == (2, 1)
        table.skip(iter(["y", "x", "z"]))
        table.add(Part([["z", "2"]], [], [STRANGE._replace(id="z")]))
        assert [*table.rows()] == [["x", "1"], ["z", "2"]]
        assert [*table.rejected()] == [["y", 'no, "not" one\nline']]
        assert [*table.warnings()] == [STRANGE, STRANGE._replace(id="z")]
        assert table.summary.n_warnings == 2
    assert [*tmp_path.iterdir()] == []


def test_parts_are_written_every_few_seconds(tmp_path: Path) -> None:
    folder = partial_folder(tmp_path / "out.csv")
    for seconds, n_files in ((0.0, 3), (60.0, 0)):
        with PartialTable(tmp_path / "out.csv", {}, False, seconds) as table:
            for id_ in "abc":
                table.add(Part([[id_, "1"]]))
            assert len([*folder.glob("part-*")]) == n_files
            assert [row[0] for row in table.rows()] == ["a", "b", "c"]


def test_half_written_files_are_ignored(tmp_path: Path) -> None:
    interrupt(partial(tmp_path), FIRST)
    (partial_folder(tmp_path / "out.csv") / ".part-000001.json.abc.tmp").write_text('{"rows": [[')
    with partial(tmp_path) as table:
        assert [*table.rows()] == [["x", "1"]]


@pytest.mark.parametrize("ids", [["x"], ["x", "z"], ["x", "x"]])
def test_other_records_are_not_skipped(ids: list[str], tmp_path: Path) -> None:
    interrupt(partial(tmp_path), FIRST)
    with (
        pytest.raises(UserError, match="the first 2 structures are no longer those"),
        partial(tmp_path) as table,
    ):
        table.skip(iter(ids))
    with partial(tmp_path) as table:
        assert table.n_records == 2, "the refusal changed nothing"


def test_other_inputs_and_damaged_files_are_refused(tmp_path: Path) -> None:
    interrupt(partial(tmp_path), FIRST)
    folder = partial_folder(tmp_path / "out.csv")
    with pytest.raises(UserError, match="another ckpt"):
        partial(tmp_path, ckpt="c").__enter__()
    for name in ("part-000000.json", "manifest.json"):
        (folder / name).write_text("{")
        with pytest.raises(UserError, match=rf"{name} is damaged"):
            partial(tmp_path).__enter__()


def test_without_resume_a_table_starts_again(tmp_path: Path) -> None:
    interrupt(partial(tmp_path), FIRST)
    with partial(tmp_path, resume=False) as table:
        assert table.n_records == 0
        assert [*table.rows()] == []


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with partial(tmp_path), pytest.raises(UserError, match="another process"):
        partial(tmp_path).__enter__()


def test_failure_before_the_first_record_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), partial(tmp_path):
        raise ZeroDivisionError
    assert [*tmp_path.iterdir()] == []


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        partial(tmp_path / "gone").__enter__()
