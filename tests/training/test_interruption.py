import os
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext

import pytest

from csgcnn.training.interruption import Interruption


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)]
)
def test_a_signal_ends_the_program_or_is_deferred(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        with pytest.raises(SystemExit) as caught:
            os.kill(os.getpid(), number)
        assert caught.value.code == code
    with Interruption() as interruption, interruption.deferred():
        assert interruption.reason is None
        os.kill(os.getpid(), number)
        assert interruption.reason == number.name
        with pytest.raises(SystemExit) as caught:
            raise SystemExit(interruption.exit_code)
        assert caught.value.code == code
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("repeat_after", "stops"), [(60, False), (0, True)])
def test_a_second_interrupt_stops_at_once_unless_it_is_the_forwarded_first_one(
    repeat_after: float, stops: bool
) -> None:
    with Interruption(repeat_after=repeat_after) as interruption, interruption.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit) if stops else nullcontext():
            os.kill(os.getpid(), signal.SIGINT)


def test_the_time_limit_gives_a_reason_and_an_exit_code() -> None:
    assert Interruption(60).reason is None
    interruption = Interruption(1e-9)
    assert interruption.reason == "trainer.max_minutes=1e-09"
    with pytest.raises(SystemExit) as caught:
        raise SystemExit(interruption.exit_code)
    assert caught.value.code == 75


def test_signal_handlers_are_only_set_in_the_main_thread() -> None:
    def enter() -> None:
        with Interruption() as interruption:
            assert interruption.reason is None

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_while_python_exits_does_not_change_the_exit_code() -> None:
    lines = [
        "import atexit, os, signal, sys",
        "from csgcnn.__main__ import program",
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGUSR1))",
        "sys.argv = ['csgcnn', '--version']",
        "program()",
    ]
    assert subprocess.run([sys.executable, "-c", "; ".join(lines)], timeout=60).returncode == 0
