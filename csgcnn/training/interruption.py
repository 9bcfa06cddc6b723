"""Signals and a time limit: the training stops where it can be continued."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

REQUEUE = 75  # exit code of a run that is to be continued (EX_TEMPFAIL of sysexits.h)
SAME = 0.5  # seconds in which a second SIGINT is the first one, passed on by torchrun, which met it, too
EXIT_CODES = {
    "SIGTERM": 143,
    "SIGINT": 130,
    "SIGUSR1": REQUEUE,
}  # SIGUSR1: a cluster's warning before its time limit


class Interruption:
    """While it is entered, signals end the program with their exit code; while `deferred`, they set `reason` instead.

    Whoever defers looks at `code` where the state is whole, saves it and ends the program. A later second SIGINT is not
    deferred. After `max_minutes` there is a `reason`, too.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else None
        self._max_minutes = max_minutes
        self._signal: str | None = None
        self._signalled_at = 0.0
        self._is_deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # signals reach no other
            for name in EXIT_CODES:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def reason(self) -> str | None:
        """Why to stop, if there is a reason."""
        if self._signal is None and self._deadline and time.monotonic() > self._deadline:
            return f"trainer.max_minutes={self._max_minutes:g}"
        return self._signal

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let signals wait."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    @property
    def code(self) -> int:
        """The exit code to stop with, 0 if there is no reason."""
        return EXIT_CODES[self._signal] if self._signal else REQUEUE if self.reason else 0

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        is_again = self._signal == "SIGINT" and number == signal.SIGINT
        if is_again and time.monotonic() - self._signalled_at < SAME:
            return
        self._signal, self._signalled_at = signal.Signals(number).name, time.monotonic()
        if not self._is_deferred or is_again:
            raise SystemExit(self.code)
        if number == signal.SIGINT:
            os.write(2, b"\nfinishing the batch and saving; Ctrl-C again stops at once\n")
