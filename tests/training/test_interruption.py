import os
import signal
import subprocess
import sys
import threading

import pytest

from csgcnn.training.interruption import Interruption


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)]
)
def test_a_signal_ends_the_program_or_waits(number: signal.Signals, code: int) -> None:
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
            raise SystemExit(interruption.code)
        assert caught.value.code == code
    assert signal.getsignal(number) == before


def test_a_second_interrupt_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with Interruption() as interruption, interruption.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # at once: torchrun passes on what all have met
        monkeypatch.setattr("csgcnn.training.interruption.SAME", 0)
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_limit_of_time() -> None:
    assert Interruption(60).reason is None
    interruption = Interruption(1e-9)
    assert interruption.reason == "trainer.max_minutes=1e-09"
    with pytest.raises(SystemExit) as caught:
        raise SystemExit(interruption.code)
    assert caught.value.code == 75


def test_another_thread_is_left_alone() -> None:
    def enter() -> None:
        with Interruption() as interruption:
            assert interruption.reason is None

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_warning_that_comes_while_python_ends_changes_no_exit_code() -> None:
    late = "import atexit, os, signal, sys; from csgcnn.__main__ import program; sys.argv = ['csgcnn', '--version']; "
    late += "atexit.register(lambda: os.kill(os.getpid(), signal.SIGUSR1)); program()"
    assert subprocess.run([sys.executable, "-c", late], timeout=60).returncode == 0
