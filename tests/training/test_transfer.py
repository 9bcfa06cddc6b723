from collections.abc import Callable
from typing import Any

import pytest
import torch

from csgcnn.errors import UserError
from csgcnn.training.trainer import Trainer
from csgcnn.training.transfer import weights_to_take

CONFIG: dict[str, Any] = {
    "model": {
        "_target_": "csgcnn.nn.network.CrystalGraphNetwork",
        "hidden": 8,
        "activation": "softplus",
        "head_hidden": 8,
        "dropout": 0.0,
    },
    "node_features": {"atom_init": {"trainable": False}},
    "edge_calculator": {"cutoff": 8.0},
    "pooling": {"_target_": "mean"},
    "graph": {"global_features": []},
}
GAP = {"name": "band_gap", "unit": "eV", "task": "regression", "classes": [], "derived": None}


@pytest.fixture
def content(trainer: Callable[..., Trainer]) -> dict[str, Any]:
    return {"state_dict": trainer(seed=1).model.state_dict(), "config": CONFIG, "targets": [GAP]}


def take(
    content: dict[str, Any], trainer: Trainer, parts: str = "all", **config: Any
) -> tuple[dict[str, Any], str]:
    state = trainer.model.state_dict()
    return weights_to_take("a.ckpt", content, state, {**CONFIG, **config}, trainer.targets, parts)


def test_the_same_question_takes_all(
    content: dict[str, Any], trainer: Callable[..., Trainer]
) -> None:
    made = trainer()
    weights, told = take(content, made)
    assert weights.keys() == made.model.state_dict().keys()
    made.initialize(weights)
    for model in (made.model, made.evaluated):
        assert all(
            torch.equal(model.state_dict()[name], content["state_dict"][name]) for name in weights
        )
    assert all(torch.equal(made.best[name], content["state_dict"][name]) for name in weights)
    assert "body and head" in told


@pytest.mark.parametrize(
    ("change", "parts", "why"),
    [
        ({}, "body", "init_parts=body"),
        ({"targets": [GAP | {"name": "e_form"}]}, "all", "it learned e_form, not band_gap"),
        ({"targets": [GAP | {"unit": "meV"}]}, "all", "units or classes"),
    ],
)
def test_another_question_takes_the_body(
    change: dict[str, Any],
    parts: str,
    why: str,
    content: dict[str, Any],
    trainer: Callable[..., Trainer],
) -> None:
    made = trainer(ema=0.9)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    weights, told = take(content | change, made, parts)
    assert why in told
    made.initialize(weights)
    for model in (made.model, made.evaluated):
        for name, tensor in model.state_dict().items():
            of_head = name.startswith(("head.", "scaler."))
            assert torch.equal(tensor, before[name] if of_head else content["state_dict"][name])


def test_other_layers_of_the_head(content: dict[str, Any], trainer: Callable[..., Trainer]) -> None:
    content["state_dict"]["head.out.weight"] = torch.ones(1, 5)
    assert "other layers" in take(content, trainer())[1]


def test_of_an_ensemble_the_first(content: dict[str, Any], trainer: Callable[..., Trainer]) -> None:
    second = trainer(seed=2).model.state_dict()
    members = {"members.0.": content["state_dict"], "members.1.": second}
    state = {
        prefix + name: tensor for prefix, part in members.items() for name, tensor in part.items()
    }
    weights, _ = take({**content, "state_dict": state | {"std_scale": torch.ones(1)}}, trainer())
    assert all(torch.equal(tensor, content["state_dict"][name]) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            {"model": CONFIG["model"] | {"activation": "silu"}},
            "model.activation=softplus (here silu)",
        ),
        ({"edge_calculator": {"cutoff": 6.0}}, "edge_calculator.cutoff=8.0 (here 6.0)"),
        ({"node_features": {"onehot": {"trainable": False}}}, "node_features.onehot"),
    ],
)
def test_another_body_is_refused(
    config: dict[str, Any], told: str, content: dict[str, Any], trainer: Callable[..., Trainer]
) -> None:
    if "onehot" in told:
        config = {"node_features": {"onehot": {"_target_": "x"}}}
        told = "node_features.onehot._target_=None (here x)"
    with pytest.raises(UserError, match="its body is another one") as caught:
        take(content, trainer(), **config)
    assert told in str(caught.value)
    assert "a.ckpt" in str(caught.value)


def test_what_does_not_matter(content: dict[str, Any], trainer: Callable[..., Trainer]) -> None:
    take(content, trainer(), model=CONFIG["model"] | {"dropout": 0.3, "head_hidden": 5})
    take(content, trainer(), node_features={"atom_init": {"trainable": True}})


def test_other_shapes_are_refused(content: dict[str, Any], trainer: Callable[..., Trainer]) -> None:
    content["state_dict"]["embedding.weight"] = torch.ones(3, 92)
    with pytest.raises(UserError, match=r"embedding\.weight"):
        take(content, trainer())


def test_a_frozen_body_stays(trainer: Callable[..., Trainer]) -> None:
    made = trainer(freeze_body=True, ema=0.9)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made.fit(lambda: None)
    changed = {
        name
        for name, tensor in made.model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed
    assert all(name.startswith("head.") for name in changed), "statistics of norms included"


def test_rates_fall_away_from_the_head(trainer: Callable[..., Trainer]) -> None:
    made = trainer(layer_decay=0.5)
    rates = {
        id(weight): group["lr"]
        for group in made.optimizer.param_groups
        for weight in group["params"]
    }
    assert len(rates) == len(list(made.model.parameters()))
    assert rates[id(made.model.head.out.weight)] == 0.01
    assert rates[id(made.model.blocks[0].convolution.linear.weight)] == 0.005
    assert rates[id(made.model.embedding.weight)] == 0.0025
    assert [group["lr"] for group in trainer().optimizer.param_groups] == [0.01]
