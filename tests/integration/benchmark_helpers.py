"""Tasks of benchmarks on sixty crystals."""

import json
from pathlib import Path
from typing import Any

N_FOLDS = 3

TASK = """\
# @package _global_
dataset:
  path: {path}
  targets: [{target}]
  units: {{band_gap: eV}}
  {more}
task:
  name: matbench_toy
  n_folds: 3
  n_rows: 60
  published: {{best: 0.001, middling: 1e3, worst: 1e6}}
  source: a test
"""

QUICK = [
    "trainer.max_epochs=2",
    "trainer.batch_size=16",
    "model.hidden=8",
    "trainer.progress=false",
    "trainer.figures=false",
]
QUICK += ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu"]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_tasks(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write the tasks toy and frame and their data on sixty crystals.

    The folds of toy are a column of its file; the file of frame has the format of Matbench.
    """
    rows = [record | {"fold": i % N_FOLDS, "other": i % 2} for i, record in enumerate(records)]
    (folder / "toy.json").write_text(json.dumps(rows))
    frame = {
        "index": list(range(60)),
        "columns": ["structure", "is_wide"],
        "data": [[record["crystal_structure"], record["band_gap"] > 2] for record in records],
    }
    (folder / "frame.json").write_text(json.dumps(frame))
    (folder / "mine" / "task").mkdir(parents=True)
    fold = "split: {method: fold, column: fold}"
    matbench = "tasks: {is_wide: classification}\n  split: {method: matbench, stratify: is_wide}"
    tasks = {"toy": ("toy.json", "band_gap", fold), "frame": ("frame.json", "is_wide", matbench)}
    for name, (path, target, more) in tasks.items():
        text = TASK.format(path=folder / path, target=target, more=more)
        (folder / "mine" / "task" / f"{name}.yaml").write_text(text)
