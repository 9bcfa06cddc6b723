"""`csgcnn WORDS`, killed again and again and gone on with until it ends: python killed.py WORDS [-- WORDS ...].

It is killed before its first, seventh, thirteenth, ... change to files. Prints for each command how often that was, and
whether it then ended as an undisturbed run does: with the same exit code, and the same bytes in the folder.
"""

import functools
import os
import signal
import sys
from pathlib import Path

import csgcnn.commands.predict
from csgcnn.cli import main as cli
from csgcnn.crystals.graph_builder import build_graphs
from csgcnn.screening import partial_table as partial

csgcnn.predictor.build_graphs = functools.partial(build_graphs, chunk_size=16)
csgcnn.predictor.STORE_ROWS, partial.SECONDS = 16, 0
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def ended(words: list[str], changes: int | None = None) -> int:
    """How a process ended that runs the command and dies before the change with that number."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = changes

    def die_in_time(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if left is not None and event in CHANGES and "out." in str(arguments[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die_in_time)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        os._exit(cli.main(words))
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        os._exit(99)


def endure(words: list[str]) -> None:
    code, expected = ended(words), files()
    empty()
    n_kills = 0
    while (again := ended([*words, "resume=true"], 6 * n_kills)) == -signal.SIGKILL:
        n_kills += 1
    print(n_kills, again == code, files() == expected, flush=True)
    empty()


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def empty() -> None:
    for path in Path().iterdir():
        path.unlink()


if __name__ == "__main__":
    for words in " ".join(sys.argv[1:]).split(" -- "):
        endure(words.split(" "))
