"""Train on several ranks: rank 0 reads the command line, the others take its configuration."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from csgcnn import distributed
from csgcnn.errors import AbortError
from csgcnn.runs.directory import RunDirectory
from csgcnn.training.interruption import Interruption

Train = Callable[[DictConfig, RunDirectory, Path | None, Interruption], float]


@contextmanager
def leading(cfg: DictConfig, source: Path | None) -> Iterator[None]:
    """Have all ranks train with a configuration; to be entered by rank 0.

    Args:
        cfg: Configuration of the training.
        source: Folder of the run to resume, if there is one.

    Raises:
        AbortError: Rank 0 alone failed. The other ranks are still training, so that a sweep
            cannot start its next job.
    """
    if distributed.world_size() == 1:
        yield
        return
    job = {
        "config": OmegaConf.to_container(cfg, resolve=True),
        "source": str(source.absolute()) if source else None,
    }
    distributed.broadcast_text(json.dumps(job))
    try:
        yield
    except distributed.CollectiveError:
        raise
    except Exception as error:
        raise AbortError from error


def follow_rank_0(train: Train) -> int:
    """Train with rank 0 until it has no more trainings; return the exit code.

    Only rank 0 writes the run; the other ranks write to folders that they remove.

    Args:
        train: Trains with a configuration in a run directory.
    """
    code = 0
    while job := _next_job():
        cfg, source = OmegaConf.create(job["config"]), job["source"]
        cfg.trainer.progress = False
        try:
            with (
                tempfile.TemporaryDirectory() as scratch,
                Interruption(cfg.trainer.max_minutes) as interruption,
                RunDirectory(Path(scratch)) as run,
            ):
                train(cfg, run, Path(source) if source else None, interruption)
        except SystemExit as stop:
            # rank 0 ends its sweep, too
            return int(stop.code or 0)
        except distributed.CollectiveError:
            code = 1
    return code


def _next_job() -> dict[str, Any]:
    try:
        return json.loads(distributed.broadcast_text() or "{}")
    except distributed.RankLostError:
        # rank 0 has ended, and reported why
        return {}
