"""Every option and key of the network sets what it says, and all parameters are trained."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from csgcnn.config.locations import CONF
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.site_features.potential import n_site_features
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn import convolutions, edge_calculators, node_features, norms, pooling
from csgcnn.nn.build import build_network
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.runs import pretrained  # noqa: F401 (registers its potential)

Composed = Callable[..., DictConfig]
ToDouble = Callable[[GraphBatch], GraphBatch]
BASE = ("model.hidden=16", "model.n_convolutions=2", "model.head_hidden=8")
LEARNABLE = ("edge_calculator.learnable=true", "edge_calculator.embedding=8")
CLASSES = {
    "model=csgcnn": convolutions.GatedConvolution,
    "model=csgann": convolutions.AttentionConvolution,
    "model=csginn": convolutions.IsomorphismConvolution,
    "model=cogn": convolutions.SumConvolution,
    "edge_calculator=gaussian": edge_calculators.GaussianDistance,
    "edge_calculator=rbf": edge_calculators.RadialBasis,
    "edge_calculator=pair_gaussian": edge_calculators.PairGaussian,
    "edge_calculator=screened": edge_calculators.ScreenedCoulomb,
    "edge_calculator=bessel": edge_calculators.BesselBasis,
    "node_features=atom_init": node_features.ElementTable,
    "node_features=onehot": node_features.ElementTable,
    "node_features=bits": node_features.ElementTable,
    "node_features=elemental": node_features.ElementTable,
    "node_features=learned": node_features.LearnedEmbedding,
    "node_features=sevennet": node_features.SiteFeatures,
    "node_features=chgnet": node_features.SiteFeatures,
    "node_features=pretrained": node_features.SiteFeatures,
    "pooling=mean": pooling.MeanPooling,
    "pooling=sum": pooling.SumPooling,
    "pooling=max": pooling.MaxPooling,
    "pooling=attention": pooling.AttentionPooling,
    "pooling=set2set": pooling.Set2Set,
}
# bfloat16 has 8 significant bits: relative rounding errors of 2^-9, in about ten layers. The
# largest difference was 0.027.
BFLOAT16_TOLERANCE = 0.05
GROUPS = ("model", "edge_calculator", "node_features", "pooling")


# node feature -> potential whose site features it reads
SITES = {name: f"graph.site_features=[{name}]" for name in ("sevennet", "chgnet", "pretrained")}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def n_linear(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.Linear) for layer in module.modules())


def is_glorot(net: nn.Module) -> bool:
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    limits = [(6 / sum(layer.weight.shape)) ** 0.5 for layer in layers]
    has_no_bias = not any(layer.bias is not None and layer.bias.any() for layer in layers)
    reached = [
        layer.weight.abs().max() / limit for layer, limit in zip(layers, limits, strict=True)
    ]
    return has_no_bias and max(reached) <= 1 and min(reached) > 0.5


# Override, further overrides, and what the network must then have.
KEYS: dict[str, tuple[tuple[str, ...], Callable[[Any], bool]]] = {
    "model.hidden=8": ((), lambda net: net.embedding.out_features == 8),
    "model.n_convolutions=4": ((), lambda net: len(net.blocks) == 4),
    "model.message_layers=3": ((), lambda net: n_linear(net.blocks[0].convolution.deeper) == 2),
    "model.norm=layer": ((), lambda net: has_norms(net, norms.LayerNorm)),
    "model.norm=none": ((), lambda net: has_norms(net, norms.NoNorm)),
    "model.activation=relu": ((), lambda net: has_activations(net, nn.ReLU)),
    "model.dropout=0.3": (
        (),
        lambda net: {0.3} == {m.p for m in net.modules() if isinstance(m, nn.Dropout)},
    ),
    "model.residual=pre": ((), lambda net: {block.residual for block in net.blocks} == {"pre"}),
    "model.head_hidden=4": ((), lambda net: net.head.out.in_features == 4),
    "model.n_head_layers=3": ((), lambda net: len(net.head.layers) == 3),
    "model.n_head_layers=null": (
        ("~model.head_hidden",),
        lambda net: n_linear(net.head) == 1 and isinstance(net.head.activation, nn.Identity),
    ),
    "model.initialization=glorot": ((), is_glorot),
    "model.predict_std=true": ((), lambda net: net.has_std),
    "model.convolution.heads=2": (
        ("model=csgann",),
        lambda net: net.blocks[0].convolution.attention.shape == (2, 8),
    ),
    "pooling.steps=5": (("pooling=set2set",), lambda net: net.pooling.steps == 5),
    "edge_calculator.step=0.5": (
        (),
        lambda net: net.edge_calculator.center.tolist() == [0.5 * k for k in range(17)],
    ),
    "edge_calculator.n_basis=8": (
        ("edge_calculator=rbf",),
        lambda net: net.edge_calculator.dim == 8,
    ),
    "edge_calculator.scale=0.25": (
        ("edge_calculator=pair_gaussian",),
        lambda net: net.edge_calculator.scale.item() == 0.25,
    ),
    "edge_calculator.learnable=true": ((), lambda net: len(net.edge_updates) == 1),
    "edge_calculator.embedding=9": (
        ("edge_calculator.learnable=true",),
        lambda net: net.edge_calculator.embed.out_features == 9,
    ),
    "graph.cutoff=6": ((), lambda net: net.edge_calculator.center[-1].item() == 6),
    "node_features.learned.dim=7": (
        ("node_features=learned",),
        lambda net: net.node_features.dim == 7,
    ),
    "node_features.learned.std=2": (
        ("node_features=learned",),
        lambda net: 1.9 < net.node_features.parts["learned"].embedding.weight.std() < 2.1,
    ),
    "node_features.sevennet.dim=7": (
        ("node_features=sevennet", SITES["sevennet"]),
        lambda net: net.node_features.dim == 7,
    ),
    "node_features.sevennet.dropout=0.3": (
        ("node_features=sevennet", SITES["sevennet"]),
        lambda net: net.node_features.parts["sevennet"].dropout.p == 0.3,
    ),
    "node_features.atom_init.trainable=true": (
        (),
        lambda net: len(list(net.node_features.parameters())) == 1,
    ),
}


def has_norms(net: CrystalGraphNetwork, kind: type[nn.Module]) -> bool:
    known = tuple(norms.NORMS.values())
    found = [type(module) for module in net.modules() if isinstance(module, known)]
    return len(found) == 2 * len(net.blocks) and set(found) == {kind}


def has_activations(net: CrystalGraphNetwork, kind: type[nn.Module]) -> bool:
    # The gate of CGCNN's convolution has a softplus whatever the activation.
    found = [type(block.activation) for block in net.blocks]
    return {*found, type(net.head.activation)} == {kind}


def with_site_features(batch: GraphBatch, config: DictConfig) -> GraphBatch:
    """Return the batch with random site features of the potentials of a configuration."""
    generator = torch.Generator().manual_seed(0)
    width = n_site_features(GraphSettings(**config.graph))
    features = torch.randn(len(batch.atomic_number), width, generator=generator)
    return replace(batch, site_features=features.half())


@pytest.fixture(scope="module")
def batch(structures: list[Any], pack: Callable[..., GraphStore]) -> GraphBatch:
    return pack(structures[:8]).batch(torch.arange(8))


@pytest.fixture(scope="module")
def double_batch(batch: GraphBatch, double: ToDouble) -> GraphBatch:
    return double(batch)


@pytest.mark.parametrize("group", GROUPS)
def test_the_classes_of_all_options_are_listed_here(group: str) -> None:
    assert {f"{group}={name}" for name in options(group)} == {
        option for option in CLASSES if option.startswith(f"{group}=")
    }


@pytest.mark.parametrize(("option", "expected"), CLASSES.items(), ids=CLASSES)
def test_an_option_selects_its_class(
    option: str, expected: type, batch: GraphBatch, composed: Composed
) -> None:
    group, _, name = option.partition("=")
    sites = [SITES[name]] if name in SITES else []
    model = build_network(composed(*BASE, option, *sites), n_outputs=[1])
    part: dict[str, Any] = {
        "model": model.blocks[0].convolution,
        "edge_calculator": model.edge_calculator,
        "node_features": next(iter(model.node_features.parts.values())),
        "pooling": model.pooling,
    }
    assert type(part[group]) is expected


@pytest.mark.parametrize("key", KEYS)
def test_a_key_sets_what_it_says(key: str, batch: GraphBatch, composed: Composed) -> None:
    overrides, is_set = KEYS[key]
    config = composed(*BASE, *overrides, key)
    before = build_network(composed(*BASE, *overrides), n_outputs=[1])
    model = build_network(config, n_outputs=[1])
    assert not is_set(before)
    assert is_set(model)
    assert model(with_site_features(batch, config)).isfinite().all()


def mixed(composed: Composed, **groups: str) -> Mapping[str, Any]:
    """Return the configuration of a small network with the given options."""
    config = composed(*BASE)
    parts = {name: config[name] for name in ("graph", "node_features")}
    return parts | {
        group: composed(*BASE, *LEARNABLE, f"{group}={name}")[group]
        for group, name in groups.items()
    }


def assert_all_trained(model: CrystalGraphNetwork, batch: GraphBatch) -> None:
    # In float64, to distinguish zero from rounding. In evaluation, because batch norms in training
    # remove the biases before them.
    model.double().eval()
    model.standardized(batch).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert None not in gradients.values()
    sizes = {name: gradient.abs().max().item() for name, gradient in gradients.items()}
    noise = 1e-12 * max(sizes.values())
    assert not [name for name, size in sizes.items() if size <= noise]


@pytest.mark.parametrize(
    ("model", "pooling", "edge"),
    list(product(options("model"), options("pooling"), options("edge_calculator"))),
)
def test_every_parameter_has_a_gradient(
    model: str, pooling: str, edge: str, double_batch: GraphBatch, composed: Composed
) -> None:
    torch.manual_seed(0)
    config = mixed(composed, model=model, pooling=pooling, edge_calculator=edge)
    made = build_network(config, n_outputs=[1, 1])
    assert len(made.edge_updates) == 1
    assert_all_trained(made, double_batch)


@pytest.mark.parametrize("learnable", ["false", "true"])
@pytest.mark.parametrize("features", [*options("node_features"), "[atom_init,learned]"])
def test_trainable_node_features_have_gradients(
    features: str, learnable: str, double_batch: GraphBatch, composed: Composed
) -> None:
    first = features.strip("[]").partition(",")[0]
    is_table = CLASSES[f"node_features={first}"] is node_features.ElementTable
    config = composed(
        "edge_calculator=rbf",
        f"edge_calculator.learnable={learnable}",
        f"node_features={features}",
        *([f"node_features.{first}.trainable=true"] if is_table else []),
        *([SITES[first]] if first in SITES else []),
    )
    model = build_network(config, n_outputs=[1, 1])
    assert len(model.edge_updates) == (2 if learnable == "true" else 0)
    assert_all_trained(model, with_site_features(double_batch, config))


@pytest.mark.parametrize(("model", "pooling"), list(product(options("model"), options("pooling"))))
def test_bfloat16_agrees_with_float32_within_its_rounding(
    model: str, pooling: str, batch: GraphBatch, composed: Composed
) -> None:
    torch.manual_seed(0)
    config = mixed(composed, model=model, pooling=pooling, edge_calculator="rbf")
    made = build_network(config, n_outputs=[1])
    exact = made(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = made(batch)
    rough.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())
    difference = ((rough - exact).norm() / exact.norm()).item()
    assert 0 < difference < BFLOAT16_TOLERANCE
