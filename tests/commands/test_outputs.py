from pathlib import Path

import pytest

from csgcnn.commands.outputs import check_output
from csgcnn.errors import ConfigError


def test_a_new_output_is_accepted(tmp_path: Path) -> None:
    check_output(tmp_path / "p.csv", [tmp_path / "p.rejected.csv"], [tmp_path / "a.cif"], False)


@pytest.mark.parametrize("existing", ["p.csv", "p.rejected.csv"])
def test_existing_files_are_kept_unless_the_user_says_so(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).touch()
    output, others = tmp_path / "p.csv", [tmp_path / "p.rejected.csv"]
    with pytest.raises(ConfigError, match=rf"{existing} exists: .*overwrite=true"):
        check_output(output, others, [], False)
    check_output(output, others, [], True)


def test_a_link_to_nothing_is_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "p.csv").symlink_to(tmp_path / "absent")
    with pytest.raises(ConfigError, match="exists"):
        check_output(tmp_path / "p.csv", [], [], False)


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "list.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "list.csv")
    with pytest.raises(ConfigError, match=r"link\.csv is an input"):
        check_output(tmp_path / "link.csv", [], [tmp_path / "list.csv"], True)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_output(tmp_path / "p.csv", [], [], True)
