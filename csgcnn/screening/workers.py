"""Predict the rows of a store, in one process or in several."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from csgcnn.crystals.workers import map_in_processes
from csgcnn.data.given_inputs import NOTHING_GIVEN, Given
from csgcnn.data.store import GraphStore, open_store
from csgcnn.errors import UserError
from csgcnn.hardware import cores
from csgcnn.predictor import Predictor
from csgcnn.runs.predictions import Prediction
from csgcnn.runs.row_predictor import STORE_ROWS

# Predicting as many rows takes some ten seconds, starting processes takes two.
PARALLEL_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Source:
    """A store and the checkpoints that predict it, which each process opens for itself.

    Attributes:
        checkpoints: Files of the model.
        store: Folder of the store.
        plugins: Packages whose classes the checkpoints may name.
    """

    checkpoints: tuple[Path, ...]
    store: Path
    plugins: tuple[str, ...] = ()


def predict_store(
    predictor: Predictor,
    source: Source,
    batch_size: int = 256,
    workers: int = 1,
    first: int = 0,
    chunk_size: int = STORE_ROWS,
    parallel_rows: int = PARALLEL_ROWS,
    given: Given = NOTHING_GIVEN,
) -> Iterator[Prediction]:
    """Predict the rows of a store in chunks, in order.

    Args:
        predictor: The model.
        source: Its checkpoints, and the store.
        batch_size: Crystals per forward pass.
        workers: Processes that share the cores; on a GPU only one is used.
        first: First row to predict.
        chunk_size: Rows per chunk.
        parallel_rows: Number of rows from which on several processes are used.
        given: Values of inputs for all rows.

    Raises:
        UserError: The store has other graphs than those of the model, or a process was killed.
    """
    store = _open_mapped(source.store, predictor.device)
    predictor.check_settings(store)
    if workers == 1 or predictor.device.type != "cpu" or len(store) - first < parallel_rows:
        yield from predictor.stream_store(store, batch_size, first, chunk_size, given)
        return
    chunks = (
        range(start, min(start + chunk_size, len(store)))
        for start in range(first, len(store), chunk_size)
    )
    threads = max(1, cores() // workers)
    yield from map_in_processes(
        partial(_predict, source, batch_size, threads, given),
        chunks,
        workers,
        2 * workers,
        UserError(
            "a process was killed, probably for lack of memory; use fewer, such as workers=1"
        ),
    )


def _open_mapped(folder: Path, device: torch.device | str = "cpu") -> GraphStore:
    """Open a store whose graphs stay in their files."""
    return open_store(folder).to(device, resident=False)


def _predict(
    source: Source, batch_size: int, threads: int, given: Given, rows: range
) -> Prediction:
    predictor, store = _opened(source, threads)
    return predictor.predict_rows(store, rows, batch_size, given)


# once in each process
@cache
def _opened(source: Source, threads: int) -> tuple[Predictor, GraphStore]:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    return Predictor.load(source.checkpoints, "cpu", source.plugins), _open_mapped(source.store)
