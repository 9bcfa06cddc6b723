"""Kernel heads predict what scikit-learn predicts with the parameters that were found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.svm import SVR
from torch import Tensor

from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.nn.kernel_heads import GaussianProcessHead, KernelHead, SupportVectorHead
from csgcnn.training.kernel_fit import fit_kernel_head
from csgcnn.training.kernel_scales import learn_scales, normal_scores
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]
HIDDEN = 8
WIDTHS = {"crystal": [HIDDEN], "global": [0]}


def fitted(trainer: Trainer, head: KernelHead) -> tuple[Any, dict[str, Any]]:
    """Fit the head of a trained network; return the network and what was chosen."""
    trainer.fit(lambda: None)
    trainer.model.kernel_head = head
    facts = fit_kernel_head(trainer, seed=0)["targets"]["band_gap"]
    return trainer.model.eval(), facts


def kernel_of(network: Any) -> Matern:
    """Return the kernel of one block in the words of scikit-learn."""
    return Matern(network.kernel_head.block_weight.item() ** -0.5, nu=2.5)


def inputs_of(network: Any, store: GraphStore, rows: Tensor) -> Any:
    with torch.no_grad():
        inputs = network.kernel_inputs(store.batch(rows))
        return network.kernel_head.standardize(inputs).double().numpy()


@pytest.mark.parametrize("n_missing", [0, 5])
def test_a_gaussian_process_predicts_as_scikit_learn(
    trainer: Make, store: GraphStore, split: Split, targets: Tensor, n_missing: int
) -> None:
    values = targets.clone()
    values[split["train"][:n_missing]] = torch.nan
    made = trainer(max_epochs=1, ema=None, values=values)
    network, facts = fitted(made, GaussianProcessHead(WIDTHS, 1, ["crystal"]))
    assert facts["n_rows"] == 40 - n_missing
    kernel = ConstantKernel(facts["amplitude"]) * kernel_of(network)
    process = GaussianProcessRegressor(kernel + WhiteKernel(facts["noise"]), optimizer=None)
    train = split["train"][n_missing:]
    scaler = network.scaler
    y = scaler.standardize(values[train])[:, 0].double().numpy()
    process.fit(inputs_of(network, store, train), y)
    mean, std = process.predict(inputs_of(network, store, split["test"]), return_std=True)
    with torch.no_grad():
        values_, stds = network.with_std(store.batch(split["test"]))
    np.testing.assert_allclose(scaler.standardize(values_)[:, 0], mean, atol=1e-5)
    np.testing.assert_allclose((stds / scaler.std)[:, 0], std, atol=1e-5)


def test_support_vectors_predict_as_scikit_learn(
    trainer: Make, store: GraphStore, split: Split, targets: Tensor
) -> None:
    made = trainer(max_epochs=1, ema=None)
    network, facts = fitted(made, SupportVectorHead(WIDTHS, 1, ["crystal"]))
    kernel = ConstantKernel(facts["amplitude"]) * kernel_of(network)
    model = SVR(kernel=kernel, C=facts["C"], epsilon=facts["epsilon"])
    y = network.scaler.standardize(targets[split["train"]])[:, 0].double().numpy()
    model.fit(inputs_of(network, store, split["train"]), y)
    expected = model.predict(inputs_of(network, store, split["test"]))
    with torch.no_grad():
        found = network(store.batch(split["test"]))
    np.testing.assert_allclose(network.scaler.standardize(found)[:, 0], expected, atol=1e-5)
    assert len(network.kernel_head.rows) == facts["n_support_vectors"] == len(model.support_)
    assert not network.has_std


def test_targets_lack_values_of_different_rows(
    trainer: Make, store: GraphStore, split: Split, targets: Tensor
) -> None:
    """The coefficients of two targets share the training rows, but not their values."""
    values = torch.cat([targets, targets.square()], dim=1)
    values[split["train"][:5], 0] = torch.nan
    values[split["train"][10:17], 1] = torch.nan
    head = GaussianProcessHead(WIDTHS, 2, ["crystal"])
    inputs = torch.randn(60, HIDDEN)
    head.fit_inputs(inputs)
    known = values[:40].isfinite()
    dual = torch.where(known, values[:40].double(), 0.0)
    head.keep(rows=head.standardize(inputs[:40]), dual=dual, known=known)
    alone = GaussianProcessHead(WIDTHS, 1, ["crystal"])
    alone.fit_inputs(inputs)
    rows = known[:, 1]
    parts = {"dual": dual[rows, 1:], "known": torch.ones(int(rows.sum()), 1)}
    alone.keep(rows=head.standardize(inputs[:40][rows]), **parts)
    test = inputs[50:]
    torch.testing.assert_close(head(test)[:, 1:], alone(test))
    torch.testing.assert_close(head.std(test)[:, 1:], alone.std(test))


def test_the_same_seed_gives_the_same_head(trainer: Make) -> None:
    states = []
    for _ in range(2):
        network, _facts = fitted(
            trainer(max_epochs=1, ema=None), GaussianProcessHead(WIDTHS, 1, ["crystal"])
        )
        states.append(network.kernel_head.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_without_validation_rows_the_training_rows_choose(trainer: Make, split: Split) -> None:
    parts = {**split, "val": split["val"][:0]}
    made = trainer(max_epochs=1, ema=None, split=parts)
    network, facts = fitted(made, SupportVectorHead(WIDTHS, 1, ["crystal"]))
    assert facts["n_support_vectors"] > 0
    assert network.fitted_kernel_head is not None


def test_rows_of_weight_0_are_left_out(trainer: Make, store: GraphStore, targets: Tensor) -> None:
    found = []
    for is_weighted in (True, False):
        values, weights = targets.clone(), torch.ones(60, 1)
        made = trainer(max_epochs=1, ema=None)
        # the network is that of all rows
        made.fit(lambda: None)
        if is_weighted:
            weights[:9] = 0
            made.weights = weights
        else:
            values[:9] = torch.nan
            made.labels.values = values
        made.model.kernel_head = SupportVectorHead(WIDTHS, 1, ["crystal"])
        fit_kernel_head(made, seed=0)
        with torch.no_grad():
            found.append(made.model.eval()(store.batch(torch.arange(50, 60))))
    torch.testing.assert_close(*found)


def test_the_marginal_likelihood_finds_the_block_that_matters() -> None:
    torch.manual_seed(0)
    blocks = [torch.randn(120, 3) / 3**0.5 for _ in range(3)]
    noise = 0.1 * torch.randn(120)
    y = blocks[1][:, 0].mul(3).sin() + blocks[1][:, 1] + noise
    y = (y - y.mean()) / y.std()
    scales = learn_scales(blocks, y)
    assert scales.weight[1] > 10 * max(scales.weight[0], scales.weight[2])
    assert scales.noise < 0.1
    outliers = torch.where(torch.arange(120) < 3, 30.0, y)
    weight = learn_scales(blocks, outliers).weight
    assert weight[1] > 10 * max(weight[0], weight[2]), "a few outliers do not choose the block"


def test_normal_scores_keep_the_order_and_equal_values_agree() -> None:
    scores = normal_scores(torch.tensor([3.0, -1.0, 3.0, 100.0, 0.5]))
    assert scores[1] < scores[4] < scores[0] == scores[2] < scores[3]
    expected = torch.special.ndtri(torch.tensor([0.6, 0.1, 0.6, 0.9, 0.3]).double())
    torch.testing.assert_close(scores, expected)


def test_the_mean_with_the_network_is_weighted(
    trainer: Make, store: GraphStore, split: Split
) -> None:
    made = trainer(max_epochs=1, ema=None)
    network, _facts = fitted(made, GaussianProcessHead(WIDTHS, 1, ["crystal"], 0.25))
    batch = store.batch(split["test"])
    with torch.no_grad():
        own = network.scaler(network.standardized(batch))
        kernel = network.scaler(network.kernel_head(network.kernel_inputs(batch)).float())
        torch.testing.assert_close(network(batch), 0.25 * own + 0.75 * kernel)
        torch.testing.assert_close(network.with_std(batch)[0], network(batch))


def test_validation_rows_choose_the_weight_of_the_network(
    trainer: Make, store: GraphStore, split: Split, targets: Tensor
) -> None:
    val = torch.arange(20, 60)
    made = trainer(max_epochs=1, ema=None, split={**split, "train": torch.arange(20), "val": val})
    network, facts = fitted(made, GaussianProcessHead(WIDTHS, 1, ["crystal"], None))
    weight = facts["network_weight"]
    assert network.kernel_head.network_weight.item() == weight
    batch, y = store.batch(val), targets[val]
    with torch.no_grad():
        own = network.scaler(network.standardized(batch))
        kernel = network.scaler(network.kernel_head(network.kernel_inputs(batch)).float())
    errors = {w / 10: (w / 10 * own + (1 - w / 10) * kernel - y).abs().mean() for w in range(10)}
    assert min(errors, key=lambda w: errors[w]) == pytest.approx(weight)
