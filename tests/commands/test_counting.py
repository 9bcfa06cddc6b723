import io
import logging

import pytest

from csgcnn.commands.counting import counted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_shown", [True, False])
def test_lines_come_at_growing_times(is_shown: bool, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    with (
        caplog.at_level(logging.INFO),
        counted("building graphs", is_shown, 100, io.StringIO(), lambda: now) as count,
    ):
        for _ in range(100):
            now += 1
            count(20)
    lines = [record.getMessage() for record in caplog.records]
    seconds = (5, 15, 35, 75) if is_shown else ()
    assert lines == [
        f"building graphs: {100 + 20 * time} crystals, 20 per second" for time in seconds
    ]


def test_a_terminal_has_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO),
        counted("building graphs", terminal=Terminal(), clock=lambda: 0.0) as count,
    ):
        count(1)
    assert not caplog.records
