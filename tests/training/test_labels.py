"""A reference of the composition is subtracted from labels and added to predictions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from training_helpers import timeless, trained

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.data.composition_model import composition_features
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.nn.references import CompositionReference
from csgcnn.training.state import load_training_state, training_state
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]


@pytest.fixture(scope="module")
def oxides() -> GraphStore:
    """Sixty crystals of three elements."""
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    crystals = [
        Crystal(np.eye(3) * rng.uniform(4.2, 4.6), rng.choice([8, 13, 20], 4).astype("u1"), corners)
        for _ in range(60)
    ]
    return GraphStore(connect(crystals, GraphSettings()), [*"x" * 60], {}, GraphSettings())


def predicted(made: Trainer) -> Tensor:
    return torch.cat([made.predict(part) for part in ("train", "val", "test")])


def test_a_linear_term_of_the_composition_is_added_to_predictions(
    trainer: Make, oxides: GraphStore
) -> None:
    torch.manual_seed(0)
    fraction = composition_features(oxides)[:, [8, 13, 20]].float()
    # a term that is not so large that its training chooses another penalty
    values, term = torch.randn(60, 1), fraction @ torch.tensor([[-0.5], [0.2], [1.0]])
    errors, predictions = [], []
    for labels in (values, values + term):
        made = trainer(store=oxides, values=labels, reference=CompositionReference(1), ema=None)
        errors.append([row["val_mae_band_gap"] for row in trained(made)])
        predictions.append(predicted(made))
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    difference = predictions[1] - predictions[0]
    # the ridge shrinks the term a little
    torch.testing.assert_close(difference, term, atol=5e-3 * term.std().item(), rtol=0)


def test_only_training_rows_fit_the_reference(trainer: Make, targets: Tensor, split: Split) -> None:
    states = []
    for parts in ((), ("val", "test"), ("train",)):
        values = targets.clone()
        for part in parts:
            values[split[part]] += torch.arange(len(split[part])).unsqueeze(1)
        made = trainer(values=values, reference=CompositionReference(1))
        states.append(torch.cat([tensor.flatten() for tensor in made.model.reference.buffers()]))
        shown = made.labels.standardized(split["train"])
        assert shown.mean().item() == pytest.approx(0, abs=1e-5)
        assert shown.std(correction=0).item() == pytest.approx(1, rel=1e-5)
    assert torch.equal(states[0], states[1])
    assert not torch.allclose(states[0], states[2])


def test_the_score_measures_errors_in_deviations_of_the_values(
    trainer: Make, targets: Tensor, split: Split
) -> None:
    made = trainer(max_epochs=1, reference=CompositionReference(1))
    (row,) = trained(made)
    std = targets[split["train"]].std(correction=0).item()
    assert made.best_score == pytest.approx(row["val_mae_band_gap"] / std, rel=1e-5)
    known = targets[split["val"]]
    error = (made.evaluated.eval()(made.store.batch(split["val"])) - known).abs().mean().item()
    assert row["val_mae_band_gap"] == pytest.approx(error, rel=1e-4)


def test_a_resumed_training_has_the_reference_of_its_state(trainer: Make, targets: Tensor) -> None:
    made = trainer(max_epochs=2, reference=CompositionReference(1))
    made.run_epoch(lambda: None)
    state = training_state(made)
    whole = trained(made)
    # as if the fit had differed by rounding
    other = trainer(max_epochs=2, reference=CompositionReference(1), values=targets * 1.01)
    other.labels.values = made.labels.values
    load_training_state(other, state)
    assert timeless(trained(other)) == timeless(whole)
