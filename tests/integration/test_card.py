"""`csgcnn card` writes the model card of a checkpoint."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml

import csgcnn as api

Command = Callable[..., Any]


def front_matter(text: str) -> dict[str, Any]:
    _, header, _ = text.split("---\n", 2)
    return dict(yaml.safe_load(header))


def test_the_card_of_a_run_states_its_errors_data_and_domain(
    csgcnn: Command, run: Path, tmp_path: Path
) -> None:
    words = ("card", str(run), "license=cc-by-4.0", "name=gaps")
    answer = csgcnn(*words, cwd=tmp_path)
    assert (answer.code, "model card: README.md" in answer.out) == (0, True), answer.said
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    facts, measured = front_matter(text), json.loads((run / "metrics.json").read_text())
    assert (facts["license"], facts["library_name"]) == ("cc-by-4.0", "csgcnn")
    (model,) = facts["model-index"]
    (result,) = model["results"]
    mae = measured["test"]["band_gap"]["mae"]
    assert result["metrics"][0]["type"] == "mae"
    assert result["metrics"][0]["value"] == pytest.approx(mae, rel=1e-4)
    assert result["task"] == {"type": "tabular-regression", "name": "band_gap"}
    constant = measured["baseline_test_mae"]["band_gap"]
    composition = measured["composition_test_mae"]["band_gap"]
    row = f"| band_gap | MAE [eV] | {mae:.4g} | {constant:.4g} | {composition:.4g} |"
    for part in (row, f"| train rows | {measured['n_rows']['train']} |", "crystals (60).json.gz"):
        assert part in text, part
    assert "- `unseen_pair`: " in text
    assert str(run) not in text
    answer = csgcnn(*words, cwd=tmp_path)
    assert (answer.code, "overwrite=true to replace" in answer.err) == (2, True)
    assert csgcnn(*words, "overwrite=true", cwd=tmp_path).code == 0
    with chdir(run / "checkpoints"):
        assert row in api.model_card("best.ckpt")


def test_what_is_unknown_is_left_out(csgcnn: Command, run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    answer = csgcnn("card", "alone.ckpt", "output=card.md", cwd=tmp_path)
    assert (answer.code, "no license" in answer.out) == (0, True), answer.said
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert front_matter(text).keys() == {"library_name", "tags"}
    headings = re.findall(r"^## (.+)", text, re.MULTILINE)
    known = ["What it predicts", "Training data", "Domain of validity", "Limits", "How to load"]
    assert headings == [*known, "Citation"]
    # The errors in a run are those of best.ckpt.
    assert "## Errors" not in api.model_card(run / "checkpoints" / "last.ckpt")


@pytest.mark.filterwarnings("ignore::csgcnn.DataWarning")
def test_site_features_are_named_with_what_their_potential_was_trained_on(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    words = ("node_features=[pretrained]", "hydra.run.dir=run")
    assert csgcnn("train", *small, *words, cwd=tmp_path).code == 0
    assert csgcnn("card", "run", cwd=tmp_path).code == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "which was trained on band gaps and formation energies" in text


def test_the_blocks_of_a_card_run(csgcnn: Command, run: Path, cifs: Path, tmp_path: Path) -> None:
    shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "my gaps.ckpt")
    shutil.copy(next(cifs.iterdir()), tmp_path / "structure.cif")
    text = api.model_card(tmp_path / "my gaps.ckpt")
    install, command = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1].splitlines()  # type: ignore[index]
    assert install == "pip install csgcnn"
    assert command == "csgcnn predict 'ckpt=my gaps.ckpt' structures=structure.cif"
    answer = csgcnn("predict", "ckpt=my gaps.ckpt", "structures=structure.cif", cwd=tmp_path)
    assert answer.code == 0, answer.said
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]  # type: ignore[index]
    names: dict[str, Any] = {}
    with chdir(tmp_path):
        exec(code.replace("\nmodel.", "\nfound = model."), names)
    assert names["found"].columns[0] == "band_gap [eV]"
