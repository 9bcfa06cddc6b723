"""`csgcnn predict`: structures and a checkpoint in, a table of predictions out."""

import logging

from omegaconf import DictConfig, ListConfig
from tqdm import tqdm

from csgcnn.config import user_path
from csgcnn.crystals.build import Rejected, Warnings, merge_warnings, warning_lines
from csgcnn.crystals.datasets import iter_structures
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.data.cache import write_rejected
from csgcnn.files import replacing_csv
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
    report = rejected_path(output)
    targets = predictor.targets
    n_predicted, rejected, unseen, warned = 0, list[Rejected](), dict[str, str](), Warnings()
    with (
        replacing_csv(output, ["id", *predicted_columns(targets)]) as table,
        tqdm(unit="crystal", delay=1, disable=None) as bar,
    ):
        report.unlink(missing_ok=True)
        for chunk in predictor.stream(records, cfg.batch_size, cfg.workers):
            for id_, row in zip(chunk.ids, chunk.values.tolist(), strict=True):
                table.writerow([id_, *map(_short, predicted_cells(row, targets))])
            for id_, strange in zip(chunk.ids, chunk.unseen, strict=True):
                unseen |= {SYMBOLS[z]: id_ for z in strange if SYMBOLS[z] not in unseen}
            rejected += chunk.rejected
            warned = merge_warnings([warned, chunk.warnings])
            n_predicted += len(chunk.ids)
            bar.update(len(chunk.ids) + len(chunk.rejected))
    for line in warning_lines(warned):
        log.warning("%s", line)
    for symbol, id_ in unseen.items():
        log.warning("%s was never seen in training, its predictions are guesses (first in %s)", symbol, id_)
    log.info("%d structures predicted: %s", n_predicted, output)
    if rejected:
        write_rejected(rejected, report)
        log.warning("%d structures could not be used: %s", len(rejected), report)
    return 1 if rejected and cfg.on_error != "skip" else 0


def _short(cell: float | str) -> str:
    return cell if isinstance(cell, str) else f"{cell:.6g}"
