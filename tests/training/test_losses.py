import pytest
import torch
from hydra import compose, initialize_config_dir

from csgcnn.config import CONF, build

NAN = float("nan")
ERRORS = torch.tensor([[2.0], [-0.5]])


@pytest.mark.parametrize(
    ("option", "of_2", "of_half"),
    [("mse", 4, 0.25), ("mae", 2, 0.5), ("huber", 1.5, 0.125), ("weighted", 2.7, 0.325)],
)
def test_closed_forms(option: str, of_2: float, of_half: float) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loss = build(compose("train", [f"loss={option}"]).loss)
    target = torch.tensor([[1.0], [3.0]])
    assert loss(target + ERRORS, target).item() == pytest.approx((of_2 + of_half) / 2)
    assert loss(target, target) == 0


def test_missing_labels_reach_neither_loss_nor_gradient() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loss = build(compose("train").loss)
    target = torch.tensor([[0.0, NAN], [NAN, NAN], [1.0, 2.0]])
    prediction = torch.tensor([[2.0, 7.0], [8.0, 9.0], [3.0, 4.0]], requires_grad=True)
    value = loss(prediction, target)
    assert value.item() == pytest.approx(2.7), "the mean over the three known labels, each 2 off"
    value.backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert torch.equal(prediction.grad != 0, target.isfinite())

    nothing_known = loss(prediction, torch.full_like(target, NAN))
    assert nothing_known == 0
