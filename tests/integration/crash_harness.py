"""Kill `csgcnn predict OVERRIDES` and resume it.

usage: python crash_harness.py OVERRIDES [-- OVERRIDES ...]

The process is killed before its second, sixth, tenth, ... change to files, each time from the
start, and then resumed. For each command the script prints the number of kills, and whether each
resumed run ended as an undisturbed one: with the same exit code and the same bytes in the folder.
"""

import os
import signal
import sys
from pathlib import Path

from csgcnn.commands.predict import predict
from csgcnn.config.compose import compose

CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def exit_code(overrides: list[str], changes: int | None = None) -> int:
    """Run the command in a process that dies before the change with this number."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = changes

    def die_in_time(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if left is not None and event in CHANGES and "out.csv" in str(arguments[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die_in_time)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        os._exit(predict(compose("predict", overrides), chunk_size=24, seconds_per_part=0))
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        os._exit(99)


def kill_and_resume(overrides: list[str]) -> None:
    code, expected = exit_code(overrides), files()
    empty()
    assert code in (0, 1)
    n_kills, is_same = 0, True
    while exit_code(overrides, 4 * n_kills + 1) == -signal.SIGKILL:
        n_kills += 1
        is_same &= exit_code([*overrides, "resume=true"]) == code and files() == expected
        empty()
    print(n_kills, is_same, flush=True)
    empty()


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def empty() -> None:
    for path in Path().iterdir():
        path.unlink()


if __name__ == "__main__":
    for command in " ".join(sys.argv[1:]).split(" -- "):
        kill_and_resume(command.split(" "))
