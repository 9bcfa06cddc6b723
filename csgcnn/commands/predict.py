"""`csgcnn predict`: predict structures with a trained model and write a table."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from csgcnn import __version__
from csgcnn.commands.counting import counted
from csgcnn.commands.outputs import check_output
from csgcnn.commands.predicted_table import PredictedTable
from csgcnn.commands.prepare import plain
from csgcnn.commands.structures import (
    exit_code,
    folder_of_graphs,
    listed,
    load_model,
    structure_options,
)
from csgcnn.config.keys import command_keys
from csgcnn.config.paths import user_path
from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.crystals.structure_warnings import WARNING_COLUMNS, StructureNote, warning_rows
from csgcnn.data.cache import check_options, known_warnings
from csgcnn.data.given_inputs import Given, given_values, points
from csgcnn.data.record_reports import RecordReports, warn_of_rejected
from csgcnn.data.store_files import is_store
from csgcnn.errors import ConfigError, plural
from csgcnn.hardware import cores
from csgcnn.io import file_digest, format_cell, write_csv
from csgcnn.predictor import Predictor
from csgcnn.runs.models import checkpoint_paths
from csgcnn.runs.predictions import Prediction
from csgcnn.runs.tables import predicted_rows
from csgcnn.screening.partial_table import Part, PartialTable, partial_folder
from csgcnn.screening.table_files import check_format
from csgcnn.screening.workers import Source, predict_store

log = logging.getLogger(__name__)

NO_INTERVALS = "this model, which predicts no standard deviation and has no calibration rows"

Chunks = Callable[[PartialTable], Iterator[Prediction]]


def predict(cfg: DictConfig, chunk_size: int | None = None, seconds_per_part: float = 5.0) -> int:
    """Predict all usable structures, and write the selected rows to a table.

    Args:
        cfg: Configuration of the command.
        chunk_size: Structures that are predicted at once; None: a few hundred or thousand.
        seconds_per_part: Time after which predictions are on disk.

    Returns:
        The exit code: 1 if nothing was predicted, or if structures were rejected and on_error is
        not skip.

    Raises:
        UserError: The checkpoints or the structures cannot be used.
        ConfigError: The selection or the format of the table is wrong, or it exists.
    """
    output = user_path(cfg.output)
    suffix = check_format(output)
    reports = RecordReports.beside(output, suffix)
    if cfg.resume and output.exists() and not partial_folder(output).exists():
        log.info("%s is complete, nothing to do; omit resume=true to predict again", output)
        return exit_code(reports.rejected.exists(), cfg.on_error)
    sources = listed(cfg.structures)
    inputs = map(user_path, [*listed(cfg.ckpt), *sources])
    is_resumed = cfg.resume and partial_folder(output).exists()
    check_output(output, reports.paths, inputs, cfg.overwrite or is_resumed)
    checkpoints = checkpoint_paths(listed(cfg.ckpt))
    predictor = load_model(cfg, _threads(sources, cfg.workers))
    given = given_values(plain(cfg.inputs), predictor.input_columns)
    n_points = len(points(given))
    table = PredictedTable(predictor, cfg)
    _check_read(cfg, predictor, sources)
    chunks = _chunks(predictor, checkpoints, sources, cfg, chunk_size, given)
    identity = _identity(cfg, checkpoints, sources)
    with PartialTable(output, identity, cfg.resume, seconds_per_part, n_points) as partial:
        _fill(partial, chunks, predictor, cfg.level)
        _publish_list(
            partial, reports.rejected, partial.n_rejected, Rejected._fields, partial.rejected()
        )
        if partial.n_predicted:
            rows = warning_rows(partial.warnings())
            n_warnings = partial.summary.n_warnings
            _publish_list(partial, reports.warnings, n_warnings, WARNING_COLUMNS, rows)
            n_rows = table.write(partial.folder / f"table{suffix}", partial.rows())
            partial.publish(f"table{suffix}", output)
            _log_predicted(partial, table, n_points * partial.n_predicted - n_rows, output, reports)
        else:
            kept = f"; {output} is that of an earlier command" if output.exists() else ""
            log.error("no structure was predicted, and no table is written%s", kept)
        warn_of_rejected(partial.rejected(), partial.n_rejected, reports.rejected)
    return exit_code(partial.n_rejected, cfg.on_error) if partial.n_predicted else 1


def _check_read(cfg: DictConfig, predictor: Predictor, sources: Sequence[str]) -> None:
    """Check that the model or the structures leave no value that was given without effect."""
    unread = []
    if not predictor.has_intervals:
        unread.append(("level", NO_INTERVALS))
    if any(is_store(user_path(source)) for source in sources):
        of_records = ("id_column", "structure_column", "all_blocks", "formula_mismatch")
        unread += [(key, "built graphs") for key in of_records]
    # refuses a level for which there are too few calibration rows
    predictor.bounds(predictor.empty(), cfg.level)
    keys = command_keys("predict")
    for key, place in unread:
        if cfg[key] != keys[key].default:
            raise ConfigError(f"{key}={cfg[key]} has no effect on {place}; omit it")


def _identity(
    cfg: DictConfig, checkpoints: Sequence[Path], sources: Sequence[str]
) -> dict[str, Any]:
    """Return what the predictions depend on."""
    return {
        "ckpt": [*map(file_digest, checkpoints)],
        "structures": [[source, _content_digest(source)] for source in sources],
        "level": cfg.level,
        "inputs": plain(cfg.inputs),
        "columns": [cfg.id_column, cfg.structure_column],
        "all_blocks": cfg.all_blocks,
        "formula_mismatch": cfg.formula_mismatch,
        "version of csgcnn": __version__,
    }


def _chunks(
    predictor: Predictor,
    checkpoints: Sequence[Path],
    sources: Sequence[str],
    cfg: DictConfig,
    chunk_size: int | None,
    given: Given,
) -> Chunks:
    """Return a function that predicts the structures after those of a partial table."""
    size = {} if chunk_size is None else {"chunk_size": chunk_size}
    folder = folder_of_graphs(sources)
    options = structure_options(cfg)
    if folder:
        check_options(folder, options)
        source = Source(tuple(checkpoints), folder, tuple(cfg.plugins))
        notes = defaultdict[str, list[StructureNote]](list)
        for note in known_warnings(source.store):
            notes[note.id].append(note)
        # A network gains more from two threads than from a second process.
        workers = cfg.workers or max(1, cores() // 2)

        def of_store(partial: PartialTable) -> Iterator[Prediction]:
            for chunk in predict_store(
                predictor,
                source,
                cfg.batch_size,
                workers,
                first=partial.n_records,
                given=given,
                **size,
            ):
                warnings = [note for id_ in dict.fromkeys(chunk.ids) for note in notes.get(id_, ())]
                yield replace(chunk, warnings=warnings)

        return of_store
    records = iter_structures(sources, options)

    def of_records(partial: PartialTable) -> Iterator[Prediction]:
        partial.skip(record.id for record in records)
        return predictor.stream(
            records,
            cfg.batch_size,
            cfg.workers,
            formula_mismatch=cfg.formula_mismatch,
            given=given,
            **size,
        )

    return of_records


def _fill(partial: PartialTable, chunks: Chunks, predictor: Predictor, level: float) -> None:
    with counted("predicting", done=partial.n_records) as count:
        for chunk in chunks(partial):
            cells = _cells(chunk, predictor, level)
            inputs = (
                [str(format_cell(cell)) for cell in column] for column in chunk.inputs.values()
            )
            rows = [
                [id_, *of_inputs, *of_row]
                for id_, of_row, *of_inputs in zip(chunk.ids, cells, *inputs, strict=True)
            ]
            n_before = partial.n_records
            partial.add(Part(rows, chunk.rejected, chunk.warnings))
            count(partial.n_records - n_before)


def _cells(chunk: Prediction, predictor: Predictor, level: float) -> Iterator[list[str]]:
    bounds, texts = predictor.bounds(chunk, level), zip(*chunk.texts.values(), strict=True)
    rows = predicted_rows(
        chunk.values, predictor.targets, chunk.std, bounds, with_bounds=bounds is not None
    )
    for row, of_row in zip(rows, texts, strict=True):
        cells = [*row, *of_row]
        yield [cell if isinstance(cell, str) else f"{cell:.8g}" for cell in cells]


def _threads(sources: Sequence[str], workers: int | None) -> int | None:
    """Return the threads of the network: half of the cores if processes build graphs.

    Threads that wait for work keep a core busy.
    """
    if workers == 1 or any(is_store(user_path(source)) for source in sources):
        return None
    return min(torch.get_num_threads(), max(1, cores() // 2))


def _publish_list(
    partial: PartialTable,
    path: Path | None,
    n_rows: int,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
) -> None:
    """Write a list beside the table; without rows, remove that of an earlier command."""
    if path and n_rows:
        write_csv(partial.folder / path.name, header, rows)
        partial.publish(path.name, path)
    elif path:
        path.unlink(missing_ok=True)


def _log_predicted(
    partial: PartialTable,
    table: PredictedTable,
    n_left_out: int,
    output: Path,
    reports: RecordReports,
) -> None:
    report = reports.warnings.name if reports.warnings else ""
    for line in [*partial.summary.lines(report, table.summary.counts), *table.lines()]:
        log.warning("%s", line)
    left_out = f", {n_left_out} left out by where and top" if n_left_out else ""
    log.info("%s predicted%s: %s", plural(partial.n_predicted, "structure"), left_out, output)


def _content_digest(source: str) -> str:
    """Return the digest of a file or a store, or nothing for a folder."""
    path = user_path(source)
    file = path / "meta.json" if is_store(path) else path
    return file_digest(file) if file.is_file() else ""
