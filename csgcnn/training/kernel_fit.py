"""Fit the kernel head of a network with scikit-learn, which an extra installs.

It is imported here only: predictions need the arrays that are found, and torch.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.errors import ConfigError
from csgcnn.evaluation.inference import in_batches
from csgcnn.evaluation.metrics import target_metrics
from csgcnn.nn.kernel_heads import MAX_ROWS, GaussianProcessHead, KernelHead
from csgcnn.training.trainer import Trainer
from csgcnn.training.validation import validation_score

log = logging.getLogger(__name__)

MAX_TUNED = 1000  # rows that choose the parameters of the kernel; the final fit takes all
# Grid of svr, for targets of variance 1; γ is divided by the number of blocks of inputs.
GAMMA, C, EPSILON = (0.03, 0.1, 0.3, 1.0, 3.0), (1.0, 10.0, 100.0), (0.01, 0.1)
FOLDS = 5

Array = np.ndarray[Any, Any]


class Rows(NamedTuple):
    """Rows with a value of one target.

    Attributes:
        x: Standardized inputs [n_rows, n_inputs].
        y: Standardized values [n_rows].
        weight: Weights in the fit [n_rows].
    """

    x: Array
    y: Array
    weight: Array

    def take(self, index: Array) -> "Rows":
        """Return some of the rows."""
        return Rows(self.x[index], self.y[index], self.weight[index])


class Fitted(NamedTuple):
    """What was found for one target.

    Attributes:
        dual: Coefficients of the training rows [n_rows].
        buffers: Values of buffers of the head.
        facts: Entries of metrics.json.
    """

    dual: Array
    buffers: Mapping[str, float]
    facts: dict[str, float]


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
    if find_spec("sklearn") is None:
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
    start, network, split = time.perf_counter(), trainer.evaluated, trainer.split
    head = network.kernel_head
    assert head is not None, "the network has no kernel head"
    rows, n_train = torch.cat([split["train"], split["val"]]), len(split["train"])
    log.info("fitting head=%s to %d crystals", head.option, n_train)
    batch_size = 4 * trainer.settings.batch_size
    inputs = in_batches(network, network.kernel_inputs, trainer.store, rows, batch_size)
    head.fit_inputs(inputs[:n_train])
    x, values = head.standardize(inputs).cpu(), trainer.values.cpu()[rows]
    y = network.scaler.standardize(values.to(inputs.device)).cpu()
    weight = torch.ones(len(rows)) if trainer.weights is None else trainer.weights.cpu()[rows, 0]
    known = y.isfinite()
    # scikit-learn returns wrong indices of support vectors if rows have the weight 0
    known[:n_train] &= weight[:n_train].unsqueeze(1) > 0
    dual, facts = torch.zeros(n_train, y.shape[1], dtype=torch.float64), {}
    fit = _fit_process if isinstance(head, GaussianProcessHead) else _fit_vectors
    for i, target in enumerate(trainer.targets):
        train, val = (
            Rows(*(of[part][known[part, i]].double().numpy() for of in (x, y[:, i], weight)))
            for part in (slice(n_train), slice(n_train, None))
        )
        fitted = fit(head, train, val, seed)
        dual[known[:n_train, i], i] = torch.from_numpy(fitted.dual)
        for name, value in fitted.buffers.items():
            getattr(head, name)[i] = value
        facts[target.name] = {"n_rows": len(train.y), **fitted.facts}
        chosen = ", ".join(
            f"{name} {value if isinstance(value, int) else format(value, '.3g')}"
            for name, value in fitted.facts.items()
        )
        log.info("head=%s of %s: %s", head.option, target.name, chosen)
    head.keep(rows=x[:n_train], dual=dual, known=known[:n_train])
    trainer.best_score = _score(trainer)
    seconds = time.perf_counter() - start
    return {"option": head.option, "inputs": head.inputs, "targets": facts, "seconds": seconds}


def _score(trainer: Trainer) -> float:
    """Return the validation score of the network with its kernel head; without rows infinity."""
    if not len(trainer.split["val"]):
        return trainer.best_score
    values, targets = trainer.values_of("val").cpu(), trainer.targets
    metrics = target_metrics(trainer.predict("val").cpu(), values, targets)
    return validation_score(metrics, targets, trainer.model.scaler.std.tolist())


def _fit_process(head: KernelHead, train: Rows, val: Rows, seed: int) -> Fitted:
    """Maximize the marginal likelihood of at most MAX_TUNED rows, then condition on all."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    assert isinstance(head, GaussianProcessHead)
    size = len(head.inputs) ** 0.5  # of the distance of two rows
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(size, (0.05 * size, 50 * size)) + WhiteKernel(
        0.1, (1e-4, 10.0)
    )
    process = GaussianProcessRegressor(
        kernel, n_restarts_optimizer=head.restarts, random_state=seed
    )
    few = _few(train, seed)
    with warnings.catch_warnings():
        # parameters at their bounds
        warnings.simplefilter("ignore")
        process.fit(few.x, few.y)
    if len(few.y) < len(train.y):
        process = GaussianProcessRegressor(process.kernel_, optimizer=None).fit(train.x, train.y)
    product_kernel, white = process.kernel_.k1, process.kernel_.k2
    amplitude, length = product_kernel.k1.constant_value, product_kernel.k2.length_scale
    noise = white.noise_level
    return Fitted(
        process.alpha_,
        {"amplitude": amplitude, "gamma": 0.5 / length**2, "offset": 0.0, "noise": noise},
        {"amplitude": amplitude, "length_scale": length, "noise": noise},
    )


def _fit_vectors(head: KernelHead, train: Rows, val: Rows, seed: int) -> Fitted:
    """Choose C, γ and ε by the MAE of the val rows, or by cross-validation without any."""
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.svm import SVR

    few, n_blocks, errors = _few(train, seed), len(head.inputs), dict[tuple[float, ...], float]()
    folds = list(_folds(few, val, seed))
    for gamma in GAMMA:
        for part, other in folds:
            own, cross = (rbf_kernel(rows.x, part.x, gamma / n_blocks) for rows in (part, other))
            for c, epsilon in product(C, EPSILON):
                model = SVR(kernel="precomputed", C=c, epsilon=epsilon)
                found = model.fit(own, part.y, part.weight).predict(cross)
                error = float(np.abs(found - other.y).sum())
                key = (gamma / n_blocks, c, epsilon)
                errors[key] = errors.get(key, 0.0) + error
    gamma, c, epsilon = min(errors, key=lambda key: errors[key])
    model = SVR(gamma=gamma, C=c, epsilon=epsilon, cache_size=500)
    model.fit(train.x, train.y, train.weight)
    dual = np.zeros(len(train.y))
    dual[model.support_] = model.dual_coef_[0]
    return Fitted(
        dual,
        {"amplitude": 1.0, "gamma": gamma, "offset": model.intercept_[0]},
        {"C": c, "gamma": gamma, "epsilon": epsilon, "n_support_vectors": len(model.support_)},
    )


def _few(rows: Rows, seed: int) -> Rows:
    """Return all rows, or MAX_TUNED random ones."""
    if len(rows.y) <= MAX_TUNED:
        return rows
    return rows.take(np.random.default_rng(seed).permutation(len(rows.y))[:MAX_TUNED])


def _folds(train: Rows, val: Rows, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield rows to fit and rows to compare with."""
    if len(val.y) or len(train.y) < 2:
        yield train, val if len(val.y) else train
        return
    order = np.random.default_rng(seed).permutation(len(train.y))
    folds = np.array_split(order, min(FOLDS, len(order)))
    for fold in folds:
        yield train.take(np.setdiff1d(order, fold)), train.take(fold)
