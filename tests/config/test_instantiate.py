import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from csgcnn.config.instantiate import instantiate
from csgcnn.errors import ConfigError


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
    """Replace the module of networks by one with other classes, and with names that it imports."""
    module = types.ModuleType("csgcnn.nn.network")
    for part in (Leaf, Tree):
        monkeypatch.setattr(part, "__module__", module.__name__)
        setattr(module, part.__name__, part)
    module.Path, module.Error = Path, ConfigError  # type: ignore[attr-defined]
    module.Value = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("forest")
def test_nested_objects_are_built() -> None:
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
        "csgcnn.nn.network.Path",  # imported there, not defined
        "csgcnn.nn.network.Error",
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
def test_a_target_outside_the_allow_list_is_refused_by_name(target: Any) -> None:
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
