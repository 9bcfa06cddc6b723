"""The shell and Python blocks of the documentation, and the examples of --help, run."""

import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from answers import Answer, run_command
from doc_pages import ROOT, RUN_PAGES, Block, name_of, runnable_blocks
from user_files import write_data, write_files

from csgcnn.cli.main import COMMANDS
from csgcnn.cli.usage import USAGES

PLUGIN = ROOT / "examples" / "plugin"
NO_FIGURES = "trainer.figures=false"
TRAIN = ["trainer.max_epochs=1", "trainer.threads=1", NO_FIGURES]
TRAIN += ["trainer.workers=1", "trainer.device=cpu"]
# Overrides that replace those of the documentation: short trainings, one process.
QUICK = {
    "train": TRAIN,
    "benchmark": TRAIN,
    "learning-curve": [*TRAIN, "sizes=[8,16,all]", "repeats=1"],
    "predict": ["workers=1", "device=cpu"],
    "explain": ["device=cpu"],
    "evaluate": ["device=cpu"],
    "build": ["workers=1"],
    "describe": ["workers=1"],
}
HELP_NOT_RUN = {
    "benchmark": "needs the data of Matbench",
    "import-cgcnn": "needs a checkpoint of CGCNN",
}
# Programs other than csgcnn that the tests run.
HARMLESS = ("cat", "cp", "echo", "head", "ls", "mkdir")
FAST = ("docs/index.md", "docs/how-to/classification.md", "docs/how-to/fine-tuning.md")


def blocks_of_pages() -> dict[str, list[Block]]:
    pages = {name_of(page): page.read_text(encoding="utf-8") for page in RUN_PAGES}
    blocks = {name: runnable_blocks(name, text) for name, text in pages.items()}
    blocks["--help"] = list(examples_of_help())
    return {name: found for name, found in blocks.items() if found}


def examples_of_help() -> Iterator[Block]:
    for command in COMMANDS:
        if command in USAGES:
            code = USAGES[command].examples
        else:
            help_ = run_command(command, "--help", cwd=ROOT, environment={"COLUMNS": "200"}).out
            code = "\n".join(re.findall(r"^example: (.+)", help_, re.MULTILINE))
        assert code, f"csgcnn {command} --help has no example"
        place = f"csgcnn {command} --help"
        yield Block("bash", code, place, HELP_NOT_RUN.get(command, ""))


BLOCKS = blocks_of_pages()
RUN = {name: found for name, found in BLOCKS.items() if any(not b.not_run for b in found)}
NOT_RUN = [block for found in BLOCKS.values() for block in found if block.not_run]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a user has: a small data set in every format."""
    folder = tmp_path_factory.mktemp("user")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    data = tmp_path_factory.mktemp("data")
    write_data(data)
    return {"CSGCNN_DATA": str(data), "CSGCNN_CACHE": str(tmp_path_factory.mktemp("graphs"))}


class Reader:
    """Somebody who runs the blocks of a page, one after the other, in one folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.names: dict[str, Any] = {}

    def run_all(self, blocks: list[Block]) -> list[str]:
        """Return what failed."""
        return [text for block in blocks for text in self.run(block)]

    def run(self, block: Block) -> Iterator[str]:
        """Run a block; yield what failed."""
        if block.language == "python":
            yield from self._run_python(block)
            return
        for line in block.code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                answer = self._run_line(line, words)
                if answer.code:
                    yield f"{block.place}: {line}\n  exit code {answer.code}: {answer.said}"

    def _run_line(self, line: str, words: list[str]) -> Answer:
        if words[0] != "csgcnn":
            if words[0] not in HARMLESS:
                reason = f"the tests do not run {words[0]}; give the block a comment <!-- not run"
                return Answer(1, "", reason)
            return self._run_program(["bash", "-c", line])
        words = words[1:]
        quick = QUICK.get(words[0], [])
        if any("plot." in word for word in words):
            quick = [word for word in quick if word != NO_FIGURES]
        if any("split.calibration=" in word for word in words):
            quick = [*quick, "dataset.split.calibration=0.3"]  # of few rows
        if "hparams=csgcnn" in words:
            quick = [*quick, "hydra.sweeper.n_trials=2"]
        words = words if "--help" in words else [*words, *quick]
        return run_command(*words, cwd=self.folder, environment=self.environment)

    def _run_program(self, words: list[str]) -> Answer:
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=60)
        return Answer(done.returncode, done.stdout, done.stderr)

    def _run_python(self, block: Block) -> Iterator[str]:
        with pytest.MonkeyPatch.context() as patch, chdir(self.folder):
            for name, value in self.environment.items():
                patch.setenv(name, value)
            try:
                with redirect_stdout(StringIO()):
                    exec(compile(block.code, block.place, "exec"), self.names)
            except Exception:
                yield f"{block.place}\n{traceback.format_exc()}"


@pytest.mark.parametrize(
    "page",
    [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in RUN],
)
def test_the_blocks_of_a_page_run(
    page: str, user: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    for path in (*user.iterdir(), ROOT / "examples"):
        (tmp_path / path.name).symlink_to(path.readlink() if path.is_symlink() else path)
    reader = Reader(tmp_path, environment)
    blocks = [block for block in RUN[page] if not block.not_run]
    # A process of its own: imported plugins stay registered.
    with get_context("fork").Pool(1, sys.path.append, (str(PLUGIN),)) as pool:
        failed = pool.apply_async(reader.run_all, (blocks,)).get(timeout=300)
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("block", NOT_RUN, ids=[block.place for block in NOT_RUN])
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    pytest.skip(f"not run: {block.not_run}")
