"""Noise on the crystals of a training batch, on its device.

Random rotations and translations are not among them: graphs of distances are the same for every orientation and
origin, so those would change nothing; `csgcnn evaluate check_invariance=true` shows it. What matters moves atoms
relative to each other. All act in training only.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch

SHORTEST = 0.1  # Å: noise never brings two atoms closer than this


class DistanceNoise:
    """Gaussian noise of `sigma` Å on every distance, as from coordinates that are not quite relaxed.

    An edge that stands for n neighbors gets the mean of n draws, sigma / sqrt(n): to first order, compressed and full
    graphs are disturbed alike.

    `decay` is the share of the training over which it fades to nothing, linearly; 0 keeps it constant.
    """

    def __init__(
        self,
        sigma: Annotated[
            float, Setting("Standard deviation of the noise.", unit="Å", at_least=0)
        ] = 0.02,
        decay: Annotated[
            float,
            Setting(
                "Fraction of the training over which the noise fades to zero; 0 keeps it constant.",
                at_least=0,
                at_most=1,
            ),
        ] = 0.0,
    ) -> None:
        self.sigma = sigma
        self.decay = decay

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        # edges that fill up a batch count 0 times
        deviation = (
            self.sigma * fading(progress, self.decay) * batch.edge_count.clamp(min=1).rsqrt()
        )
        noise = torch.randn_like(batch.distance) * deviation
        return replace(batch, distance=(batch.distance + noise).clamp(min=SHORTEST))


class Strain:
    """A random isotropic strain of deviation `sigma` for each crystal: all its distances grow or shrink together.

    `decay` is the share of the training over which it fades to nothing, linearly; 0 keeps it constant.
    """

    def __init__(
        self,
        sigma: Annotated[float, Setting("Standard deviation of the strain.", at_least=0)] = 0.01,
        decay: Annotated[
            float,
            Setting(
                "Fraction of the training over which the noise fades to zero; 0 keeps it constant.",
                at_least=0,
                at_most=1,
            ),
        ] = 0.0,
    ) -> None:
        self.sigma = sigma
        self.decay = decay

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        strain = torch.randn(batch.n_graphs, device=batch.distance.device) * (
            self.sigma * fading(progress, self.decay)
        )
        graph_of_edge = batch.graph_index.index_select(0, batch.edge_index[1])
        stretched = batch.distance * (1 + strain.index_select(0, graph_of_edge))
        return replace(batch, distance=stretched.clamp(min=SHORTEST))


def fading(progress: Tensor, decay: float) -> Tensor:
    """1 at the start of the training, falling linearly to 0 at the share `decay` of it; constant for decay 0."""
    return (1 - progress / decay).clamp(min=0) if decay else torch.ones_like(progress)


Augmentation = DistanceNoise | Strain


class Augmentations:
    """Several augmentations, one after the other."""

    def __init__(self, parts: Mapping[str, Augmentation]) -> None:
        self.parts = parts

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        """Change a batch; `progress` is the share of the training that is over, a number from 0 to 1 on its device."""
        for part in self.parts.values():
            batch = part(batch, progress)
        return batch
