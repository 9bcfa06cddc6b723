"""Test which untrusted configurations pass, and the limits of their size."""

from pathlib import Path

import pytest
from untrusted_configs import CALL, compose_from, refused, write

from csgcnn.config.compose import compose
from csgcnn.config.hydra_guard import check_folder_size
from csgcnn.config.resolved import save_resolved
from csgcnn.errors import ConfigError


def test_the_configuration_of_a_run_passes(tmp_path: Path) -> None:
    cfg = compose("train", ["node_features=[atom_init,learned]"])
    save_resolved(cfg, tmp_path / "config.yaml")
    assert compose_from(tmp_path) == cfg


SLURM = """{timeout_min: 60, partition: gpu, gpus_per_node: 1, mem_gb: 16, name: band_gap,
  array_parallelism: 8}"""
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
# Configurations by name, with the overrides that choose them.
USUAL: dict[str, tuple[list[str], str]] = {
    "dataset/mine.yaml": (
        ["dataset=mine"],
        "path: ${oc.env:HOME}/mine.json\ntargets: [class]\nunits: {class: eV, step: '()'}\n",
    ),
    "experiment/x.yaml": (
        ["experiment=x"],
        "# @package _global_\n"
        "defaults: [override /dataset: elastic, override /edge_calculator: rbf]\n"
        "seed: 1\ndataset: {split: {seed: '${seed}'}}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1', +experiment: 'a,b',"
        " dataset.targets: '[a],[b]'}}}\n",
    ),
    "slurm.yaml": (
        ["--config-name", "slurm"],
        "defaults: [train, override hydra/launcher: submitit_slurm, _self_]\n"
        f"hydra: {{launcher: {SLURM}}}\n",
    ),
    "sampler.yaml": (
        ["--config-name", "sampler"],
        "defaults: [train, override hydra/sweeper: csgcnn_search, _self_]\n"
        "hydra: {sweeper: {n_trials: 9, params: {seed: '1,2'}}}\n",
    ),
    "folders.yaml": (
        ["--config-name", "folders"],
        "defaults: [train, _self_]\n"
        "hydra: {run: {dir: '/a/${seed}/${now:%Y-%m-%d}'},\n"
        "  sweep: {dir: 'x/${now:%H-%M}', subdir: '${seed}'}}\n",
    ),
    "logging.yaml": (
        ["--config-name", "logging"],
        "defaults: [train, override hydra/job_logging: stdout, _self_]\n"
        "hydra: {job_logging: {root: {level: DEBUG},\n"
        "  handlers: {console: {class: logging.StreamHandler}}}}\n",
    ),
    "hydra/launcher/cluster.yaml": (
        ["hydra/launcher=cluster"],
        "defaults: [submitit_slurm]\npartition: gpu\n",
    ),
    "hparams/mine.yaml": (
        ["hparams=mine"],
        "# @package _global_\ndefaults: [override /hydra/sweeper: csgcnn_search]\n"
        "hydra: {sweeper: {n_trials: 9, prune_after: 0.5, seed: 1,\n"
        "  params: {optimizer.lr: 'tag(log, interval(1, 2))'}}}\n",
    ),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_configurations_pass(name: str, tmp_path: Path) -> None:
    given, text = USUAL[name]
    write(tmp_path, {name: text})
    is_name = given[0] == "--config-name"
    cfg = compose_from(tmp_path, given[1] if is_name else "train", *([] if is_name else given))
    assert cfg.trainer.max_epochs == 200


def test_files_that_are_no_configurations_are_ignored(tmp_path: Path) -> None:
    files = {
        "broken.yaml": "a: [",
        "binary.yaml": "\0",
        "notes.txt": f"hydra: {{callbacks: {{x: {CALL}}}}}",
        "checkpoints/best.ckpt": "not yaml",
    }
    compose_from(write(tmp_path, files), "train")


def test_the_own_overrides_of_the_user_are_trusted(tmp_path: Path) -> None:
    write(tmp_path, {"hydra/launcher/cluster.yaml": "defaults: [submitit_slurm]\npartition: gpu\n"})
    given = ["hydra/launcher=cluster", "hydra.launcher.setup=[module load cuda]"]
    given += ["+hydra.job.env_set.OMP_NUM_THREADS=1", f"hydra.searchpath=[file://{tmp_path}]"]
    compose_from(tmp_path, "train", *given)
    write(tmp_path, {"hydra/launcher/cluster.yaml": "defaults: [submitit_slurm]\nsetup: [rm x]\n"})
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.setup=rm x is refused"):
        compose_from(tmp_path, "train", "hydra/launcher=cluster")


def test_links_are_followed(tmp_path: Path) -> None:
    files = {
        "far/mine.yaml": "path: a.json",
        "evil/x.yaml": f"e: {CALL}",
        "configs/config.yaml": "defaults: [train]",
    }
    write(tmp_path, files)
    (tmp_path / "configs" / "dataset").symlink_to(tmp_path / "far")
    assert compose_from(tmp_path / "configs", "config", "dataset=mine").dataset.path == "a.json"
    write(tmp_path, {"configs/config.yaml": "defaults: [train, override hydra/callbacks: x]"})
    (tmp_path / "configs" / "hydra").mkdir()
    (tmp_path / "configs" / "hydra" / "callbacks").symlink_to(tmp_path / "evil")
    refused(tmp_path / "configs", "hydra.callbacks.e._target_")


LAUGHS = "".join(f"x{i + 1}: &x{i + 1} [{', '.join([f'*x{i}'] * 9)}]\n" for i in range(12))
TOO_MUCH = {
    "aliases of aliases": "x0: &x0 [ha]\n" + LAUGHS,
    "an alias of itself": "x: &x [*x]",
    "deep nesting": "x: " + "[" * 60 + "]" * 60,
    "deepest nesting": "x: " + "[" * 5000 + "]" * 5000,
    "a large file": "# " + "x" * 300_000,
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_a_file_that_expands_to_too_much_is_refused(what: str, tmp_path: Path) -> None:
    refused(write(tmp_path, {"config.yaml": TOO_MUCH[what]}), "config.yaml")


def test_a_folder_with_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path)
    refused(tmp_path, "too deep")
    (tmp_path / "round").unlink()
    write(tmp_path, {f"{i}.yaml": "a: 1" for i in range(30)})
    check_folder_size(tmp_path)
    for limits in ({"max_entries": 20}, {"max_file": 3}, {"max_folder": 100}):
        with pytest.raises(ConfigError, match="too m"):
            check_folder_size(tmp_path, **limits)
