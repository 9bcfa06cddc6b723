from pathlib import Path

from csgcnn.cli.reference import OPTION_GROUPS, PRESET_GROUPS, reference
from csgcnn.config.locations import group_names, option_names

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run make reference"


def test_the_reference_page_has_every_option_of_every_group() -> None:
    text = PAGE.read_text(encoding="utf-8")
    groups = group_names()
    assert {*groups} == {*OPTION_GROUPS, *PRESET_GROUPS}
    for group in groups:
        for option in option_names(group):
            assert f"{group}={option}" in text
