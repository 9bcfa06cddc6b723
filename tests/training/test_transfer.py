from collections.abc import Callable
from typing import Any

import pytest
import torch

from csgcnn.errors import UserError
from csgcnn.training.trainer import Trainer
from csgcnn.training.transfer import Selection, select_weights

CONFIG: dict[str, Any] = {
    "model": {
        "_target_": "csgcnn.nn.network.CrystalGraphNetwork",
        "hidden": 8,
        "activation": "softplus",
        "head_hidden": 8,
        "dropout": 0.0,
    },
    "node_features": {
        "atom_init": {"_target_": "csgcnn.nn.node_features.ElementTable", "trainable": False}
    },
    "edge_calculator": {"cutoff": 8.0},
    "pooling": {"_target_": "mean"},
    "graph": {"global_features": []},
}
GAP = {"name": "band_gap", "unit": "eV", "task": "regression", "classes": [], "derived": None}
Make = Callable[..., Trainer]


@pytest.fixture
def content(trainer: Make) -> dict[str, Any]:
    """The checkpoint of another training."""
    return {"state_dict": trainer(seed=1).model.state_dict(), "config": CONFIG, "targets": [GAP]}


def select(
    content: dict[str, Any], trainer: Trainer, parts: str = "all", **config: Any
) -> Selection:
    state = trainer.model.state_dict()
    return select_weights(content, state, {**CONFIG, **config}, trainer.targets, parts)


def test_the_same_target_takes_body_and_head(content: dict[str, Any], trainer: Make) -> None:
    made = trainer()
    selection = select(content, made)
    assert selection.weights.keys() == made.model.state_dict().keys()
    assert selection.new_head == ""
    made.initialize(selection.weights)
    for state in (made.model.state_dict(), made.evaluated.state_dict(), made.best):
        assert all(torch.equal(state[name], content["state_dict"][name]) for name in state)


@pytest.mark.parametrize(
    ("change", "parts", "reason"),
    [
        ({}, "body", "init_parts=body"),
        (
            {"targets": [GAP | {"name": "e_form"}]},
            "all",
            "the checkpoint predicts e_form, not band_gap",
        ),
        ({"targets": [GAP | {"unit": "meV"}]}, "all", "units of the targets differ"),
        ({"targets": [GAP | {"transform": "log10"}]}, "all", "dataset.transform differs"),
        ({"targets": [GAP | {"delta": "composition"}]}, "all", "dataset.delta differs"),
    ],
)
def test_another_target_takes_the_body_only(
    change: dict[str, Any], parts: str, reason: str, content: dict[str, Any], trainer: Make
) -> None:
    made = trainer(ema=0.9)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    weights, new_head = select(content | change, made, parts)
    assert new_head == reason
    made.initialize(weights)
    for model in (made.model, made.evaluated):
        for name, tensor in model.state_dict().items():
            is_head = name.startswith(("head.", "scaler."))
            assert torch.equal(tensor, before[name] if is_head else content["state_dict"][name])


def test_a_head_with_other_layers_is_reinitialized(content: dict[str, Any], trainer: Make) -> None:
    content["state_dict"]["head.out.weight"] = torch.ones(1, 5)
    assert select(content, trainer()).new_head == "its layers differ"


def test_of_an_ensemble_the_first_member_is_taken(content: dict[str, Any], trainer: Make) -> None:
    states = content["state_dict"], trainer(seed=2).model.state_dict()
    state = {f"members.{i}.{name}": t for i in (0, 1) for name, t in states[i].items()}
    ensemble = {**content, "state_dict": state | {"std_scale": torch.ones(1)}}
    weights = select(ensemble, trainer()).weights
    assert all(torch.equal(tensor, states[0][name]) for name, tensor in weights.items())


def test_the_range_of_global_features_is_that_of_the_new_rows(
    content: dict[str, Any], trainer: Make
) -> None:
    made = trainer()
    names = ("mean", "low", "high")
    state = {f"global_features.{name}": torch.ones(2) for name in names}
    content["state_dict"] |= {name: 2 * values for name, values in state.items()}
    selection = select_weights(
        content, {**made.model.state_dict(), **state}, CONFIG, made.targets, "all"
    )
    taken = [name for name in selection.weights if name.startswith("global_features")]
    assert taken == ["global_features.mean"]
    assert selection.new_head == ""


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (
            {"model": CONFIG["model"] | {"activation": "silu"}},
            "model.activation=softplus (here silu)",
        ),
        ({"edge_calculator": {"cutoff": 6.0}}, "edge_calculator.cutoff=8.0 (here 6.0)"),
        (
            {"node_features": {"onehot": {"_target_": "x"}}},
            "node_features.onehot._target_=None (here x)",
        ),
    ],
    ids=["model", "edges", "nodes"],
)
def test_an_incompatible_architecture_is_refused(
    config: dict[str, Any], difference: str, content: dict[str, Any], trainer: Make
) -> None:
    with pytest.raises(UserError, match="incompatible architecture") as caught:
        select(content, trainer(), **config)
    assert difference in str(caught.value)


def test_keys_that_do_not_change_the_body_may_differ(
    content: dict[str, Any], trainer: Make
) -> None:
    select(content, trainer(), model=CONFIG["model"] | {"dropout": 0.3, "head_hidden": 5})
    table = CONFIG["node_features"]["atom_init"] | {"trainable": True}
    select(content, trainer(), node_features={"atom_init": table})


def test_other_shapes_are_refused(content: dict[str, Any], trainer: Make) -> None:
    content["state_dict"]["embedding.weight"] = torch.ones(3, 92)
    with pytest.raises(UserError, match=r"embedding\.weight"):
        select(content, trainer())


def test_a_frozen_body_keeps_weights_and_statistics(trainer: Make) -> None:
    made = trainer(freeze_body=True, ema=0.9, max_epochs=1)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made.fit(lambda: None)
    state = made.model.state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)
