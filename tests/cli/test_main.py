import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException
from omegaconf import DictConfig

from csgcnn import __version__
from csgcnn.cli import main as cli
from csgcnn.cli.messages import explain
from csgcnn.errors import StructureError

# Refuses heavy imports, and answers commands, each in a fork: the front of the house must not need them.
GUARDED = """
import json, os, signal, sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torch_geometric", "pymatgen", "matplotlib", "scipy", "numpy"):
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Guard())
from csgcnn.cli import main
for line in sys.stdin:
    folder, answers, words = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(60)
    os.chdir(folder)
    for stream, path in enumerate(answers, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv[1:] = words
    sys.exit(main())
"""


@cache
def server() -> subprocess.Popen[str]:
    """It ends with the tests, when nobody can write to it any more."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("HYDRA_FULL_ERROR", "CSGCNN_DATA")
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", GUARDED], env=environment, text=True, **pipes)


def csgcnn(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    with TemporaryDirectory() as folder:
        answers = Path(folder, "out"), Path(folder, "err")
        print(
            json.dumps([str(cwd), list(map(str, answers)), words]), file=server().stdin, flush=True
        )
        code = int(server().stdout.readline())
        return subprocess.CompletedProcess(words, code, *(path.read_text() for path in answers))


@pytest.mark.parametrize(
    ("words", "exit_code", "answers"),
    [
        (["--help"], 0, ["csgcnn predict", "--version"]),
        (["--version"], 0, [f"csgcnn {__version__}"]),
        (["train", "--version"], 0, [f"csgcnn {__version__}"]),
        ([], 2, ["csgcnn train"]),
        (["trian"], 2, ["did you mean train?"]),
        (["model=csgcnn"], 2, ["train, predict, evaluate"]),
        (
            ["train", "--help"],
            0,
            ["edge_calculator: bessel, gaussian, pair_gaussian", "max_epochs: 200", "usage:"],
        ),
        (
            ["train", "--help"],
            0,
            ["model: csgann, csgcnn, csginn", "pooling: attention, max, mean, set2set, sum"],
        ),
        (["predict", "--help"], 0, ["structures: ???", "usage:"]),
        (["evaluate", "--help"], 0, ["split: null", "usage:"]),
        (["train", "modle=b"], 2, ["modle", "did you mean model?"]),
        (["train", "trainer.max_epoch=3"], 2, ["did you mean trainer.max_epochs?"]),
        (["train", "max_epochs=3"], 2, ["did you mean trainer.max_epochs?"]),
        (["train", "edge.cutof=5"], 2, ["did you mean edge_calculator.cutoff?"]),
        (["train", "experimnt=x"], 2, ["did you mean experiment?"]),
        (["train", "model=csgcn"], 2, ["'csgcn'", "did you mean csgcnn?"]),
        (["train", "pooling=attn"], 2, ["'attn'", "set2set"]),
        (["train", "model.nrom=layer"], 2, ["did you mean model.norm?"]),
        (["train", "node_features=[atom_int]"], 2, ["onehot", "did you mean atom_init?"]),
        (["train", "trainer.max_epochs=two"], 2, ["trainer.max_epochs=two", "an integer"]),
        (["train", "graph.compress=perhaps"], 2, ["graph.compress=perhaps", "true or false"]),
        (["train", "dataset.units={gap:eV}"], 2, ["+dataset.units.gap="]),
        (["train", "edge=gaussian,rbf"], 2, ["--multirun"]),
        (["train", "--multirun", "edge=gaussian,rbff"], 2, ["did you mean rbf?"]),
        (["train", "dataset.hint=a=b"], 2, ["dataset.hint=a=b", "dataset.hint='...'"]),
        (["train", "trainer.batch_size=-1"], 2, ["trainer.batch_size=-1", "1 or more"]),
        (["train", "--flag"], 2, ["--flag"]),
        (
            ["benchmark", "--help"],
            0,
            ["task: matbench_dielectric, matbench_jdft2d", "folds: null", "$CSGCNN_DATA"],
        ),
        (["benchmark"], 2, ["please give task=…, one of matbench_dielectric"]),
        (["benchmark", "task=perovskites"], 2, ["did you mean matbench_perovskites?"]),
        (["predict"], 2, ["csgcnn predict: please give ckpt=…, structures=…"]),
        (["evaluate", "dataset=elastic"], 2, ["please give ckpt=…"]),
        (
            ["import-cgcnn", "--help"],
            0,
            ["usage: csgcnn import-cgcnn FILE.pth.tar [output=PATH]", "example:"],
        ),
        (["import-cgcnn"], 2, ["FILE.pth.tar"]),
        (["import-cgcnn", "a.pth.tar", "nmae=gap"], 2, ["did you mean name?"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_front_answers_without_torch(
    words: list[str], exit_code: int, answers: list[str], tmp_path: Path
) -> None:
    done = csgcnn(*words, cwd=tmp_path)
    said = done.stdout if exit_code == 0 else done.stderr
    assert done.returncode == exit_code, done.stderr
    assert all(answer in said for answer in answers), said
    assert "Traceback" not in done.stderr
    assert "Error executing job" not in done.stderr
    if exit_code == 2 and "--flag" not in words and words:
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) <= 2


def test_composed_configuration_from_another_directory(tmp_path: Path) -> None:
    words = [
        "train",
        "--cfg",
        "job",
        "--resolve",
        "edge=rbf",
        "+edge.new=1",
        "~edge.embedding",
        "graph.cutoff=6",
    ]
    done = csgcnn(*words, "dataset.path=~/x (1)=[2].json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "RadialBasis\n  cutoff: 6" in done.stdout
    assert "new: 1" in done.stdout
    assert done.stdout.count("embedding:") == 0
    assert "path: ~/x (1)=[2].json" in done.stdout
    assert not list(tmp_path.iterdir())


def test_options_of_the_user_join_ours(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "wide.yaml").write_text("defaults: [csgcnn]\nhidden: 256\n")
    done = csgcnn("train", "--config-dir", "mine", "model=wide", "--cfg", "job", cwd=tmp_path)
    assert "hidden: 256" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("edge=rbf", "edge_calculator=rbf"),
        ("global_features=lattice", "graph.global_features=lattice"),
        ("edge=gaussian,rbf", "edge_calculator=gaussian,rbf"),
        ("edge.cutoff=5", "edge_calculator.cutoff=5"),
        ("+edge.new=1", "+edge_calculator.new=1"),
        ("++edge.cutoff=1", "++edge_calculator.cutoff=1"),
        ("~edge.embedding", "~edge_calculator.embedding"),
        ("~edge", "~edge_calculator"),
        ("edges=1", "edges=1"),
        ("edge_calculator=rbf", "edge_calculator=rbf"),
        ("model.edge=1", "model.edge=1"),
        ("--config-dir", "--config-dir"),
        ("edge", "edge"),
        ("edge.yaml", "edge.yaml"),
        ("ckpt='a b.ckpt'", "ckpt='a b.ckpt'"),
        ('ckpt="a b.ckpt"', 'ckpt="a b.ckpt"'),
        ("structures=[a.cif,b.cif]", "structures=[a.cif,b.cif]"),
        ("output=null", "output=null"),
        ("trainer.device=cuda:1", "trainer.device=cuda:1"),
    ],
)
def test_canonical_words(word: str, expected: str) -> None:
    assert cli.canonical([word]) == [expected]


@pytest.mark.parametrize(
    "key", ["ckpt", "structures", "output", "dataset.path", "dataset.split.file"]
)
@pytest.mark.parametrize(
    "path",
    [
        "runs/a=b (1).ckpt",
        "Ca(OH)2.cif",
        "~/x.cif",
        "cifs/[ab]*.cif",
        "it's, {odd}.cif",
        "a\\b\\",
        "$x#é:%.cif",
        "12",
    ],
)
def test_paths_arrive_as_typed(key: str, path: str) -> None:
    (override,) = OverridesParser.create().parse_overrides(cli.canonical([f"{key}={path}"]))
    assert override.value() == path
    assert not override.is_sweep_override()


def test_a_comma_sweeps_over_paths_in_a_multirun() -> None:
    words = cli.canonical(["--multirun", "dataset.path=a (1).json,~/b.json"])
    (override,) = OverridesParser.create().parse_overrides(words[1:])
    assert override.is_sweep_override()
    assert [str(value) for value in override.sweep_string_iterator()] == [
        "'a (1).json'",
        "'~/b.json'",
    ]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Put a function in the place of csgcnn.<command>.<command>, and run in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["csgcnn"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def put(command: str, task: Callable[[DictConfig], Any]) -> None:
        module = types.ModuleType(f"csgcnn.{command}")
        setattr(module, command, task)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def exit_code(*words: str) -> object:
    try:
        return cli.main(words)
    except SystemExit as end:
        return end.code


def test_a_run_gets_its_own_directory(pretend: Callable[..., None], tmp_path: Path) -> None:
    seen = []
    pretend("train", lambda cfg: seen.append(cfg.edge_calculator._target_) or 0.5)
    assert [exit_code("train", "edge=rbf") for _ in range(3)] == [0, 0, 0]
    assert seen == ["csgcnn.nn.edge_calculators.RadialBasis"] * 3
    runs = list(tmp_path.glob("runs/*-*-*/*_csgann_rbf*"))
    assert len(runs) == 3
    assert all((run / "train.log").exists() for run in runs)
    assert len(list(tmp_path.glob("runs/*/*"))) == 3


def test_a_multirun_over_node_features(pretend: Callable[..., None], tmp_path: Path) -> None:
    seen: list[list[str]] = []
    pretend(
        "train",
        lambda cfg: seen.append([*cfg.node_features, cfg.edge_calculator._target_[-5:]]) or 0.5,
    )
    words = [
        "train",
        "--multirun",
        "node_features=atom_init,onehot,bits,elemental",
        "edge=rbf,gaussian",
    ]
    assert exit_code(*words) == 0
    assert len(seen) == 8
    assert seen[:2] == [["atom_init", "Basis"], ["atom_init", "tance"]]
    (sweep,) = tmp_path.glob("sweeps/*/*")
    assert {path.name for path in sweep.iterdir()} == {*map(str, range(8)), "multirun.yaml"}


def test_a_failed_job_of_a_multirun_is_told_at_the_end(
    pretend: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def train(cfg: DictConfig) -> float:
        seen.append(cfg.seed)
        if cfg.seed == 1:
            raise StructureError("mp-1: partial occupancy on site 3")
        return 0.5

    pretend("train", train)
    assert exit_code("train", "-m", "seed=0,1,2") == 1
    assert seen == [0, 1, 2]
    error = capsys.readouterr().err
    assert "csgcnn train seed=1: mp-1: partial occupancy on site 3" in error
    assert "Traceback" not in error


def test_a_user_error_is_one_line(
    pretend: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def train(cfg: DictConfig) -> float:
        raise StructureError("mp-1: unknown element Xx")

    pretend("train", train)
    assert exit_code("train") == 1
    assert capsys.readouterr().err == "csgcnn train: mp-1: unknown element Xx\n"


@pytest.mark.parametrize(("launcher", "extra"), [("joblib", "sweep"), ("submitit_slurm", "slurm")])
def test_a_launcher_that_is_not_installed(launcher: str, extra: str) -> None:
    error = MissingConfigException("", f"hydra/launcher/{launcher}", ["basic"])
    assert (
        explain(error) == f"hydra/launcher={launcher} is in an extra: pip install 'csgcnn[{extra}]'"
    )


def test_an_unexpected_error_keeps_its_traceback(
    pretend: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    pretend("evaluate", lambda cfg: 1 / 0)
    assert exit_code("evaluate", "ckpt=a", "dataset=elastic") == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert "Error executing job" not in error


def test_predict_leaves_nothing_but_its_output(
    pretend: Callable[..., None], tmp_path: Path
) -> None:
    codes = iter([0, 1])
    seen = []
    pretend("predict", lambda cfg: seen.append((cfg.ckpt, cfg.structures)) or next(codes))
    words = ["predict", "ckpt=runs/a=b (1).ckpt", "structures=Ca(OH)2.cif"]
    assert [exit_code(*words), exit_code(*words)] == [0, 1]
    assert seen == [("runs/a=b (1).ckpt", "Ca(OH)2.cif")] * 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "folders"),
    [
        (["-c", "job"], []),
        (["-cd", "a", "model=csgann"], ["a"]),
        (["--config-dir=a", "-cp", "b"], ["a", "b"]),
        (["--config-d", "a"], ["a"]),
    ],
)
def test_foreign_folders_are_found_as_hydra_finds_them(
    words: list[str], folders: list[str]
) -> None:
    assert cli.config_folders(words) == [Path(folder) for folder in folders]
