"""The options in conf/."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from csgcnn.cli.reference import OPTION_GROUPS, PRESET_GROUPS
from csgcnn.config.compose import compose
from csgcnn.config.locations import CONF, option_names
from csgcnn.config.targets import is_allowed
from csgcnn.config.validate import validate

# Options of different groups go together, except those of head, which exclude loss=gaussian and
# laplace. A preset may choose options itself.
TOGETHER = [group for group in OPTION_GROUPS if group != "head"]
ALONE = ["head", *PRESET_GROUPS]
ROWS = [
    [f"{group}={option}" for group, option in zip(TOGETHER, row, strict=True) if option]
    for row in zip_longest(*map(option_names, TOGETHER))
]
ROWS += [[f"{group}={option}"] for group in ALONE for option in option_names(group)]


def compose_with(command: str, *overrides: str) -> DictConfig:
    return compose(command, overrides)


def targets(node: Any) -> list[str]:
    if isinstance(node, list):
        return [target for item in node for target in targets(item)]
    if not isinstance(node, dict):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [target for value in node.values() for target in targets(value)]


@pytest.mark.parametrize("options", ROWS, ids=" ".join)
def test_every_option_of_every_group_composes(options: list[str]) -> None:
    command = "benchmark" if options[0].startswith("task=") else "train"
    cfg = compose_with(command, *options, "++dataset.path=somewhere")
    validate(cfg, command)
    found = targets(OmegaConf.to_container(cfg, resolve=True))
    assert len(found) >= 7
    assert all(map(is_allowed, found))


@pytest.mark.parametrize(
    "path", sorted((CONF / "node_features").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_node_feature_file_has_one_key_named_after_itself(path: Path) -> None:
    assert list(OmegaConf.load(path)) == [path.stem]


def test_node_features_add_up() -> None:
    assert list(compose_with("train").node_features) == ["atom_init", "learned"]
    assert list(compose_with("train", "node_features=onehot").node_features) == ["onehot"]
    cfg = compose_with("train", "node_features=[atom_init,learned]", "node_features.learned.dim=8")
    assert list(cfg.node_features) == ["atom_init", "learned"]
    assert cfg.node_features.learned.dim == 8


def test_experiment_and_command_line_override_the_data_set() -> None:
    cfg = compose_with("train", "experiment=matbench_perovskites", "dataset.split.fold=3")
    assert cfg.dataset.targets == ["e_form"]
    assert (cfg.dataset.split.method, cfg.dataset.split.column, cfg.dataset.split.fold) == (
        "fold",
        "matbench_fold",
        3,
    )


def test_recipes() -> None:
    assert compose_with("train").recipe == "fast"
    cfg = compose_with("train", "recipe=accurate", "model=csgann", "optimizer.lr=1e-3")
    assert (cfg.recipe, cfg.model.hidden, cfg.optimizer.lr) == ("accurate", 128, 1e-3)
    assert cfg.graph.global_features == ["density"]
    assert list(cfg.node_features) == ["atom_init", "learned"]
    assert cfg.model.convolution._target_.endswith("AttentionConvolution")
    cfg = compose_with("train", "recipe=accurate", "edge_calculator=gaussian", "dataset=elastic")
    assert cfg.edge_calculator._target_.endswith("GaussianDistance")
    assert compose_with("train", "experiment=matbench_perovskites").recipe == "accurate"
    cfg = compose_with("train", "recipe=cgcnn")
    assert (cfg.optimizer._target_, cfg.optimizer.momentum, cfg.loss.mse) == (
        "torch.optim.SGD",
        0.9,
        1.0,
    )
    assert (cfg.graph.shells, cfg.trainer.ema, cfg.trainer.batch_size) == ("truncate", None, 256)
    cfg = compose_with("train", "recipe=cogn")
    assert cfg.model.convolution._target_.endswith("SumConvolution")
    assert (cfg.graph.max_neighbors, cfg.node_features.learned.std) == (24, 0.03)
    cfg = compose_with("train", "recipe=small")
    assert (list(cfg.node_features), cfg.trainer.refit) == (["sevennet", "pretrained"], True)


@pytest.mark.parametrize("path", sorted((CONF / "task").glob("*.yaml")), ids=lambda path: path.stem)
def test_tasks_of_matbench(path: Path) -> None:
    cfg = compose_with("benchmark", f"task={path.stem}", "recipe=accurate")
    validate(cfg, "benchmark")
    assert (cfg.task.name, cfg.task.n_folds, cfg.recipe) == (path.stem, 5, "accurate")
    assert Path(cfg.dataset.path).name in (f"{path.stem}.json.gz", "castelli_perovskites.json.gz")
    (target,) = cfg.dataset.targets
    assert target in cfg.dataset.units or cfg.dataset.tasks[target] == "classification"
    assert cfg.dataset.split.method in ("fold", "matbench")
    values = list(cfg.task.published.values())
    assert {"coGN", "CGCNN v2019", "dummy"} <= set(cfg.task.published)
    assert values == sorted(values, reverse=target == "is_metal")


def test_the_cutoff_is_given_once() -> None:
    assert compose_with("train", "graph.cutoff=5").edge_calculator.cutoff == 5
    assert (
        compose_with("train", "edge_calculator=rbf", "graph.cutoff=5").edge_calculator.cutoff == 5
    )
