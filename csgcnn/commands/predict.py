"""`csgcnn predict`: structures and a checkpoint in, a table of predictions out."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from tqdm import tqdm

from csgcnn.config.paths import user_path
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.graph_builder import Rejected, warning_lines
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.data.store import open_store
from csgcnn.data.store_files import is_store
from csgcnn.data.targets import with_unit
from csgcnn.errors import ConfigError
from csgcnn.hardware import cores, select_device
from csgcnn.io import write_csv
from csgcnn.predictor import Prediction, Predictor, checkpoint_paths
from csgcnn.runs.tables import predicted_cells, predicted_columns, rejected_path
from csgcnn.screening.partial_table import Journal, PartialTable, partial_folder
from csgcnn.screening.selection import selection
from csgcnn.screening.table_files import check_format, write_table
from csgcnn.screening.workers import predict_store

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> int:
    """Predict every structure that can be used; returns the exit code, 1 if any was rejected and may not be."""
    output = user_path(cfg.output)
    suffix = check_format(output)
    report = rejected_path(output.with_name(output.name.removesuffix(suffix)))
    if cfg.resume and output.exists() and not partial_folder(output).exists():
        log.info(
            "%s is complete, there is nothing to do; without resume=true it is made again", output
        )
        return _exit_code(report.exists(), cfg.on_error)
    paths, sources = checkpoint_paths(_listed(cfg.ckpt)), _listed(cfg.structures)
    predictor = Predictor.load(paths, select_device(cfg.device, _threads(sources, cfg.workers)))
    targets = predictor.targets
    columns = [("id", ""), *predicted_columns(targets, predictor.has_std)]
    texts = {"id", *(target.name for target in targets if target.classes)}
    names, is_number = [name for name, _ in columns], [name not in texts for name, _ in columns]
    usual = targets[0].name if len(targets) == 1 and not targets[0].classes else None
    wanted = selection(names, is_number, cfg.where, cfg.top, cfg.by, cfg.order, usual)
    chunks = _source(predictor, paths, sources, cfg)
    started_with = {
        "ckpt": [*map(_digest, paths)],
        "structures": [[source, _content(source)] for source in sources],
    }
    with PartialTable(output, started_with, cfg.resume) as partial:
        with tqdm(unit="crystal", delay=1, disable=None, initial=partial.journal.n_records) as bar:
            for chunk in chunks(partial.journal):
                rows = [
                    [id_, *map(_short, cells)]
                    for id_, cells in zip(chunk.ids, _cells(chunk, predictor), strict=True)
                ]
                unseen = {SYMBOLS[z]: id_ for z, id_ in chunk.unseen.items()}
                partial.add(rows, chunk.rejected, chunk.warnings, unseen)
                bar.update(len(rows) + len(chunk.rejected))
        header = [with_unit(name, unit) for name, unit in columns]
        n_rows = write_table(
            partial.folder / f"table{suffix}", header, is_number, wanted.of(partial.rows())
        )
        report.unlink(missing_ok=True)
        if partial.journal.n_rejected:
            write_csv(partial.folder / "report.csv", Rejected._fields, partial.rows("rejected.csv"))
            partial.publish("report.csv", report)
        partial.publish(f"table{suffix}", output)
    _tell(partial.journal, n_rows, output, report)
    return _exit_code(partial.journal.n_rejected > 0, cfg.on_error)


def _source(
    predictor: Predictor, paths: Sequence[Path], sources: Sequence[str], cfg: DictConfig
) -> Callable[[Journal], Iterator[Prediction]]:
    """What predicts the structures that come after those of a journal.

    Raises:
        UserError: there are none, or they are a store that cannot be used.
    """
    folders = [folder for source in sources if is_store(folder := user_path(source))]
    if folders and len(sources) > 1:
        raise ConfigError(
            f"structures: {folders[0]} is a store of graphs, which is predicted alone; give nothing else"
        )
    if folders:
        store = open_store(folders[0]).to("cpu", resident=False)
        predictor.check_settings(store)
        workers = cfg.workers or max(
            1, cores() // 2
        )  # two threads do more for a network than a second process
        return lambda journal: predict_store(
            predictor, paths, store, folders[0], cfg.batch_size, workers, journal.n_records
        )
    records = iter_structures(sources)

    def of_records(journal: Journal) -> Iterator[Prediction]:
        journal.skip(record.id for record in records)
        return predictor.stream(records, cfg.batch_size, cfg.workers)

    return of_records


def _threads(sources: Sequence[str], workers: int | None) -> int | None:
    """Threads for the network: half of the cores where others build graphs, for waiting threads keep a core busy."""
    if workers == 1 or any(is_store(user_path(source)) for source in sources):
        return None
    return min(torch.get_num_threads(), max(1, cores() // 2))


def _tell(journal: Journal, n_rows: int, output: Path, report: Path) -> None:
    for line in warning_lines(journal.warnings):
        log.warning("%s", line)
    if journal.unseen:
        symbols = ", ".join(
            f"{symbol} (first in {id_})" for symbol, id_ in sorted(journal.unseen.items())
        )
        log.warning(
            "predictions with elements that were never seen in training are guesses: %s", symbols
        )
    n_predicted = journal.n_records - journal.n_rejected
    left_out = f", {n_predicted - n_rows} left out by where and top" if n_rows < n_predicted else ""
    log.info("%d structures predicted%s: %s", n_predicted, left_out, output)
    if journal.n_rejected:
        log.warning("%d structures could not be used: %s", journal.n_rejected, report)


def _cells(chunk: Prediction, predictor: Predictor) -> Iterator[list[Any]]:
    std = [None] * len(chunk.ids) if chunk.std is None else chunk.std.tolist()
    for row, deviation in zip(chunk.values.tolist(), std, strict=True):
        yield predicted_cells(row, predictor.targets, deviation)


def _short(cell: float | str) -> str:
    return cell if isinstance(cell, str) else f"{cell:.6g}"


def _exit_code(any_rejected: bool, on_error: str) -> int:
    return 1 if any_rejected and on_error != "skip" else 0


def _listed(given: Any) -> list[str]:
    return [*map(str, given)] if isinstance(given, ListConfig) else [str(given)]


def _content(source: str) -> str:
    """The digest of what a path leads to, if that is a file or a store; of folders only the names are compared."""
    path = user_path(source)
    file = path / "meta.json" if is_store(path) else path
    return _digest(file) if file.is_file() else ""


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
