"""Plain YAML files of a user."""

from pathlib import Path

import pytest

from csgcnn.config.user_files import user_folders
from csgcnn.errors import ConfigError


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"trainer: {max_epochs: 3\nseed: 1\n", r"mine\.yaml, line 2: expected ',' or '}'"),
        (b"- seed\n- 1\n", r"mine\.yaml: expected lines with a key and its value"),
        (b"# \xe9\nseed: 1\n", r"mine\.yaml: expected text in UTF-8"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused_by_name(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=expected), user_folders(tmp_path, "mine", "train"):
        pass


def test_an_empty_file_overrides_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# nothing yet\n")
    with user_folders(tmp_path, "mine", "train") as folders:
        assert "defaults:" in (folders[0] / "mine.yaml").read_text()
