"""Structures and tables that are easily read wrong: each is read right, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from check_structures import mismatch, observe

FOLDER = Path(__file__).parent / "structures"
CASES = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_structure_is_read_right_or_refused_by_name(case: dict[str, Any]) -> None:
    found, _ = observe(FOLDER / case["file"], case.get("is_table", False))
    reasons = [mismatch(case[key], found) for key in ("expect", "or_expect") if key in case]
    assert None in reasons, (reasons, found)
