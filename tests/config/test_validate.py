import math
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from typing import Any

import pytest
from omegaconf import OmegaConf

from csgcnn.config.compose import compose
from csgcnn.config.keys import command_keys, described_keys
from csgcnn.config.validate import check_values, validate
from csgcnn.errors import ConfigError, one_line


def check(command: str, *overrides: str) -> None:
    validate(compose(command, overrides), command)


@pytest.mark.parametrize(
    ("command", "override", "culprits"),
    [
        ("train", "trainer.batch_size=0", ["trainer.batch_size=0", "at least 1"]),
        ("train", "trainer.max_epochs=-3", ["trainer.max_epochs=-3"]),
        ("train", "trainer.ema=1", ["trainer.ema=1"]),
        ("train", "trainer.grad_clip=nan", ["trainer.grad_clip=nan"]),
        ("train", "trainer.precision=float16", ["float16", "bfloat16"]),
        ("train", "graph.cutoff=-1", ["graph.cutoff=-1"]),
        ("train", "graph.cutoff=inf", ["graph.cutoff=inf"]),
        ("train", "graph.shells=truncat", ["truncat", "did you mean truncate"]),
        ("train", "optimizer.lr=-1", ["optimizer.lr"]),
        ("train", "dataset.split.train=0", ["dataset.split.train=0"]),
        ("train", "dataset.split.train=0.9", ["train + val + test = 1.1"]),
        ("train", "dataset.split.method=folds", ["folds", "did you mean fold"]),
        ("train", "dataset.split.method=column", ["dataset.split.column"]),
        ("train", "dataset.split.method=file", ["dataset.split.file"]),
        ("train", "dataset=csv", ["dataset.path", "a table with a column"]),
        ("train", "model.hidden=75", ["model.hidden=75", "model.convolution.heads=4", "72 or 76"]),
        ("train", "node_features=[]", ["node_features"]),
        ("train", "plot.format=[png,jpg]", ["plot.format", "expected png, pdf or svg"]),
        ("train", "~scheduler", ["scheduler"]),
        ("predict", "batch_size=5", ["ckpt=…, structures=…"]),
        ("evaluate", "batch_size=5", ["ckpt=…, dataset.path=…", "dataset=dielectric"]),
    ],
)
def test_a_wrong_value_is_named(command: str, override: str, culprits: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check(command, override)
    assert all(culprit in str(caught.value) for culprit in culprits)


def test_wrong_values_of_predict_and_evaluate() -> None:
    with pytest.raises(ConfigError, match=r"on_error=skipp.*did you mean skip"):
        check("predict", "ckpt=a", "structures=b", "on_error=skipp")
    with pytest.raises(ConfigError, match="split=tset"):
        check("evaluate", "ckpt=a", "dataset=elastic", "split=tset")
    check("predict", "ckpt=a", "structures=[b,c]")
    check("evaluate", "ckpt=a", "dataset=elastic", "split=test")


CONFIG: Any = OmegaConf.to_container(compose("train", ["dataset=elastic"]), resolve=True)
BOUNDED = {
    name: key
    for name, key in described_keys(CONFIG, command_keys("train"))
    if key.setting.is_bounded
}


def outside(name: str) -> Iterator[Any]:
    setting = BOUNDED[name].setting
    yield from (math.nan, math.inf, True, "1", [1])
    yield from (bound - 1 for bound in (setting.at_least, setting.above) if bound is not None)
    yield from (bound + 1 for bound in (setting.at_most, setting.below) if bound is not None)
    yield from (bound for bound in (setting.above, setting.below) if bound is not None)
    if BOUNDED[name].type == "int":
        yield from (1.5, -(10**400))


@pytest.mark.parametrize("name", BOUNDED)
def test_a_number_is_in_its_range_and_nothing_else(name: str) -> None:
    *sections, last = name.split(".")
    for value in outside(name):
        config = deepcopy(CONFIG)
        node = reduce(lambda node, section: node[section], sections, config)
        node[last] = {"a": value} if BOUNDED[name].type.startswith("dict") else value
        with pytest.raises(ConfigError) as caught:
            check_values(config)
        assert str(caught.value).startswith(name)
        assert f"={one_line(value, 60)}: expected " in str(caught.value)
