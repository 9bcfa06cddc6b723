"""Every option of every group: it builds, all of it learns, and none is without effect."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from csgcnn.config.instantiate import instantiate
from csgcnn.config.paths import CONF
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError
from csgcnn.nn.network import CrystalGraphNetwork, build_network
from csgcnn.training.losses import MultiTaskLoss, WeightedRegressionLoss

Composed = Callable[..., DictConfig]
ToDouble = Callable[[GraphBatch], GraphBatch]
BASE = ("model.hidden=16", "model.n_convolutions=2", "model.head_hidden=8")
LEARNABLE = ("edge_calculator.learnable=true", "edge_calculator.embedding=8")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="module")
def batch(structures: list[Any], pack: Callable[..., GraphStore]) -> GraphBatch:
    return pack(structures[:8]).batch(torch.arange(8))


def mixed(composed: Composed, **groups: str) -> Mapping[str, Any]:
    """The configuration of a small network of the given options, each composed once and for all."""
    config = composed(*BASE)
    parts = {name: config[name] for name in ("graph", "node_features")}
    return parts | {
        group: composed(*BASE, *LEARNABLE, f"{group}={name}")[group]
        for group, name in groups.items()
    }


@pytest.mark.parametrize(
    ("model", "pooling", "edge"),
    list(product(options("model"), options("pooling"), options("edge_calculator"))),
)
def test_every_parameter_has_a_gradient(
    model: str, pooling: str, edge: str, batch: GraphBatch, double: ToDouble, composed: Composed
) -> None:
    torch.manual_seed(0)
    made = build_network(
        mixed(composed, model=model, pooling=pooling, edge_calculator=edge), n_outputs=[1, 1]
    )
    assert len(made.edge_updates) == 1
    assert_trained(made, double(batch))


def assert_trained(model: CrystalGraphNetwork, batch: GraphBatch) -> None:
    model.double().eval()  # in float64 to tell zero from rounding; in evaluation biases before norms count, too
    model.standardized(batch).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert None not in gradients.values()
    sizes = {name: gradient.abs().max().item() for name, gradient in gradients.items()}
    noise = 1e-12 * max(sizes.values())
    assert not [name for name, size in sizes.items() if size <= noise]


@pytest.mark.parametrize(("model", "pooling"), list(product(options("model"), options("pooling"))))
def test_it_runs_in_bfloat16(
    model: str, pooling: str, batch: GraphBatch, composed: Composed
) -> None:
    torch.manual_seed(0)
    made = build_network(
        mixed(composed, model=model, pooling=pooling, edge_calculator="rbf"), n_outputs=[1]
    )
    exact = made(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = made(batch)
    rough.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())
    assert not rough.equal(exact)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


@pytest.mark.parametrize("learnable", ["false", "true"])
@pytest.mark.parametrize("features", [*options("node_features"), "[atom_init,learned]"])
def test_node_features_learn_if_asked(
    features: str, learnable: str, batch: GraphBatch, double: ToDouble, composed: Composed
) -> None:
    first = features.strip("[]").partition(",")[0]
    words = [
        "edge_calculator=rbf",
        f"edge_calculator.learnable={learnable}",
        f"node_features={features}",
    ]
    trainable = [] if first == "learned" else [f"node_features.{first}.trainable=true"]
    model = build_network(composed(*words, *trainable), n_outputs=[1, 1])
    assert_trained(model, double(batch))
    assert len(model.edge_updates) == (2 if learnable == "true" else 0)


def after_two_steps(config: DictConfig, batch: GraphBatch) -> Tensor:
    """Predictions of a network after two steps of training."""
    torch.manual_seed(0)
    model = build_network(config, n_outputs=[1]).train()
    optimizer, loss = (
        instantiate(config.optimizer)(model.parameters()),
        MultiTaskLoss(instantiate(config.loss)),
    )
    target = torch.linspace(-2, 2, len(batch)).unsqueeze(1)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model.standardized(batch), target).backward()
        optimizer.step()
    with torch.no_grad():
        return model.eval()(batch)


GROUPS = ["model", "pooling", "edge_calculator", "node_features", "loss", "optimizer"]
KEYS = {
    "model.hidden=8": (),
    "model.n_convolutions=3": (),
    "model.message_layers=2": (),
    "model.norm=layer": (),
    "model.norm=none": (),
    **{f"model.activation={name}": () for name in ("silu", "relu", "gelu", "tanh")},
    "model.dropout=0.3": (),
    "model.residual=pre": (),
    "model.residual=none": (),
    "model.head_hidden=4": (),
    "model.n_head_layers=2": (),
    "model.convolution.heads=2": ("model=csgann",),
    "pooling.steps=1": ("pooling=set2set",),
    "edge_calculator.step=0.5": ("edge_calculator=gaussian",),
    "edge_calculator.n_basis=8": ("edge_calculator=rbf",),
    "edge_calculator.scale=0.2": ("edge_calculator=pair_gaussian",),
    "edge_calculator.learnable=true": (),
    "edge_calculator.embedding=9": ("edge_calculator.learnable=true",),
    "graph.cutoff=7": (),
    "node_features.learned.dim=7": ("node_features=learned",),
    "node_features.learned.std=1": ("node_features=learned",),
    "node_features.atom_init.trainable=true": (),
}


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_trains_and_differs_from_the_others(
    group: str, batch: GraphBatch, composed: Composed
) -> None:
    found = {
        option: after_two_steps(composed(*BASE, f"{group}={option}"), batch)
        for option in options(group)
    }
    assert len(found) > 2
    assert all(values.isfinite().all() for values in found.values())
    for first, second in product(found, found):
        if first < second:
            assert (found[first] - found[second]).abs().max() > 1e-5, (
                f"{first} does what {second} does"
            )


@pytest.mark.parametrize(("key", "words"), KEYS.items(), ids=KEYS)
def test_every_key_has_an_effect(
    key: str, words: tuple[str, ...], batch: GraphBatch, composed: Composed
) -> None:
    without, changed = (
        after_two_steps(composed(*BASE, *words, *key_), batch) for key_ in ((), (key,))
    )
    assert changed.isfinite().all()
    assert (without - changed).abs().max() > 1e-5


@pytest.mark.parametrize(
    "word",
    ["norm=instance", "residual=both", "activation=mish", "hidden=30"],
    ids=lambda word: word,
)
def test_a_wrong_value_is_named(word: str, composed: Composed) -> None:
    with pytest.raises(ConfigError, match=rf"{word}.*(expected|heads=4)"):
        build_network(composed("model=csgann", f"model.{word}"), n_outputs=[1])


@pytest.mark.parametrize("model", options("model"))
def test_dropout_acts_in_training_only(model: str, batch: GraphBatch, composed: Composed) -> None:
    torch.manual_seed(0)
    dropping, keeping = (
        build_network(composed(*BASE, f"model={model}", f"model.dropout={rate}"), n_outputs=[1])
        for rate in (0.5, 0.0)
    )
    keeping.load_state_dict(dropping.state_dict())
    with torch.no_grad():
        assert keeping.train().standardized(batch).equal(keeping.standardized(batch))
        assert (
            dropping.train().standardized(batch) - dropping.standardized(batch)
        ).abs().max() > 1e-3
        keeping.load_state_dict(dropping.state_dict())
        assert dropping.eval().standardized(batch).equal(keeping.eval().standardized(batch))
        assert all(block.dropout.p == 0.5 for block in dropping.blocks)
        assert dropping.head.dropout.p == 0.5


@pytest.mark.parametrize("learnable", ["false", "true"], ids=["fixed", "learnable"])
@pytest.mark.parametrize("model", options("model"))
def test_it_can_learn_eight_crystals_by_heart(
    model: str, learnable: str, batch: GraphBatch, composed: Composed
) -> None:
    torch.manual_seed(0)
    words = [
        f"model={model}",
        "model.hidden=32",
        "edge_calculator=rbf",
        f"edge_calculator.learnable={learnable}",
    ]
    made, target = (
        build_network(composed(*words, "edge_calculator.embedding=16"), n_outputs=[1]),
        torch.randn(8, 1),
    )
    loss, optimizer = (
        WeightedRegressionLoss(mse=0.4, l1=0.4, huber=0.2),
        torch.optim.AdamW(made.parameters(), lr=1e-2),
    )
    for _ in range(150):
        optimizer.zero_grad()
        error = loss(made.standardized(batch), target)
        error.backward()
        optimizer.step()
        if error < 1e-2:
            return
    pytest.fail(f"the loss is still {error:.3g}")
