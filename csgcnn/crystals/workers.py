"""Worker processes that compute results in order."""

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_context
from typing import TypeVar

from csgcnn.errors import UserError

START_METHOD = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
# New objects between garbage collections, instead of 700. Structures are many small lists without
# reference cycles, which the garbage collector would search again and again.
GC_THRESHOLD = 100_000

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    n_workers: int,
    n_queued: int,
    lost: UserError,
    start: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Yield the results of a function in order, computed in worker processes.

    Args:
        function: The function, which is sent to the workers.
        items: Its arguments, which are read as they are needed.
        n_workers: Number of processes.
        n_queued: Results that are computed ahead of the one that is yielded.
        lost: Raised if a worker is killed.
        start: Called by each worker when it starts.
    """
    queue: deque[tuple[Item, Future[Result]]] = deque()

    def first_result() -> Result:
        item, future = queue.popleft()
        try:
            return future.result()
        except RecursionError:
            # The item is nested too deeply to be sent to another process.
            return function(item)

    with ProcessPoolExecutor(n_workers, get_context(START_METHOD), start) as pool:
        try:
            for item in items:
                queue.append((item, pool.submit(function, item)))
                if len(queue) > n_queued:
                    yield first_result()
            while queue:
                yield first_result()
        except BrokenProcessPool as error:
            raise lost from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Collect garbage rarely within the context."""
    before = gc.get_threshold()
    gc.set_threshold(GC_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)
