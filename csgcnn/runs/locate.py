"""Find the checkpoint, or the run, that a path stands for: a file, a run or a folder of runs."""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from csgcnn.errors import UserError
from csgcnn.io import read_json

log = logging.getLogger(__name__)

# Levels of folders above the runs of a sweep, and runs that a message lists.
DEPTHS, MOST_LISTED = ("*", "*/*", "*/*/*"), 6


class _Run(NamedTuple):
    """A run below a folder.

    Attributes:
        folder: Its folder.
        data: Targets and split; scores of equal ones can be compared.
        score: Validation score, lower is better; NaN where it is unknown.
    """

    folder: Path
    data: Any
    score: float


def find_checkpoint(path: Path, key: str) -> Path:
    """Return the checkpoint that a path stands for, and log which where it is a folder.

    Args:
        path: A checkpoint, a run, its folder `checkpoints`, or a sweep, of which the run with the
            lowest validation score is taken.
        key: Key that gave the path, for messages.

    Raises:
        UserError: There is no checkpoint, or it is not clear which one to take.
    """
    if not path.is_dir():
        return path
    found = next(filter(Path.is_file, (path / "checkpoints/best.ckpt", path / "best.ckpt")), None)
    if found is None:
        if (path / "config.yaml").is_file():
            raise UserError(f"{key}={path}: this run has no checkpoints/best.ckpt yet")
        found = _best_run(path, key) / "checkpoints" / "best.ckpt"
    log.info("%s=%s: taking %s", key, path, found)
    return found


def find_run(path: Path) -> Path:
    """Return the folder of the run that `resume=` stands for.

    Args:
        path: A run, its folder `checkpoints`, a file in one of these, or a folder that holds one
            run.

    Raises:
        UserError: There is no run, or there are several.
    """
    if not path.exists():
        raise UserError(f"resume={path}: there is no run, and no such folder")
    folder = path.parent if path.is_file() else path
    folder = folder.parent if folder.name == "checkpoints" else folder
    if (folder / "config.yaml").is_file():
        return folder
    runs = _runs(path) if path.is_dir() else []
    if not runs:
        kind = "the folder" if path.is_dir() else "the folder of the file"
        raise UserError(f"resume={path}: {kind} holds no run (no config.yaml)")
    if len(runs) > 1:
        raise UserError(f"resume={path} holds {len(runs)} runs; give one of {_listed(runs)}")
    return runs[0]


def _best_run(folder: Path, key: str) -> Path:
    """Return the run of a sweep with the lowest validation score."""
    runs = [_read(run) for run in _runs(folder) if (run / "checkpoints/best.ckpt").is_file()]
    if not runs:
        raise UserError(f"{key}={folder}: the folder holds no run with checkpoints/best.ckpt")
    is_comparable = all(run.data == runs[0].data for run in runs)
    if len(runs) > 1 and not (is_comparable and all(math.isfinite(run.score) for run in runs)):
        raise UserError(
            f"{key}={folder} holds {len(runs)} runs whose scores cannot be compared; give one of "
            f"{_listed(run.folder for run in runs)}"
        )
    return min(runs, key=lambda run: run.score).folder


def _runs(folder: Path) -> list[Path]:
    """Return the runs below a folder; the members of an ensemble are not runs of their own."""
    found: list[Path] = []
    for depth in DEPTHS:
        for config in sorted(folder.glob(f"{depth}/config.yaml")):
            if not any(run in config.parents for run in found):
                found.append(config.parent)
    return found


def _read(folder: Path) -> _Run:
    try:
        metrics: Any = read_json(folder / "metrics.json")
        split = (folder / "splits.json").read_text(encoding="utf-8")
        return _Run(folder, (metrics["units"], split), float(metrics["val_score"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return _Run(folder, None, math.nan)


def _listed(runs: Iterable[Path]) -> str:
    names: Sequence[str] = [str(run) for run in runs]
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
