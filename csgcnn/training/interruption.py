"""Signals and the time limit, which stop a training where it can be resumed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

REQUEUE = 75  # exit code of a run to resume: EX_TEMPFAIL of sysexits.h
# A cluster sends SIGUSR1 before its time limit.
EXIT_CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": REQUEUE}
REPEAT_AFTER = 0.5  # s


class Interruption:
    """Handle SIGTERM, SIGINT and SIGUSR1 within a `with` block.

    A signal ends the program with its exit code. Within `deferred` it sets `reason` and `exit_code`
    instead, and the training saves its state and stops after the current step. A second SIGINT ends
    the program at once.

    Args:
        max_minutes: Time limit, after which `reason` and `exit_code` are set; None: no limit.
        repeat_after: Time in s after which a SIGINT counts as the second one. torchrun forwards the
            SIGINT that the terminal sent to all processes, so each receives it twice.
    """

    def __init__(
        self, max_minutes: float | None = None, repeat_after: float = REPEAT_AFTER
    ) -> None:
        self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else None
        self._max_minutes = max_minutes
        self._repeat_after = repeat_after
        self._signal: str | None = None
        self._received_at = 0.0
        self._is_deferred = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        # Python delivers signals to the main thread only
        if threading.current_thread() is threading.main_thread():
            for name in EXIT_CODES:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def reason(self) -> str | None:
        """Why to stop, or None."""
        if self._signal is None and self._deadline and time.monotonic() > self._deadline:
            return f"trainer.max_minutes={self._max_minutes:g}"
        return self._signal

    @property
    def exit_code(self) -> int:
        """Exit code to stop with; 0 without a reason."""
        if self._signal:
            return EXIT_CODES[self._signal]
        return REQUEUE if self.reason else 0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals within the block."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        is_second = self._signal == "SIGINT" and number == signal.SIGINT
        if is_second and now - self._received_at < self._repeat_after:
            return
        self._signal, self._received_at = signal.Signals(number).name, now
        if not self._is_deferred or is_second:
            raise SystemExit(self.exit_code)
        if number == signal.SIGINT:
            os.write(2, b"\nfinishing the step and saving; press Ctrl-C again to stop at once\n")
