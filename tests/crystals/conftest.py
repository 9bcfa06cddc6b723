import json
from pathlib import Path
from typing import Any

import pytest
from structure_text import POSCAR, Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: Any = POSCAR) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file
