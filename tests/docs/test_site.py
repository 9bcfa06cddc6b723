import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    build = (sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path))
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    outside = r"[^>]*=\"?(?:https?:)?//"
    loads = re.compile(
        rf"<(?:script|img|iframe|source|link rel=\"?(?:stylesheet|icon)\"?){outside}"
    )
    styles = re.compile(r"(?:url\(|@import )[\"']?(?:https?:)?//")
    assert not [page for page in tmp_path.rglob("*.html") if loads.search(page.read_text("utf-8"))]
    assert not [page for page in tmp_path.rglob("*.css") if styles.search(page.read_text("utf-8"))]
