"""Folders of configurations that a stranger made: what Hydra would execute is refused, what people write is not."""

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from csgcnn.cli import main as cli
from csgcnn.config import hydra_guard as foreign
from csgcnn.config.hydra_guard import refuse_foreign_code
from csgcnn.config.paths import CONF
from csgcnn.config.resolved import save_resolved
from csgcnn.errors import ConfigError

CALL = "{_target_: os.system, command: 'touch sprung'}"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path, *culprits: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_foreign_code(folder)
    for culprit in culprits:
        assert culprit in str(caught.value)


def test_our_own_configuration_passes() -> None:
    refuse_foreign_code(CONF)


def test_the_configuration_that_a_run_leaves_passes(tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        save_resolved(
            compose("train", ["node_features=[atom_init,learned]"]), tmp_path / "config.yaml"
        )
    refuse_foreign_code(tmp_path)


SLURM = "{timeout_min: 60, partition: gpu, gpus_per_node: 1, mem_gb: 16, name: band_gap, array_parallelism: 8}"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
SAMPLER = "{_target_: optuna.samplers.TPESampler, seed: 1}"
USUAL = {
    "dataset/mine.yaml": "path: ${oc.env:HOME}/mine.json\ntargets: [class]\nunits: {class: eV, step: '()'}\n",
    "experiment/x.yaml": "# @package _global_\ndefaults: [override /dataset: mine, override /edge_calculator: rbf]\n"
    "seed: 1\ndataset: {split: {seed: '${seed}'}}\n"
    "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1,2', +experiment: 'a,b', dataset.targets: '[a],[b]'}}}\n",
    "a.yaml": f"defaults: [train, override hydra/launcher: submitit_slurm, _self_]\nhydra: {{launcher: {SLURM}}}\n",
    "b.yaml": f"hydra: {{launcher: {{_target_: {SUBMITIT}}}, sweeper: {{n_trials: 9, sampler: {SAMPLER}}}}}\n",
    "c.yaml": "hydra: {run: {dir: '/a/${seed}/${now:%Y-%m-%d}'}, sweep: {dir: 'x/${now:%H-%M}', subdir: '${seed}'}}\n",
    "d.yaml": "defaults:\n- override hydra/job_logging: stdout\n- dataset: ${model}_${loss}\n- /model@model: csgann\n",
    "e.yaml": "hydra: {job_logging: {root: {level: DEBUG}, handlers: {console: {class: logging.StreamHandler}}}}\n",
    "hydra/launcher/cluster.yaml": "defaults: [submitit_slurm]\npartition: gpu\n",
    "hparams/mine.yaml": "# @package _global_\ndefaults: [override /hydra/sweeper: csgcnn_search]\n"
    "hydra: {sweeper: {n_trials: 9, prune_after: 0.5, seed: 1, params: {optimizer.lr: 'tag(log, interval(1, 2))'}}}\n",
    "broken.yaml": "a: [",
    "binary.yaml": "\0",
    "notes.txt": f"hydra: {{callbacks: {{x: {CALL}}}}}",
    "checkpoints/best.ckpt": "not yaml",
}


@pytest.mark.parametrize("name", USUAL)
def test_what_people_write_passes(name: str, tmp_path: Path) -> None:
    refuse_foreign_code(write(tmp_path, {name: USUAL[name]}))


def test_links_are_followed(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "far/mine.yaml": "path: a.json",
            "evil/x.yaml": f"e: {CALL}",
            "configs/config.yaml": "seed: 1",
        },
    )
    (tmp_path / "configs" / "dataset").symlink_to(tmp_path / "far")
    refuse_foreign_code(tmp_path / "configs")
    (tmp_path / "configs" / "hydra").mkdir()
    (tmp_path / "configs" / "hydra" / "callbacks").symlink_to(tmp_path / "evil")
    refused(tmp_path / "configs", "callbacks/x.yaml", "callbacks.e._target_")


# Each puts os.system where Hydra would call it, by another way.
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
    "by a header after an odd line break": {
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
        "config.yaml": f"hydra: {{job_logging: {{handlers: {{e: {CALL.replace('_target_', '()')}}}}}}}"
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
def test_every_way_into_the_section_hydra_is_seen(place: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "configs", PLACES[place])
    refused(folder, str(folder))
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = compose("config", return_hydra_config=True)
    resolved = OmegaConf.to_yaml(cfg.hydra.callbacks, resolve=True) + cfg.hydra.sweep.dir
    assert "os.system" in OmegaConf.to_yaml(cfg.hydra) + resolved, "Hydra does not go this way"


@pytest.mark.parametrize(
    ("section", "culprit"),
    [
        ("{launcher: {_target_: os.system}}", "launcher._target_"),
        ("{launcher: {_target_: hydra_plugins.evil.Launcher}}", "launcher._target_"),
        ("{launcher: {pre_dispatch: '2*n_jobs'}}", "launcher.pre_dispatch"),
        ("{launcher: {name: '${now:%n}'}}", "launcher.name"),
        ("{launcher: '${x}'}", "launcher"),
        ("{launcher: {setup: [rm -r x]}}", "launcher.setup"),
        ("{sweeper: {sampler: {_target_: torch.load}}}", "sampler._target_"),
        ("{sweeper: {custom_search_space: a.b}}", "custom_search_space"),
        ("{sweeper: {params: {seed@hydra: 1}}}", "params.seed@hydra"),
        ("{sweeper: {params: {experiment: ../../far/x}}}", "params.experiment"),
        ("{sweeper: {params: {experiment: '${now:.}${now:.}/x'}}}", "params.experiment"),
        ("{sweeper: {params: '${x}'}}", "sweeper.params"),
        (
            "{job_logging: {handlers: {file: {filename: /home/me/.bashrc}}}}",
            "handlers.file.filename",
        ),
        ("{job_logging: {handlers: {file: {class: logging.FileHandler}}}}", "handlers.file.class"),
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
        ("{job: {env_copy: [HOME]}}", "env_copy"),
        ("{job: {name: !!binary aGk=}}", "job.name"),
        ("{1: 2}", "hydra."),
        ("os.system", "hydra."),
    ],
)
def test_a_key_that_could_execute_something_is_named(
    section: str, culprit: str, tmp_path: Path
) -> None:
    refused(write(tmp_path, {"config.yaml": f"seed: 1\nhydra: {section}"}), "config.yaml", culprit)


LAUGHS = "".join(f"x{i + 1}: &x{i + 1} [{', '.join([f'*x{i}'] * 9)}]\n" for i in range(12))
TOO_MUCH = {
    "aliases of aliases": "x0: &x0 [ha]\n" + LAUGHS,
    "an alias of itself": "x: &x [*x]",
    "deep nesting": "x: " + "[" * 60 + "]" * 60,
    "deepest nesting": "x: " + "[" * 5000 + "]" * 5000,
    "a large file": "# " + "x" * 300_000,
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_more_than_a_configuration_is_refused(what: str, tmp_path: Path) -> None:
    refused(write(tmp_path, {"config.yaml": TOO_MUCH[what]}), "config.yaml")


def test_more_than_a_folder_of_configurations_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "round").symlink_to(tmp_path)
    refused(tmp_path, "too deep")
    (tmp_path / "round").unlink()
    write(tmp_path, {f"{i}.yaml": "a: 1" for i in range(30)})
    refuse_foreign_code(tmp_path)
    monkeypatch.setattr(foreign, "MOST_ENTRIES", 20)
    refused(tmp_path, "too many")


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "{}"],
        ["--config-dir={}"],
        ["-cd", "{}"],
        ["--config-d", "{}"],
        ["--config-path", "{}"],
    ],
    ids=lambda words: words[0],
)
def test_nothing_is_executed_by_the_command(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trap = tmp_path / "sprung"
    text = f"defaults: [train]\nhydra: {{callbacks: {{e: {{_target_: os.mkdir, path: {trap}}}}}}}"
    folder = write(tmp_path / "configs", {"evil.yaml": text})
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as the command sets it
    monkeypatch.setattr(sys, "argv", ["csgcnn"])
    monkeypatch.chdir(tmp_path)
    flags = [word.format(folder) for word in words]
    assert cli.main(["train", *flags, "--config-name", "evil", "dataset.path=nowhere"]) == 2
    assert "csgcnn train: " in capsys.readouterr().err
    assert not trap.exists()
