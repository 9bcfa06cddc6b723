from collections.abc import Callable

import torch
from torch import Tensor
from training_helpers import trained

from csgcnn.training.trainer import Trainer


def test_weights_are_averaged_with_a_growing_memory(trainer: Callable[..., Trainer]) -> None:
    made, decay = trainer(ema=0.5, max_epochs=2, batch_size=20), 0.5
    steps: list[Tensor] = []
    made.optimizer.register_step_post_hook(
        lambda *_: steps.append(made.model.head.out.weight.detach().clone())
    )
    trained(made)
    average = steps[0]
    for n, weight in enumerate(steps[1:], 1):
        kept = min(decay, (1 + n) / (10 + n))
        average = kept * average + (1 - kept) * weight
    assert len(steps) == 4
    assert made.evaluated is not made.model
    torch.testing.assert_close(made.evaluated.head.out.weight, average)
    assert not torch.equal(made.evaluated.head.out.weight, made.model.head.out.weight)
    for name in ("mean", "std"):
        torch.testing.assert_close(
            getattr(made.evaluated.scaler, name), getattr(made.model.scaler, name)
        )
