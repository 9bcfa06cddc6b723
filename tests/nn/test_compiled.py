"""Compiled kernels against the same layers in double precision, which use none."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError
from csgcnn.nn.compiled import SWITCH, compiled_functions
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution
from csgcnn.nn.interfaces import LayerConfig

pytest.importorskip("numba", reason="the kernels need csgcnn[fast]")

HIDDEN, EDGE_DIM = 24, 5
CONFIG = LayerConfig(HIDDEN, EDGE_DIM, "batch", "silu", message_layers=1)
CONVOLUTIONS = pytest.mark.parametrize("kind", [AttentionConvolution, GatedConvolution])
Convolution = AttentionConvolution | GatedConvolution


@pytest.fixture
def graph(structures: list[Any], pack: Callable[..., GraphStore]) -> GraphBatch:
    return pack(structures[:8]).batch(torch.arange(8))


def convolution(kind: type[Convolution], norm_scale: float = 1) -> Convolution:
    torch.manual_seed(0)
    conv = kind(CONFIG).train()
    with torch.no_grad():
        for tensor in (*conv.parameters(), *conv.buffers()):
            tensor.add_(0.3 * torch.rand_like(tensor))
        conv.message_norm.weight.mul_(norm_scale)
    return conv


def features(graph: GraphBatch) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(len(graph.atomic_number), HIDDEN), torch.rand(len(graph.distance), EDGE_DIM)


def result_and_gradients(
    conv: Convolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch
) -> dict[str, Tensor]:
    x, edge_attr = x.requires_grad_(), edge_attr.requires_grad_()
    found = conv(x, edge_attr, graph)
    direction = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    named = {"x": x, "edge_attr": edge_attr, **dict(conv.named_parameters())}
    gradients = torch.autograd.grad((found * direction).sum(), list(named.values()))
    return {"result": found, **dict(zip(named, gradients, strict=True))}


def difference(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


@CONVOLUTIONS
@pytest.mark.parametrize("norm_scale", [1, 25, 100])
def test_training_agrees_with_double_precision(
    kind: type[Convolution],
    norm_scale: float,
    graph: GraphBatch,
    double: Callable[[GraphBatch], GraphBatch],
) -> None:
    """Large norm weights give values at which e^x of single precision over- and underflows."""
    conv, (x, edge_attr) = convolution(kind, norm_scale), features(graph)
    assert compiled_functions(x, training=True)
    exact = deepcopy(conv).double()
    expected = result_and_gradients(exact, x.double(), edge_attr.double(), double(graph))
    for name, tensor in result_and_gradients(conv, x, edge_attr, graph).items():
        assert difference(tensor, expected[name]) < 2e-5 * norm_scale, name
    for name, tensor in conv.named_buffers():
        assert difference(tensor, exact.get_buffer(name)) < 1e-5, name


@CONVOLUTIONS
def test_evaluation_agrees_with_double_precision(
    kind: type[Convolution], graph: GraphBatch, double: Callable[[GraphBatch], GraphBatch]
) -> None:
    conv, (x, edge_attr) = convolution(kind).eval(), features(graph)
    with torch.inference_mode():
        assert compiled_functions(x, training=False)
        found = conv(x, edge_attr, graph)
        expected = deepcopy(conv).double()(x.double(), edge_attr.double(), double(graph))
    assert difference(found, expected) < 1e-5


@CONVOLUTIONS
def test_results_do_not_depend_on_the_number_of_threads(
    kind: type[Convolution], graph: GraphBatch
) -> None:
    found, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(result_and_gradients(convolution(kind), *features(graph), graph))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@CONVOLUTIONS
def test_a_mean_that_is_large_keeps_its_variance(
    kind: type[Convolution], graph: GraphBatch, double: Callable[[GraphBatch], GraphBatch]
) -> None:
    conv, (x, edge_attr) = convolution(kind), features(graph)
    x, exact = x + 1000, deepcopy(conv).double()
    conv(x, edge_attr, graph), exact(x.double(), edge_attr.double(), double(graph))
    found, expected = conv.message_norm.running_var, exact.message_norm.running_var
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=0)


@CONVOLUTIONS
@pytest.mark.parametrize("training", [True, False])
def test_what_is_not_a_number_stays_so(
    kind: type[Convolution], training: bool, graph: GraphBatch
) -> None:
    conv, (x, edge_attr) = convolution(kind).train(training), features(graph)
    first, last = 0, len(x) - 1
    x[first, 0] = torch.nan
    with torch.no_grad():
        found = conv(x, edge_attr, graph)
    assert found[first].isnan().all()
    assert found[last].isnan().all() == training  # through the statistics of the batch


@CONVOLUTIONS
def test_edges_that_count_zero_change_nothing(kind: type[Convolution], graph: GraphBatch) -> None:
    """Padding of recorded steps, and atoms without neighbors."""
    first = graph.edge_index[1] == 0
    kept = (~first).nonzero().squeeze(1)
    padded = replace(graph, edge_multiplicity=torch.where(first, 0, graph.edge_multiplicity))
    without = replace(
        graph,
        edge_index=graph.edge_index[:, kept],
        distance=graph.distance[kept],
        edge_multiplicity=graph.edge_multiplicity[kept],
    )
    conv, (x, edge_attr) = convolution(kind), features(graph)
    torch.testing.assert_close(conv(x, edge_attr, padded), conv(x, edge_attr[kept], without))


def test_kernels_are_not_used_where_they_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(3, HIDDEN)
    assert compiled_functions(x, training=True)
    assert compiled_functions(x, training=False) is None  # the gradients of an explanation
    with torch.no_grad():
        assert compiled_functions(x, training=False)
    with torch.autocast("cpu"):
        assert compiled_functions(x, training=True) is None
    for other in (x.double(), x.to("meta")):
        assert compiled_functions(other, training=True) is None
    monkeypatch.setenv(SWITCH, "torch")
    assert compiled_functions(x, training=True) is None
    monkeypatch.setenv(SWITCH, "off")
    with pytest.raises(ConfigError, match=r"CSGCNN_KERNELS=off: expected torch or numba"):
        compiled_functions(x, training=True)


@CONVOLUTIONS
def test_a_norm_in_evaluation_keeps_its_statistics_and_passes_gradients(
    kind: type[Convolution], graph: GraphBatch
) -> None:
    """Fine-tuning with frozen statistics."""
    conv, (x, edge_attr) = convolution(kind), features(graph)
    before = conv.message_norm.eval().running_mean.clone()
    found = result_and_gradients(conv, x, edge_attr, graph)
    assert found["x"].abs().max() > 0
    assert torch.equal(conv.message_norm.running_mean, before)
    assert torch.equal(found["result"], conv.eval()(x, edge_attr, graph))


def run_python(code: str, **environment: str) -> str:
    words = [sys.executable, "-W", "error", "-c", code]
    environment = {**os.environ, **environment}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_number_of_threads_of_torch_stays() -> None:
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from csgcnn.nn.compiled import compiled_functions\n"
        "assert compiled_functions(torch.zeros(1, 1), True)\n"
        "import numba; print(torch.get_num_threads(), numba.config.THREADING_LAYER)"
    )
    assert run_python(code, NUMBA_NUM_THREADS="2").split() == ["1", "default"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
def test_a_forked_process_computes_with_torch() -> None:
    x = torch.zeros(3, HIDDEN)
    assert compiled_functions(x, training=True)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(compiled_functions(x, True) is None))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get()


def test_an_unusable_numba_is_reported_and_torch_computes(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise RuntimeError('no locator available')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import logging; logging.basicConfig(stream=sys.stdout)\n"
        "import torch; from csgcnn.nn.compiled import compiled_functions\n"
        "print(compiled_functions(torch.zeros(1, 1), True))"
    )
    said = run_python(code)
    assert "no locator available" in said
    assert said.endswith("None\n")
