import math
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from csgcnn.config.values import ALLOWED_TARGETS
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from csgcnn.config import instantiate as config
from csgcnn.config.instantiate import instantiate
from csgcnn.config.paths import CONF, claim_directory, data_path
from csgcnn.config.resolved import save_resolved
from csgcnn.config.validate import validate
from csgcnn.errors import ConfigError, UserError
from csgcnn.nn.heads import Head

OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml"))


def composed(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, list(overrides))


def targets(node: Any) -> list[str]:
    if isinstance(node, list):
        return [target for item in node for target in targets(item)]
    if not isinstance(node, dict):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [target for value in node.values() for target in targets(value)]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes(option: str) -> None:
    command = "benchmark" if option.startswith("task=") else "train"
    cfg = composed(command, option, "++dataset.path=somewhere")
    validate(cfg)
    found = targets(OmegaConf.to_container(cfg, resolve=True))
    assert len(found) >= 7
    assert all(ALLOWED_TARGETS.fullmatch(target) for target in found)


@pytest.mark.parametrize(
    "path", sorted((CONF / "node_features").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_node_feature_file_has_one_key_named_after_itself(path: Path) -> None:
    assert list(OmegaConf.load(path)) == [path.stem]


def test_node_features_add_up() -> None:
    assert list(composed("train").node_features) == ["atom_init", "learned"]
    assert list(composed("train", "node_features=onehot").node_features) == ["onehot"]
    cfg = composed("train", "node_features=[atom_init,learned]", "node_features.learned.dim=8")
    assert list(cfg.node_features) == ["atom_init", "learned"]
    assert cfg.node_features.learned.dim == 8


def test_experiment_and_command_line_override_the_data_set() -> None:
    cfg = composed("train", "experiment=matbench_perovskites", "dataset.split.fold=3")
    assert cfg.dataset.targets == ["e_form"]
    assert (cfg.dataset.split.method, cfg.dataset.split.column, cfg.dataset.split.fold) == (
        "fold",
        "matbench_fold",
        3,
    )


def test_recipes() -> None:
    assert composed("train").recipe == "fast"
    cfg = composed("train", "recipe=accurate", "model=csgann", "optimizer.lr=1e-3")
    assert (cfg.recipe, cfg.model.hidden, cfg.optimizer.lr) == ("accurate", 128, 1e-3)
    assert cfg.graph.global_features == ["density"]
    assert list(cfg.node_features) == ["atom_init", "learned"]
    assert cfg.model.convolution._target_.endswith("AttentionConvolution")
    cfg = composed("train", "recipe=accurate", "edge_calculator=gaussian", "dataset=elastic")
    assert cfg.edge_calculator._target_.endswith("GaussianDistance")
    assert composed("train", "experiment=matbench_perovskites").recipe == "accurate"
    cfg = composed("train", "recipe=cgcnn")
    assert (cfg.optimizer._target_, cfg.optimizer.momentum, cfg.loss.mse) == (
        "torch.optim.SGD",
        0.9,
        1.0,
    )
    assert (cfg.graph.shells, cfg.trainer.ema, cfg.trainer.batch_size) == ("truncate", None, 256)


@pytest.mark.parametrize("path", sorted((CONF / "task").glob("*.yaml")), ids=lambda path: path.stem)
def test_tasks_of_matbench(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSGCNN_DATA", "/data")
    cfg = composed("benchmark", f"task={path.stem}", "recipe=accurate")
    validate(cfg)
    assert (cfg.task.name, cfg.task.n_folds, cfg.recipe) == (path.stem, 5, "accurate")
    assert Path(cfg.dataset.path).name in (f"{path.stem}.json.gz", "castelli_perovskites.json.gz")
    (target,) = cfg.dataset.targets
    assert target in cfg.dataset.units or cfg.dataset.tasks[target] == "classification"
    assert cfg.dataset.split.method in ("fold", "matbench")
    values = list(cfg.task.published.values())
    assert {"coGN", "CGCNN v2019", "dummy"} <= set(cfg.task.published)
    assert values == sorted(values, reverse=target == "is_metal")


def test_the_cutoff_is_given_once() -> None:
    assert composed("train", "graph.cutoff=5").edge_calculator.cutoff == 5
    assert composed("train", "edge_calculator=rbf", "graph.cutoff=5").edge_calculator.cutoff == 5


def test_data_directory_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSGCNN_DATA", "/elsewhere")
    assert composed("train", "dataset=elastic").dataset.path == "/elsewhere/elastic.json.gz"


@pytest.mark.parametrize(
    ("command", "override", "culprits"),
    [
        ("train", "trainer.batch_size=0", ["trainer.batch_size=0", "1 or more"]),
        ("train", "trainer.max_epochs=-3", ["trainer.max_epochs=-3"]),
        ("train", "trainer.ema=1", ["trainer.ema=1"]),
        ("train", "trainer.grad_clip=nan", ["trainer.grad_clip=nan"]),
        ("train", "trainer.precision=float16", ["float16", "bfloat16"]),
        ("train", "graph.cutoff=-1", ["graph.cutoff=-1"]),
        ("train", "graph.cutoff=inf", ["graph.cutoff=inf"]),
        ("train", "graph.shells=truncat", ["truncat", "did you mean truncate"]),
        ("train", "seed=one", ["seed=one", "integer"]),
        ("train", "seed=1.5", ["seed=1.5", "integer"]),
        ("train", "optimizer.lr=-1", ["optimizer.lr"]),
        ("train", "dataset.split.train=0", ["dataset.split.train=0"]),
        ("train", "dataset.split.train=0.9", ["train + val + test = 1.1"]),
        ("train", "dataset.split.method=folds", ["folds", "did you mean fold"]),
        ("train", "dataset.split.method=column", ["dataset.split.column"]),
        ("train", "dataset.split.method=file", ["dataset.split.file"]),
        ("train", "dataset=csv", ["dataset.path", "a table with a column"]),
        ("train", "trainer=3", ["trainer=3"]),
        ("train", "node_features=[]", ["node_features"]),
        ("train", "~scheduler", ["scheduler"]),
        ("predict", "batch_size=5", ["ckpt=…, structures=…"]),
        ("evaluate", "batch_size=5", ["ckpt=…, dataset.path=…", "dataset=dielectric"]),
    ],
)
def test_a_wrong_value_is_named(command: str, override: str, culprits: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(composed(command, override))
    assert all(culprit in str(caught.value) for culprit in culprits)


def test_wrong_values_of_predict_and_evaluate() -> None:
    with pytest.raises(ConfigError, match=r"on_error=skipp.*did you mean skip"):
        validate(composed("predict", "ckpt=a", "structures=b", "on_error=skipp"))
    with pytest.raises(ConfigError, match="split=tset"):
        validate(composed("evaluate", "ckpt=a", "dataset=elastic", "split=tset"))
    validate(composed("predict", "ckpt=a", "structures=[b,c]"))
    validate(composed("evaluate", "ckpt=a", "dataset=elastic", "split=test"))


class Leaf:
    def __init__(self, width: int, name: str = "leaf") -> None:
        if width < 0:
            raise ValueError("width must not be negative")
        self.width, self.name = width, name


class Tree:
    def __init__(
        self, leaves: list[Leaf], parts: dict[str, Leaf], make: Any, root: object = None
    ) -> None:
        self.leaves, self.parts, self.make, self.root = leaves, parts, make, root


LEAF, TREE = "csgcnn.nn.network.Leaf", "csgcnn.nn.network.Tree"


@pytest.fixture
def forest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of models, with more in it."""
    module = types.ModuleType("csgcnn.nn.network")
    for part in (Leaf, Tree):
        monkeypatch.setattr(part, "__module__", module.__name__)
        setattr(module, part.__name__, part)
    module.Path, module.Head = Path, Head  # type: ignore[attr-defined]
    module.Value = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("forest")
def test_build_makes_nested_objects() -> None:
    cfg = OmegaConf.create(
        {
            "width": 3,
            "tree": {
                "_target_": TREE,
                "leaves": [{"_target_": LEAF, "width": "${width}"}],
                "parts": {"a": {"_target_": LEAF, "width": 1, "name": "a"}},
                "make": {"_target_": LEAF, "_partial_": True, "name": "late"},
            },
        }
    )
    root = object()
    for node in (cfg.tree, OmegaConf.to_container(cfg, resolve=True)["tree"]):
        tree = instantiate(node, root=root)
        assert [leaf.width for leaf in tree.leaves] == [3]
        assert type(tree.leaves) is list
        assert tree.parts["a"].name == "a"
        assert tree.make(width=5).width == 5
        assert tree.root is root
    assert instantiate({"a": {"_target_": LEAF, "width": 2}})["a"].width == 2


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "csgcnn.config.os.system",
        "csgcnn.nn.network.Path",  # only imported there
        "csgcnn.nn.network.Head",
        "csgcnn.nn.network.Value",
        "csgcnn.nn.network.Leaf.__init__",
        "csgcnn.nn.network.Absent",
        "csgcnn.nn.absent.Leaf",
        "csgcnn.nn.network.Leaf\n",
        "csgcnn.nn..Leaf",
        "csgcnn.training.losses.os.system",
        "csgcnn.crystals.elements.np.load",
        "csgcnn.errors.UserError",
        "torch.load",
        "torch.optim.lr_scheduler.LambdaLR",
        "builtins.eval",
        7,
    ],
)
@pytest.mark.usefixtures("forest")
def test_a_foreign_target_is_refused_by_name(target: Any) -> None:
    for node in (
        {"_target_": target},
        {"_target_": LEAF, "width": [{"deep": {"_target_": target}}]},
    ):
        with pytest.raises(ConfigError, match=re.escape(str(target))):
            instantiate(node)


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "_convert_", "_anything_"])
@pytest.mark.usefixtures("forest")
def test_special_keys_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        instantiate({"_target_": LEAF, "width": 1, key: []})


@pytest.mark.usefixtures("forest")
def test_wrong_arguments_name_key_and_target() -> None:
    for partial in (False, True):
        with pytest.raises(
            ConfigError, match=rf"widht is no argument of {LEAF}; did you mean width"
        ):
            instantiate({"_target_": LEAF, "_partial_": partial, "widht": 1})
    with pytest.raises(ConfigError, match=rf"{LEAF}.*width"):
        instantiate({"_target_": LEAF})
    with pytest.raises(ConfigError, match=rf"{LEAF}: width must not be negative"):
        instantiate({"_target_": LEAF, "width": -1})


def test_data_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").touch()
    assert data_path("mine.json") == tmp_path / "mine.json"
    assert data_path(str(tmp_path / "mine.json")) == tmp_path / "mine.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_path("~/mine.json") == tmp_path / "mine.json"
    assert data_path("conf/train.yaml") == CONF / "train.yaml"  # in the checkout, from anywhere
    with pytest.raises(UserError) as caught:
        data_path("absent.json", hint="draw it yourself")
    for part in (
        str(tmp_path / "absent.json"),
        str(CONF.parent),
        "draw it yourself",
        "CSGCNN_DATA",
        "dataset.path=",
    ):
        assert part in str(caught.value)


def test_data_path_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "CONF", config.PACKAGE / "conf")
    with pytest.raises(UserError) as caught:
        data_path("absent.json")
    assert "site-packages" not in str(caught.value)
    assert str(config.PACKAGE) not in str(caught.value)


def test_a_hundred_runs_in_one_second_get_a_hundred_directories(tmp_path: Path) -> None:
    wanted = str(tmp_path / "runs" / "06-51-48")
    with ThreadPoolExecutor(20) as pool:
        claimed = list(pool.map(claim_directory, [wanted] * 100))
    assert set(claimed) == {wanted, *(f"{wanted}-{i}" for i in range(1, 100))}
    assert all(Path(path).is_dir() for path in claimed)


def test_save_resolved(tmp_path: Path) -> None:
    save_resolved(composed("train", "graph.cutoff=6"), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "${" not in text.partition("hydra:")[0]
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert saved.edge_calculator.cutoff == 6
    assert math.isclose(saved.optimizer.lr, 5e-3)
    validate(saved)
