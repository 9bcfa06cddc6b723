"""Shell completion: its candidates, and a real bash that asks for them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from csgcnn.cli import main as cli
from csgcnn.cli.completion import completions

COMMANDS = list(cli.COMMANDS)


def complete(line: str, shell: str = "bash") -> list[str]:
    return completions(line, shell, COMMANDS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my data").mkdir()
    (tmp_path / "best.ckpt").touch()
    (tmp_path / ".hidden").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("csgcnn pre", ["predict"]),
        ("CSGCNN_DATA=mine csgcnn pre", ["predict"]),
        ("csgcnn --inst", ["--install-completion"]),
        ("csgcnn --install-completion z", ["zsh"]),
        ("csgcnn train mo", ["model=", "model."]),
        ("csgcnn train model=csg", ["model=csgann", "model=csgcnn", "model=csginn"]),
        ("csgcnn train --multirun edge=gaussian,r", ["edge=gaussian,rbf"]),
        ("csgcnn train 'node_features=[bits,lea", ["node_features=[bits,learned"]),
        ("csgcnn train trainer.max_ep", ["trainer.max_epochs="]),
        ("csgcnn train +trainer.max_ep", ["+trainer.max_epochs="]),
        ("csgcnn train edge=rbf edge.n", ["edge.n_basis="]),
        ("csgcnn train edge_calculator.st", ["edge_calculator.step="]),
        ("csgcnn train model.convolution.he", ["model.convolution.heads="]),
        ("csgcnn train model=csgcnn model.convolution.he", []),
        ("csgcnn train loss=laplace loss.", ["loss.distribution="]),
        ("csgcnn train trainer.figures=", ["trainer.figures=true", "trainer.figures=false"]),
        ("csgcnn train --cfg j", ["job"]),
        ("csgcnn train --multi", ["--multirun"]),
        ("csgcnn benchmark task=matbench_pe", ["task=matbench_perovskites"]),
        ("csgcnn train task", []),
        ("csgcnn predict order=", ["order=highest", "order=lowest"]),
        ("csgcnn build graph.cut", ["graph.cutoff="]),
        ("csgcnn predict model", []),
        ("csgcnn predict ckpt=", ["ckpt=best.ckpt", "ckpt=my\\ data/"]),
        ("csgcnn predict 'ckpt=my", ["ckpt=my data/"]),
        ("csgcnn predict ckpt=.h", ["ckpt=.hidden"]),
        ("csgcnn train dataset.path=my\\ ", ["dataset.path=my\\ data/"]),
        ("csgcnn train hydra.run.dir=b", ["hydra.run.dir=best.ckpt"]),
        ("csgcnn table m", ["my\\ data/"]),
        ("csgcnn nonsense a", []),
    ],
)
def test_candidates(line: str, expected: list[str], folder: Path) -> None:
    assert complete(line) == expected


def test_fish_quotes_for_itself(folder: Path) -> None:
    assert complete("csgcnn predict ckpt=my", "fish") == ["ckpt=my data/"]


def test_options_of_the_users_folder_are_completed(folder: Path) -> None:
    (folder / "mine" / "model").mkdir(parents=True)
    (folder / "mine" / "model" / "wide.yaml").write_text("hidden: 512\n")
    assert complete("csgcnn train --config-dir mine model=w") == ["model=wide"]


@pytest.mark.parametrize(
    "command", ["train", "benchmark", "learning-curve", "predict", "evaluate", "build"]
)
def test_every_command_with_a_configuration_completes_keys(command: str) -> None:
    assert {"plugins="} <= {*complete(f"csgcnn {command} ")}


def test_a_shell_gets_its_answer_without_torch_and_hydra() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(['torch', 'hydra', 'omegaconf'])\n"
        "from csgcnn.__main__ import program; program()"
    )
    command = [sys.executable, "-c", code, "--complete", "bash", "csgcnn train model.hid"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "model.hidden=\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_installing_twice_is_installing_once(
    shell: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = home / f".{shell}rc"
    start.write_text("alias ll=ls")
    assert cli.main(["--install-completion", shell]) == 0
    first, said = start.read_text(), capsys.readouterr().out
    script = home / ".local" / "share" / "csgcnn" / f"completion.{shell}"
    assert first.splitlines()[0] == "alias ll=ls"
    assert first.count(str(script)) == 2
    assert f"wrote {script}" in said
    assert f"added a line to {start}" in said
    assert cli.main(["--install-completion", shell]) == 0
    assert start.read_text() == first
    assert f"{script} is up to date" in capsys.readouterr().out


def test_fish_reads_the_script_by_itself(home: Path) -> None:
    assert cli.main(["--install-completion", "fish"]) == 0
    (script,) = (path for path in home.rglob("*") if path.is_file())
    assert script == home / ".config" / "fish" / "completions" / "csgcnn.fish"


def test_the_shell_of_the_user_is_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert cli.main(["--show-completion"]) == 0
    assert capsys.readouterr().out.startswith("# Completion of csgcnn for fish")
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert cli.main(["--install-completion"]) == 2
    assert "the shell 'tcsh'; expected bash, zsh, fish" in capsys.readouterr().err
    assert cli.main(["--install-completion", "bash", "zsh"]) == 2
    assert not list(home.iterdir())


def test_a_home_that_cannot_be_written_is_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".local").touch()
    assert cli.main(["--install-completion", "bash"]) == 1
    said = capsys.readouterr().err
    assert str(home / ".local") in said
    assert "csgcnn --show-completion bash prints the script" in said


@pytest.mark.slow
def test_the_completion_of_hydra_is_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-sc", "install=bash"], ["--shell-completion", "query=bash"]):
        assert cli.main(["train", *words]) == 2
        assert "csgcnn --install-completion" in capsys.readouterr().err
    cli.main(["train", "--hydra-help"])
    said = capsys.readouterr().out
    assert "csgcnn --install-completion" in said
    assert "eval" not in said


Typed = Callable[[str], str]


@pytest.fixture
def bash(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Typed]:
    """An interactive bash after csgcnn --install-completion: the word that keys make of a line."""
    pexpect: Any = pytest.importorskip("pexpect", reason="pexpect types the keys")
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (home / "bin").mkdir()
    program = home / "bin" / "csgcnn"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m csgcnn "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[2]))
    monkeypatch.setenv("TERM", "dumb")
    assert cli.main(["--install-completion", "bash"]) == 0
    rcfile = ["--noprofile", "--rcfile", str(home / ".bashrc"), "-i"]
    child = pexpect.spawn("bash", rcfile, encoding="utf-8", dimensions=(50, 300), timeout=60)
    child.sendline(
        "bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; PS1=; set +H"
    )

    def typed(line: str) -> str:
        # Tab, then the words of the line are printed as bash reads them.
        child.send(f"{line}\t\x01printf '{{%s}}' \x05; echo\r")
        child.expect(r"(\{csgcnn\}[^\r\n]*)\r\n")
        return str(child.match.group(1))

    yield typed
    child.close(force=True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("csgcnn tra", "csgcnn}{train"),
        ("csgcnn train model=csga", "csgcnn}{train}{model=csgann"),
        ("csgcnn train trainer.max_ep", "csgcnn}{train}{trainer.max_epochs="),
        ("csgcnn predict ckpt=my", "csgcnn}{predict}{ckpt=my data/"),
        ("csgcnn train 'node_features=[bits,lea", "csgcnn}{train}{node_features=[bits,learned"),
    ],
)
def test_a_real_bash_completes(line: str, words: str, bash: Typed) -> None:
    assert bash(line) == f"{{{words}}}"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(shell: str, home: Path) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    script = home / "script"
    script.write_text(
        subprocess.check_output(
            [sys.executable, "-m", "csgcnn", "--show-completion", shell], text=True
        )
    )
    assert subprocess.run([program, "-n", script], check=False).returncode == 0
