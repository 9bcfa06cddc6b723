import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from csgcnn.config.compose import compose
from csgcnn.config.resolved import save_resolved
from csgcnn.errors import StructureError

Command = Callable[..., subprocess.CompletedProcess[str]]
Replace = Callable[..., None]
Run = Callable[..., object]


def test_the_composed_configuration_is_printed_from_another_directory(
    csgcnn: Command, tmp_path: Path
) -> None:
    overrides = ["edge=rbf", "+edge.new=1", "~edge.embedding", "graph.cutoff=6"]
    done = csgcnn("train", "--cfg", "job", "--resolve", *overrides, "dataset.path=~/x (1)=[2].json")
    assert done.returncode == 0, done.stderr
    assert "RadialBasis\n  cutoff: 6" in done.stdout
    assert "new: 1" in done.stdout
    assert done.stdout.count("embedding:") == 0
    assert "path: ~/x (1)=[2].json" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(["--info", "defaults"], "Defaults List"), (["--hydra-help"], "--multirun")],
)
def test_flags_of_hydra_work(csgcnn: Command, flags: list[str], expected: str) -> None:
    done = csgcnn("train", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout


def test_options_of_the_user_join_ours(csgcnn: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "wide.yaml").write_text("defaults: [csgcnn]\nhidden: 256\n")
    done = csgcnn("train", "--config-dir", "mine", "model=wide", "--cfg", "job")
    assert "hidden: 256" in done.stdout, done.stderr


def test_each_run_gets_its_own_directory(
    replace_command: Replace, exit_code: Run, tmp_path: Path
) -> None:
    seen = []
    replace_command("train", lambda cfg: seen.append(cfg.edge_calculator._target_) or 0.5)
    assert [exit_code("train", "edge=rbf") for _ in range(3)] == [0, 0, 0]
    assert seen == ["csgcnn.nn.edge_calculators.RadialBasis"] * 3
    runs = list(tmp_path.glob("runs/*-*-*/*_csgann_rbf*"))
    assert len(runs) == 3
    assert all((run / "train.log").exists() for run in runs)
    assert len(list(tmp_path.glob("runs/*/*"))) == 3


@pytest.mark.slow
def test_a_multirun_over_node_features(
    replace_command: Replace, exit_code: Run, tmp_path: Path
) -> None:
    seen: list[list[str]] = []

    def train(cfg: DictConfig) -> float:
        seen.append([*cfg.node_features, cfg.edge_calculator._target_[-5:]])
        return 0.5

    replace_command("train", train)
    overrides = ["node_features=atom_init,onehot,bits,elemental", "edge=rbf,gaussian"]
    assert exit_code("train", "--multirun", *overrides) == 0
    assert len(seen) == 8
    assert seen[:2] == [["atom_init", "Basis"], ["atom_init", "tance"]]
    (sweep,) = tmp_path.glob("sweeps/*/*")
    assert {path.name for path in sweep.iterdir()} == {*map(str, range(8)), "multirun.yaml"}


@pytest.mark.slow
def test_an_experiment_may_be_a_multirun(replace_command: Replace, exit_code: Run) -> None:
    seen = []
    replace_command("train", lambda cfg: seen.append((cfg.seed, len(cfg.dataset.targets))) or 0.5)
    assert exit_code("train", "experiment=elastic_multitask", "seed=0,1") == 0
    assert seen == [(0, 2), (0, 1), (0, 1), (1, 2), (1, 1), (1, 1)]


def test_failed_jobs_of_a_multirun_are_reported_at_the_end(
    replace_command: Replace, exit_code: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def train(cfg: DictConfig) -> float:
        seen.append(cfg.seed)
        if cfg.seed == 1:
            raise StructureError("mp-1: partial occupancy on site 3")
        return 0.5

    replace_command("train", train)
    assert exit_code("train", "-m", "seed=0,1,2") == 1
    assert seen == [0, 1, 2]
    error = capsys.readouterr().err
    assert "csgcnn train seed=1: mp-1: partial occupancy on site 3" in error
    assert "Traceback" not in error


def test_a_run_that_fails_at_once_leaves_no_folder(
    replace_command: Replace, exit_code: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def train(cfg: DictConfig) -> float:
        raise StructureError("mp-1: unknown element Xx")

    replace_command("train", train)
    assert exit_code("train") == 1
    assert capsys.readouterr().err == "csgcnn train: mp-1: unknown element Xx\n"
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize("folder", ["/proc/absent/run", "file/run"])
def test_a_folder_that_cannot_be_made_is_named(
    folder: str, replace_command: Replace, exit_code: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_command("train", lambda cfg: 0)
    Path("file").touch()
    assert exit_code("train", f"hydra.run.dir={folder}") == 1
    assert exit_code("train", "--multirun", "seed=0,1", f"hydra.sweep.dir={folder}") == 1
    error = capsys.readouterr().err
    assert error.count("csgcnn train: cannot write ") == 2
    assert "Traceback" not in error


def test_a_benchmark_that_fails_at_once_leaves_no_folder(
    replace_command: Replace, exit_code: Run, tmp_path: Path
) -> None:
    def benchmark(cfg: DictConfig) -> float:
        logging.getLogger("csgcnn").warning("fold 0 of 3")
        raise StructureError("mp-1: unknown element Xx")

    replace_command("benchmark", benchmark)
    assert exit_code("benchmark", "folds=3", "dataset=elastic") == 1
    assert exit_code("benchmark", "task=matbench_jdft2d") == 1
    assert not list(tmp_path.rglob("*"))


def test_predict_leaves_nothing_but_its_output(
    replace_command: Replace, exit_code: Run, tmp_path: Path
) -> None:
    codes = iter([0, 1])
    seen = []
    replace_command("predict", lambda cfg: seen.append((cfg.ckpt, cfg.structures)) or next(codes))
    arguments = ["predict", "ckpt=runs/a=b (1).ckpt", "structures=Ca(OH)2.cif"]
    assert [exit_code(*arguments), exit_code(*arguments)] == [0, 1]
    assert seen == [("runs/a=b (1).ckpt", "Ca(OH)2.cif")] * 2
    assert not list(tmp_path.iterdir())


def stored_run(folder: Path, **changes: object) -> Path:
    """Write the configuration of a run of an earlier version, with removed keys."""
    folder.mkdir()
    save_resolved(compose("train", ["graph.cutoff=6"]), folder / "config.yaml")
    text = (folder / "config.yaml").read_text()
    text = text.replace("graph:\n", f"graph:\n  vectors: {changes.get('vectors', 'false')}\n")
    text = text.replace("trainer:\n", "trainer:\n  sync_norm: true\n")
    text = text.replace("nn.network.Crystal", "nn.models.Crystal")
    (folder / "config.yaml").write_text(text)
    return folder


def test_a_run_of_an_earlier_version_is_resumed(
    replace_command: Replace, exit_code: Run, tmp_path: Path
) -> None:
    seen = []
    replace_command("train", lambda cfg: seen.append(cfg) or 0.5)
    folder = stored_run(tmp_path / "run")
    before = (folder / "config.yaml").read_text()
    assert exit_code("train", "resume=run", "trainer.max_epochs=7") == 0
    assert (seen[0].graph.cutoff, seen[0].trainer.max_epochs) == (6, 7)
    assert seen[0].model._target_ == "csgcnn.nn.network.CrystalGraphNetwork"
    assert "vectors" not in OmegaConf.to_yaml(seen[0])
    assert (folder / "config.yaml").read_text() == before


def test_a_removed_key_that_changed_results_is_refused_by_name(
    replace_command: Replace, exit_code: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_run(tmp_path / "run", vectors="true")
    assert exit_code("train", "resume=run") == 2
    error = capsys.readouterr().err
    assert "run/config.yaml: graph.vectors no longer exists" in error
    assert len(error.splitlines()) == 1
