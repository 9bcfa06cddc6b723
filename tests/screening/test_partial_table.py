from pathlib import Path

import pytest

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.errors import UserError
from csgcnn.screening.partial_table import PartialTable, partial_folder


def partial(tmp_path: Path, resume: bool = True, ckpt: str = "a") -> PartialTable:
    return PartialTable(tmp_path / "out.csv", {"ckpt": ckpt, "structures": "b"}, resume)


def add_and_fail(table: PartialTable) -> None:
    with table:
        table.add(
            [["x", "1"]], [Rejected("y", 'no, "not" one\nline')], {"odd": (1, "x")}, {"Pu": "x"}
        )
        raise KeyboardInterrupt


def test_rows_that_were_added_are_there_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        add_and_fail(partial(tmp_path))
    with open(partial_folder(tmp_path / "out.csv") / "rows.csv", "a") as file:
        file.write("z,half a ro")  # by a process that was killed
    with partial(tmp_path) as table:
        assert (table.journal.n_records, table.journal.n_rejected) == (2, 1)
        table.journal.skip(iter(["y", "x", "z"]))
        table.add([["z", "2"]], [], {"odd": (2, "z")}, {"Pu": "z", "Np": "z"})
        assert [*table.rows()] == [["x", "1"], ["z", "2"]]
        assert [*table.rows("rejected.csv")] == [["y", 'no, "not" one\nline']]
        assert table.journal.warnings == {"odd": (3, "x")}
        assert table.journal.unseen == {"Pu": "x", "Np": "z"}
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("ids", [["x"], ["x", "z"], ["x", "x"]])
def test_other_records_are_not_skipped(ids: list[str], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        add_and_fail(partial(tmp_path))
    with (
        pytest.raises(UserError, match="the first 2 structures are no longer those"),
        partial(tmp_path) as table,
    ):
        table.journal.skip(iter(ids))
    with partial(tmp_path) as table:
        assert table.journal.n_records == 2, "the refusal cost nothing"


def test_what_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        add_and_fail(partial(tmp_path))
    journal = partial_folder(tmp_path / "out.csv") / "journal.json"
    with pytest.raises(UserError, match="another ckpt"):
        partial(tmp_path, ckpt="c").__enter__()
    journal.write_text("{")
    with pytest.raises(UserError, match=r"journal\.json is damaged"):
        partial(tmp_path).__enter__()
    with partial(tmp_path, resume=False) as table:
        assert table.journal.n_records == 0
        assert [*table.rows()] == []


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with partial(tmp_path), pytest.raises(UserError, match="another process"):
        partial(tmp_path).__enter__()


def test_a_failure_before_the_first_row_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), partial(tmp_path):
        raise ZeroDivisionError
    assert [*tmp_path.iterdir()] == []


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        partial(tmp_path / "gone").__enter__()
