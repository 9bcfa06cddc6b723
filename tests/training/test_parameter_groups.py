from collections.abc import Callable

import torch

from csgcnn.training.losses import MultiTaskLoss, WeightedRegressionLoss
from csgcnn.training.trainer import Trainer


def test_layer_decay_lowers_the_rate_away_from_the_head(trainer: Callable[..., Trainer]) -> None:
    made = trainer(layer_decay=0.5)
    groups = made.optimizer.param_groups
    rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    assert len(rates) == len(list(made.model.parameters()))
    assert rates[id(made.model.head.out.weight)] == 0.01
    assert rates[id(made.model.blocks[0].convolution.linear.weight)] == 0.005
    assert rates[id(made.model.embedding.weight)] == 0.0025
    assert [group["lr"] for group in trainer().optimizer.param_groups] == [0.01]


def test_parameters_of_the_loss_have_no_weight_decay(trainer: Callable[..., Trainer]) -> None:
    loss = MultiTaskLoss(WeightedRegressionLoss(mse=1.0), learn_weights=True)
    made = trainer(loss=loss)
    network, learned = made.optimizer.param_groups
    assert network["weight_decay"] > 0 == learned["weight_decay"]
    assert learned["params"] == list(loss.parameters())
    assert not torch.isnan(loss.log_variance).any()
