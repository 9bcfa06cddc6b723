"""Parameters to train, with their learning rates."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from csgcnn.nn.network import CrystalGraphNetwork


def build_optimizer(
    make_optimizer: Callable[[Any], Optimizer],
    model: CrystalGraphNetwork,
    loss: nn.Module,
    layer_decay: float = 1.0,
) -> Optimizer:
    """Build the optimizer of all weights that require a gradient.

    With discriminative fine-tuning (Howard & Ruder, ACL 2018) the learning rate is multiplied by
    `layer_decay` from each stage of the network to the one before, starting at the head.

    Args:
        make_optimizer: Builds the optimizer from parameter groups.
        model: The network.
        loss: The loss, whose parameters are trained without weight decay.
        layer_decay: Factor of the learning rate; 1 trains all stages alike.
    """
    stages: list[list[nn.Module]] = [[model]] if layer_decay == 1 else model.stages[::-1]
    groups: list[dict[str, Any]] = []
    for depth, modules in enumerate(stages):
        weights = (weight for module in modules for weight in module.parameters())
        if trained := [weight for weight in weights if weight.requires_grad]:
            groups.append({"params": trained, "factor": layer_decay**depth})
    if learned := list(loss.parameters()):
        # weight decay would pull learned variances towards 1
        groups.append({"params": learned, "weight_decay": 0.0})
    optimizer = make_optimizer(groups)
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("factor", 1.0)
    return optimizer
