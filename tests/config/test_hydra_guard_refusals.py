"""Test that entries of untrusted configurations that Hydra would execute are refused."""

from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from untrusted_configs import CALL, compose_from, refused, write

from csgcnn.cli import main as cli
from csgcnn.config.compose import hydra_session
from csgcnn.errors import ConfigError

# Ways by which os.system gets to where Hydra would call it.
PLACES: dict[str, dict[str, str]] = {
    "by its key": {"config.yaml": f"hydra: {{callbacks: {{e: {CALL}}}}}"},
    "by an escaped key": {"config.yaml": f'"hydr\\x61": {{callbacks: {{e: {CALL}}}}}'},
    "by an alias": {"config.yaml": f"x: &x {{callbacks: {{e: {CALL}}}}}\nhydra: *x"},
    "by a merge": {"config.yaml": f"x: &x {{hydra: {{callbacks: {{e: {CALL}}}}}}}\n<<: *x"},
    "by a tagged merge": {"config.yaml": f"!!merge x: {{hydra: {{callbacks: {{e: {CALL}}}}}}}"},
    "by a merge within": {"config.yaml": f"hydra: {{<<: {{callbacks: {{e: {CALL}}}}}}}"},
    "by an interpolation": {"config.yaml": f"x: {CALL}\nhydra: {{callbacks: {{e: '${{x}}'}}}}"},
    "by an interpolated name": {
        "config.yaml": "x: os.system\nhydra: {callbacks: {e: {_target_: '${x}'}}}"
    },
    "by a header": {"config.yaml": f"# @package hydra.callbacks\ne: {CALL}"},
    "by a header after an unusual line break": {
        "config.yaml": f"\u2028# @package hydra.callbacks\ne: {CALL}"
    },
    "by a header with brackets": {"config.yaml": f"# @package hydra[callbacks]\ne: {CALL}"},
    "by a folder": {
        "config.yaml": "defaults: [override hydra/callbacks: x]",
        "hydra/callbacks/x.yaml": f"e: {CALL}",
    },
    "by a folder that reads as another": {
        "config.yaml": "defaults: [_global_xhydra/callbacks: x]",
        "_global_xhydra/callbacks/x.yaml": f"e: {CALL}",
    },
    "by a package": {
        "config.yaml": "defaults: [foo@hydra.callbacks: x]",
        "foo/x.yaml": f"e: {CALL}",
    },
    "by a path with a package": {
        "config.yaml": "defaults: ['foo/x@hydra']",
        "foo/x.yaml": f"callbacks: {{e: {CALL}}}",
    },
    "by a package that reads as another": {
        "config.yaml": "defaults: [foo@_global_xhydra.callbacks: x]",
        "foo/x.yaml": f"e: {CALL}",
    },
    "by a file elsewhere": {
        "config.yaml": "defaults: ['../far/x@_global_']",
        "../far/x.yaml": f"hydra: {{callbacks: {{e: {CALL}}}}}",
    },
    "by an option elsewhere": {
        "config.yaml": "defaults: [foo@_global_: ../../far/x]",
        "foo/y.yaml": "",
        "../far/x.yaml": f"hydra: {{callbacks: {{e: {CALL}}}}}",
    },
    "to logging": {
        "config.yaml": "hydra: {job_logging: {handlers: {e: {(): os.system}}}}",
    },
    "to a sweep": {
        "config.yaml": "hydra: {sweeper: {params: {+hydra.callbacks.e._target_: os.system}}}"
    },
    "to the environment": {"config.yaml": "hydra: {job: {env_set: {PATH: os.system}}}"},
    "to a batch script's second line": {"config.yaml": 'hydra: {sweep: {dir: "a\\nos.system"}}'},
    "to a batch script's second line from afar": {
        "config.yaml": 'x: "a\\nos.system"\nhydra: {sweep: {dir: "${x}"}}'
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_every_way_into_the_node_hydra_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "configs", PLACES[place])
    refused(folder, "hydra.")
    assert not (tmp_path / "executed").exists()
    # The attack is real: without the check it is composed. Composing executes nothing.
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = hydra_compose("config", return_hydra_config=True)
    resolved = OmegaConf.to_yaml(cfg.hydra.callbacks, resolve=True) + cfg.hydra.sweep.dir
    assert "os.system" in OmegaConf.to_yaml(cfg.hydra) + resolved, "Hydra does not go this way"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("section", "culprit"),
    [
        ("{launcher: {_target_: os.system}}", "launcher._target_"),
        ("{launcher: {_target_: hydra_plugins.evil.Launcher}}", "launcher._target_"),
        ("{launcher: {pre_dispatch: 'exit()'}}", "launcher.pre_dispatch"),
        ("{launcher: {name: '${now:%n}'}}", "launcher.name"),
        ("{launcher: '${x}'}", "launcher"),
        ("{launcher: {setup: [rm -r x]}}", "launcher.setup"),
        ("{sweeper: {sampler: {_target_: torch.load}}}", "sampler._target_"),
        ("{sweeper: {custom_search_space: a.b}}", "custom_search_space"),
        ("{sweeper: {params: {seed@hydra: 1}}}", "params.seed@hydra"),
        ("{sweeper: {params: {+plugins: '[evil]'}}}", "params.+plugins"),
        ("{sweeper: {params: '${x}'}}", "sweeper.params"),
        (
            "{job_logging: {handlers: {file: {filename: /home/me/.bashrc}}}}",
            "handlers.file.filename",
        ),
        ("{job_logging: {handlers: {mine: {class: logging.FileHandler}}}}", "handlers.mine.class"),
        (
            "{job_logging: {handlers: {console: {stream: 'ext://os.environ'}}}}",
            "handlers.console.stream",
        ),
        ("{job_logging: {formatters: {plain: {class: os.system}}}}", "formatters.plain.class"),
        (
            "{job_logging: {formatters: {plain: {format: 'cfg://handlers'}}}}",
            "formatters.plain.format",
        ),
        ("{hydra_logging: {root: {handlers: ['${x}']}}}", "root.handlers"),
        ("{searchpath: [pkg://evil]}", "searchpath"),
        ("{job: {env_copy: [HOME]}}", "job.env_"),
        ("{job: {name: !!binary aGk=}}", "job.name"),
        ("{1: 2}", "hydra."),
        ("os.system", "hydra."),
    ],
)
def test_an_entry_that_could_execute_something_is_refused(
    section: str, culprit: str, tmp_path: Path
) -> None:
    launcher = "joblib" if "pre_dispatch" in section else "submitit_slurm"
    options = f"defaults: [override hydra/launcher: {launcher}, _self_]"
    write(tmp_path, {"config.yaml": f"{options}\nx: {{a: b}}\nhydra: {section}"})
    with pytest.raises((ConfigError, HydraException)) as caught:
        compose_from(tmp_path)
    # Of some keys Hydra itself refuses the type, when it composes.
    assert culprit in str(caught.value) or "raised while composing config" in str(caught.value)


@pytest.mark.parametrize("option", ["evil", "../far/evil"])
def test_jobs_of_a_sweep_are_checked_too(option: str, tmp_path: Path) -> None:
    evil = f"# @package _global_\nhydra: {{callbacks: {{e: {CALL}}}}}"
    params = f"hydra: {{sweeper: {{params: {{+experiment: 'a,{option}'}}}}}}"
    files = {
        "configs/config.yaml": f"defaults: [train, _self_]\n{params}",
        "configs/experiment/a.yaml": "# @package _global_\nseed: 1",
        "configs/experiment/evil.yaml": evil,
        "configs/far/evil.yaml": evil,
    }
    folder = write(tmp_path, files) / "configs"
    with hydra_session("train", config_dirs=[folder]) as hydra:
        master = hydra.compose_config("config", [], RunMode.MULTIRUN)
        assert master.hydra.sweeper.params["+experiment"] == f"a,{option}"
        hydra.config_loader.load_sweep_config(master, ["experiment=a"])
        with pytest.raises(ConfigError, match=r"hydra\.callbacks\.e\._target_=os.system"):
            hydra.config_loader.load_sweep_config(master, [f"experiment={option}"])


def test_overrides_that_a_configuration_passes_on_are_refused(tmp_path: Path) -> None:
    for name in ("task", "hydra"):
        text = f"defaults: [train, _self_]\nhydra: {{overrides: {{{name}: ['plugins=[evil]']}}}}"
        refused(write(tmp_path, {"config.yaml": text}), f"hydra.overrides.{name}=plugins=[evil]")


def test_a_defaults_list_creates_no_folder(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    text = f"defaults: [train, 'dataset: ${{unique_dir:{trap}}}']"
    write(tmp_path / "configs", {"config.yaml": text})
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException)):
        compose_from(tmp_path / "configs")
    assert not trap.exists()


FLAGS = (
    ["--config-dir", "{}"],
    ["--config-dir={}"],
    ["-cd", "{}"],
    ["--config-d", "{}"],
    ["--config-path", "{}"],
)
ACTIONS = ([], ["--multirun", "seed=0,1"], ["--cfg", "job"], ["--help"])


@pytest.mark.parametrize(
    ("flags", "action"),
    [
        # Each flag and each action once; all pairs are slow.
        pytest.param(flags, action, marks=[] if 0 in (i, j) else pytest.mark.slow)
        for i, flags in enumerate(FLAGS)
        for j, action in enumerate(ACTIONS)
    ],
    ids=lambda words: " ".join(words) or "train",
)
def test_nothing_is_executed_by_the_command(
    flags: list[str],
    action: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trap = tmp_path / "executed"
    text = f"seed: 1\nhydra: {{callbacks: {{e: {{_target_: os.mkdir, path: {trap}}}}}}}"
    folder = write(tmp_path / "configs", {"evil.yaml": text})
    monkeypatch.chdir(tmp_path)
    given = [flag.format(folder) for flag in flags]
    assert cli.main(["train", *given, "--config-name", "evil", *action]) == 2
    assert "csgcnn train: hydra.callbacks.e._target_=os.mkdir is refused" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]
