"""Trainings and predictions with the kernels of numba and without."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from csgcnn.nn.compiled import SWITCH

pytest.importorskip("numba", reason="the kernels need csgcnn[fast]")


@pytest.mark.parametrize("model", ["csgann", "csgcnn"])
def test_runs_with_and_without_kernels_agree(
    csgcnn: Callable[..., Any],
    small: list[str],
    cifs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
) -> None:
    errors, values = [], []
    for switch in ("numba", "torch"):
        monkeypatch.setenv(SWITCH, switch)
        run = tmp_path / switch
        answer = csgcnn("train", *small, f"model={model}", f"hydra.run.dir={run}", cwd=tmp_path)
        assert answer.code == 0, answer.said
        errors.append(json.loads((run / "metrics.json").read_text())["test"]["band_gap"]["mae"])
        words = [f"ckpt={run}", f"structures={cifs}", f"output={run}.csv"]
        assert csgcnn("predict", *words, cwd=tmp_path).code == 0
        values.append(pd.read_csv(f"{run}.csv")["band_gap [eV]"].to_numpy())
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-2, atol=1e-3)
