"""Fit the kernel head of a network, without gradients in the network."""

import logging
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from csgcnn.data.batch import GraphBatch
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.errors import ConfigError
from csgcnn.evaluation.inference import in_batches
from csgcnn.evaluation.metrics import target_metrics
from csgcnn.nn.kernel_heads import (
    MAX_ROWS,
    GaussianProcessHead,
    KernelHead,
    SupportVectorHead,
)
from csgcnn.training.kernel_scales import learn_scales
from csgcnn.training.trainer import Trainer
from csgcnn.training.validation import validation_score

log = logging.getLogger(__name__)

MAX_TUNED = 1500  # rows that choose the parameters of the kernel; the final fit takes all
# Grid of svr, for targets of variance 1; C is divided by the amplitude of the kernel.
C, EPSILON = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), (0.003, 0.01, 0.03, 0.1)
FOLDS = 5
# Buffers that are chosen, and not computed from the training rows.
CHOSEN = ("amplitude", "block_weight", "network_weight", "noise")
# Weights of the network among which validation rows choose, and how many rows that takes.
WEIGHTS, MIN_WEIGHED = [i / 10 for i in range(10)], 30


class Rows(NamedTuple):
    """Training rows with a value of one target.

    Attributes:
        x: Standardized inputs [n_rows, n_inputs].
        y: Standardized values [n_rows].
        weight: Weights in the fit [n_rows].
    """

    x: Tensor
    y: Tensor
    weight: Tensor


# Sets the kernel of a target of the head, given its number and rows; returns what was chosen.
Choose = Callable[[KernelHead, int, Rows], Mapping[str, Any]]


def check_kernel_head(head: KernelHead, dataset: Dataset, split: Split) -> None:
    """Check that a head can be fitted, before the network is trained.

    Args:
        head: The head.
        dataset: The data set.
        split: Rows of train, val and test.

    Raises:
        ConfigError: There are too many rows, classes or weights, or scikit-learn is not installed.
    """
    name = f"head={head.option}"
    if isinstance(head, SupportVectorHead) and find_spec("sklearn") is None:
        raise ConfigError(f"{name} needs an extra: pip install 'csgcnn[kernel]'")
    if (n_rows := len(split["train"])) > MAX_ROWS:
        raise ConfigError(
            f"{name}: {n_rows:,} training rows, expected at most {MAX_ROWS:,}, because its memory "
            "grows with their square; use head=mlp, or a smaller dataset.split.train"
        )
    if classes := [target.name for target in dataset.targets if target.classes]:
        raise ConfigError(f"{name} predicts numbers, and {classes[0]} has classes; use head=mlp")
    if dataset.weights is not None and isinstance(head, GaussianProcessHead):
        raise ConfigError(f"{name} does not read dataset.weight_column; use head=svr or head=mlp")


def fit_kernel_head(trainer: Trainer, seed: int) -> dict[str, Any]:
    """Fit the kernel head of the trained network, which predicts with it from then on.

    The score of the best epoch becomes that of the network with this head.

    Args:
        trainer: The training, whose network has the weights of the best epoch.
        seed: Seed of random choices.

    Returns:
        What was chosen, for metrics.json.
    """
    start = time.perf_counter()
    head, facts = _fit(trainer, lambda head, i, rows: _choose(head, i, rows, seed))
    if head.chooses_weight:
        _choose_network_weight(trainer, head)
    trainer.best_score = _score(trainer)
    return _described(trainer, head, facts, start)


def refit_kernel_head(
    trainer: Trainer, first: KernelHead, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Fit the kernel head of a trained network with what was chosen for another head.

    Args:
        trainer: The training, whose network has its final weights.
        first: The other head, which is fitted.
        facts: What was chosen for it.

    Returns:
        Likewise for this head; the seconds are those of both fits.
    """
    start, chosen = time.perf_counter(), [facts["targets"][t.name] for t in trainer.targets]
    head, found = _fit(trainer, lambda _head, i, _rows: chosen[i], first)
    described = _described(trainer, head, found, start)
    return described | {"seconds": facts["seconds"] + described["seconds"]}


def _fit(
    trainer: Trainer, choose: Choose, first: KernelHead | None = None
) -> tuple[KernelHead, dict[str, Any]]:
    """Fit the head to the training rows; return it with what was found for each target."""
    network, train = trainer.evaluated, trainer.split["train"]
    head = network.kernel_head
    assert head is not None, "the network has no kernel head"
    log.info("fitting head=%s to %d crystals", head.option, len(train))
    for name, buffer in head.named_buffers():
        if first is not None and name in CHOSEN:
            buffer.copy_(first.get_buffer(name))
    batch_size = 4 * trainer.settings.batch_size
    inputs = in_batches(network, network.kernel_inputs, trainer.store, train, batch_size)
    head.fit_inputs(inputs)
    x, y = head.standardize(inputs), trainer.labels.standardized(train)
    weight = torch.ones_like(y[:, :1]) if trainer.weights is None else trainer.weights[train]
    # scikit-learn returns wrong indices of support vectors if rows have the weight 0
    known, dual, facts = y.isfinite() & (weight > 0), torch.zeros_like(y).double(), {}
    for i, target in enumerate(trainer.targets):
        rows = Rows(*(of[known[:, i]] for of in (x, y[:, i], weight.squeeze(1))))
        chosen = choose(head, i, rows)
        dual[known[:, i], i], head.offset[i], found = _solve(head, i, rows, chosen)
        facts[target.name] = {**chosen, **found, "n_rows": len(rows.y)}
    head.keep(rows=x, dual=dual, known=known)
    return head, facts


def _described(
    trainer: Trainer, head: KernelHead, facts: dict[str, Any], start: float
) -> dict[str, Any]:
    """Log what was chosen; return the entry of metrics.json."""
    for target, weight in zip(trainer.targets, head.network_weight.tolist(), strict=True):
        facts[target.name]["network_weight"] = weight
        log.info("head=%s of %s: %s", head.option, target.name, _in_words(facts[target.name]))
    seconds = time.perf_counter() - start
    return {"option": head.option, "inputs": head.inputs, "targets": facts, "seconds": seconds}


def _choose_network_weight(trainer: Trainer, head: KernelHead) -> None:
    """Set the weight with the lowest error on the validation rows, or a half with few rows."""
    network, val = trainer.evaluated, trainer.split["val"]
    head.network_weight.fill_(0.5)
    if not len(val):
        return

    def both(graph: GraphBatch) -> Tensor:
        kernel = head(network.kernel_inputs(graph))
        return torch.stack([kernel, network.standardized(graph).to(kernel)], dim=1)

    outputs = in_batches(network, both, trainer.store, val, 4 * trainer.settings.batch_size)
    y = trainer.labels.standardized(val)
    for i in range(y.shape[1]):
        known = y[:, i].isfinite()
        if known.sum() >= MIN_WEIGHED:
            kernel, own = outputs[known, :, i].T
            errors = [
                (torch.lerp(kernel, own, weight) - y[known, i]).abs().mean().item()
                for weight in WEIGHTS
            ]
            head.network_weight[i] = WEIGHTS[errors.index(min(errors))]


def _in_words(facts: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value}" if isinstance(value, int) else f"{name} {value:.3g}"
        for name, value in facts.items()
        if not isinstance(value, list)
    )


def _score(trainer: Trainer) -> float:
    """Return the validation score of the network with its kernel head; without rows infinity."""
    if not len(trainer.split["val"]):
        return trainer.best_score
    values, targets = trainer.values_of("val").cpu(), trainer.targets
    metrics = target_metrics(trainer.predict("val").cpu(), values, targets)
    return validation_score(metrics, targets, trainer.labels.stds)


def _choose(head: KernelHead, i: int, rows: Rows, seed: int) -> dict[str, Any]:
    """Choose the kernel of target i, and C and ε of svr, on at most MAX_TUNED rows."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows.y)))[:MAX_TUNED]
    few = Rows(*(of[order.to(of.device)] for of in rows))
    scales = learn_scales(list(few.x.split(head.widths, dim=1)), few.y)
    head.block_weight[:, i], head.amplitude[i] = scales.weight, scales.amplitude
    facts: dict[str, Any] = {"amplitude": scales.amplitude, "noise": scales.noise}
    facts["block_weights"] = [float(f"{weight:.4g}") for weight in scales.weight]
    if isinstance(head, GaussianProcessHead):
        head.noise[i] = scales.noise
        return facts
    return facts | _choose_vectors(head, i, few, scales.amplitude)


def _choose_vectors(head: KernelHead, i: int, few: Rows, amplitude: float) -> dict[str, float]:
    """Return C and ε with the lowest error in a cross-validation."""
    from sklearn.model_selection import KFold
    from sklearn.svm import SVR

    kernel = head.kernel_of(i, few.x, few.x).cpu().numpy()
    y, weight = (of.double().cpu().numpy() for of in few[1:])
    rows = np.arange(len(y))  # in random order
    folds = [*KFold(min(FOLDS, len(y))).split(rows)] if len(y) > 1 else [(rows, rows)]

    def error(c: float, epsilon: float) -> float:
        total = 0.0
        for part, other in folds:
            model = SVR(kernel="precomputed", C=c / amplitude, epsilon=epsilon)
            model.fit(kernel[np.ix_(part, part)], y[part], weight[part])
            total += float(np.abs(model.predict(kernel[np.ix_(other, part)]) - y[other]).sum())
        return total

    c = min(C, key=lambda c: error(c, EPSILON[1]))
    return {"C": c / amplitude, "epsilon": min(EPSILON, key=lambda epsilon: error(c, epsilon))}


def _solve(
    head: KernelHead, i: int, rows: Rows, chosen: Mapping[str, Any]
) -> tuple[Tensor, float, dict[str, Any]]:
    """Return coefficients of the rows and constant of target i, and entries of metrics.json."""
    kernel = head.kernel_of(i, rows.x, rows.x)
    if isinstance(head, GaussianProcessHead):
        kernel.diagonal().add_(head.noise[i])
        factor = torch.linalg.cholesky(kernel)
        dual = torch.cholesky_solve(rows.y.double().unsqueeze(1), factor).squeeze(1)
        return dual, 0.0, {}
    from sklearn.svm import SVR

    y, weight = (of.double().cpu().numpy() for of in rows[1:])
    model = SVR(kernel="precomputed", C=chosen["C"], epsilon=chosen["epsilon"])
    model.fit(kernel.cpu().numpy(), y, weight)
    dual = torch.zeros(len(y), dtype=torch.float64)
    dual[torch.from_numpy(model.support_).long()] = torch.from_numpy(model.dual_coef_[0])
    found = {"n_support_vectors": len(model.support_)}
    return dual.to(rows.x.device), float(model.intercept_[0]), found
