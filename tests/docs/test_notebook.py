from pathlib import Path

import nbformat
import pytest
from doc_pages import ROOT
from nbclient import NotebookClient


@pytest.mark.slow
def test_the_tutorial_notebook_trains_and_predicts(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "examples" / "tutorial.ipynb", as_version=4)
    kernel = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=kernel).execute()
    printed = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    errors = [out for out in printed if out.output_type == "error"]
    assert not errors
    assert any("test MAE" in out.get("text", "") for out in printed)
    assert list(tmp_path.glob("runs/**/best.ckpt"))
