"""Progress of work on many crystals: a bar on a terminal, and elsewhere some lines."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from csgcnn.training.progress import FIRST, LONGEST

log = logging.getLogger(__name__)


@contextmanager
def counted(
    title: str,
    is_shown: bool = True,
    done: int = 0,
    terminal: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], object]]:
    """Report how many crystals are done; lines come at growing times, as those of a training.

    Args:
        title: What is done, such as "building graphs".
        is_shown: Whether anything is reported.
        done: Crystals that were done before.
        terminal: Stream of the bar.
        clock: Returns the time in seconds.

    Yields:
        A function to call with the number of crystals that were just done.
    """
    terminal = terminal or sys.stderr
    if is_shown and terminal.isatty():
        with tqdm(desc=title, unit="crystal", delay=1, initial=done, file=terminal) as bar:
            yield bar.update
        return
    start = last = clock()
    interval, n_done = FIRST, 0

    def count(n: int) -> None:
        nonlocal last, interval, n_done
        n_done += n
        now = clock()
        if is_shown and now - last >= interval:
            last, interval = now, min(2 * interval, LONGEST)
            rate = n_done / (now - start)
            log.info("%s: %d crystals, %.3g per second", title, done + n_done, rate)

    yield count
