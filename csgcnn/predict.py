"""`csgcnn predict`: structures and a checkpoint in, a table of predictions out."""

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig
from tqdm import tqdm

from csgcnn.config import user_path
from csgcnn.crystals.build import Rejected
from csgcnn.crystals.datasets import iter_structures
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.errors import UserError
from csgcnn.predictor import Predictor
from csgcnn.training.report import predicted_cells, predicted_columns
from csgcnn.training.run_directory import rejected_path
from csgcnn.wiring import select_device

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> int:
    """Predict every structure that can be used; returns the exit code, 1 if any was rejected and may not be."""
    device = select_device(cfg.device)
    predictor = Predictor.load(cfg.ckpt, device)
    sources = list(cfg.structures) if isinstance(cfg.structures, ListConfig) else [str(cfg.structures)]
    records = iter_structures(sources)
    output = user_path(cfg.output)
    rejected = rejected_path(output)
    targets = predictor.targets
    n_predicted, n_rejected, unseen = 0, 0, dict[str, str]()
    with (
        _table(output, ["id", *predicted_columns(targets)]) as table,
        tqdm(unit="crystal", delay=1, disable=None) as bar,
    ):
        rejected.unlink(missing_ok=True)
        for chunk in predictor.stream(records, cfg.batch_size, cfg.workers):
            for id_, row in zip(chunk.ids, chunk.values.tolist(), strict=True):
                table.writerow([id_, *map(_short, predicted_cells(row, targets))])
            for id_, strange in zip(chunk.ids, chunk.unseen, strict=True):
                unseen |= {SYMBOLS[z]: id_ for z in strange if SYMBOLS[z] not in unseen}
            _append_rejected(chunk.rejected, rejected)
            n_predicted += len(chunk.ids)
            n_rejected += len(chunk.rejected)
            bar.update(len(chunk.ids) + len(chunk.rejected))
    for symbol, id_ in unseen.items():
        log.warning("%s was never seen in training, its predictions are guesses (first in %s)", symbol, id_)
    log.info("%d structures predicted: %s", n_predicted, output)
    if n_rejected:
        log.warning("%d structures could not be used: %s", n_rejected, rejected)
    return 1 if n_rejected and cfg.on_error != "skip" else 0


@contextmanager
def _table(path: Path, header: list[str]) -> Iterator[Any]:
    try:
        file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115 (closed below, opened here to name the file)
    except OSError as error:
        raise UserError(f"output={path}: {error.strerror}") from error
    with file:
        writer = csv.writer(file)
        writer.writerow(header)
        yield writer


def _short(cell: float | str) -> str:
    return cell if isinstance(cell, str) else f"{cell:.6g}"


def _append_rejected(rejected: list[Rejected], path: Path) -> None:
    if rejected:
        new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([Rejected._fields, *rejected] if new else rejected)
