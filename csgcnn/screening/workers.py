"""Predictions for the rows of a store, in one process or in several."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch

from csgcnn.crystals.graph_builder import START_METHOD
from csgcnn.data.store import GraphStore, open_store
from csgcnn.errors import UserError
from csgcnn.hardware import cores
from csgcnn.predictor import STORE_ROWS, Prediction, Predictor

MANY = 100_000  # rows: some ten seconds of work, as starting processes takes two


def predict_store(
    predictor: Predictor,
    paths: Sequence[Path],
    store: GraphStore,
    folder: Path,
    batch_size: int,
    workers: int,
    first: int = 0,
) -> Iterator[Prediction]:
    """Predict the rows of the store in `folder` from `first` on, chunk by chunk, in order.

    Many rows are shared out among `workers` processes that share the cores, unless a GPU does the work; each reads the
    checkpoints `paths` of `predictor` and opens the store for itself.

    Raises:
        UserError: the store's graphs are not those of the model, or a process was killed.
    """
    if workers == 1 or predictor.device.type != "cpu" or len(store) - first < MANY:
        yield from predictor.stream_store(store, batch_size, first)
        return
    parts = [
        range(start, min(start + STORE_ROWS, len(store)))
        for start in range(first, len(store), STORE_ROWS)
    ]
    threads = max(1, cores() // workers)
    with ProcessPoolExecutor(workers, mp_context=get_context(START_METHOD)) as pool:
        waiting: deque[Future[Prediction]] = deque()
        try:
            for rows in parts:
                waiting.append(
                    pool.submit(_predict, tuple(paths), folder, rows, batch_size, threads)
                )
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            told = "a predicting process was killed, probably for want of memory; try fewer (workers=1)"
            raise UserError(told) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _predict(
    paths: tuple[Path, ...], folder: Path, rows: range, batch_size: int, threads: int
) -> Prediction:
    predictor, store = _opened(paths, folder, threads)
    return predictor.predict_rows(store, rows, batch_size)


@cache  # once in each process
def _opened(paths: tuple[Path, ...], folder: Path, threads: int) -> tuple[Predictor, GraphStore]:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    return Predictor.load(paths), open_store(folder).to("cpu", resident=False)
