"""Augmentation: random changes of a training batch, on its device.

Random rotations and translations are not among them, because a graph of distances does not depend
on orientation and origin (`csgcnn evaluate check_invariance=true` verifies this). Augmentations
change distances, and act during training only.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Protocol

import torch
from torch import Tensor

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch

# Å: smallest distance that noise may lead to.
SHORTEST = 0.1
Decay = Annotated[
    float,
    Setting(
        "Fraction of the training over which the noise fades to zero; 0 keeps it constant.",
        at_least=0,
        at_most=1,
    ),
]


class Augmentation(Protocol):
    """Change a training batch; a class of a plugin needs this method only."""

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        """Return a changed batch.

        Args:
            batch: The batch, which must not be changed in place. Padding nodes and edges must stay
                finite. Shapes must not change, and values must not be read on the host.
            progress: Completed fraction of the training, a scalar from 0 to 1 on the device of the
                batch.
        """


class DistanceNoise:
    """Add Gaussian noise to every distance, as from coordinates that are not quite relaxed.

    distance' = max(distance + sigma / sqrt(n) * N(0, 1), 0.1 Å) for an edge that stands for n equal
    edges. It gets the mean of n draws: to first order, the noise of compressed and full graphs
    has the same effect.
    """

    def __init__(
        self,
        sigma: Annotated[
            float, Setting("Standard deviation of the noise.", unit="Å", at_least=0)
        ] = 0.02,
        decay: Decay = 0.0,
    ) -> None:
        self.sigma = sigma
        self.decay = decay

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        sigma = self.sigma * fading(progress, self.decay)
        # Padding edges have count 0.
        deviation = sigma * batch.edge_count.clamp(min=1).rsqrt()
        noise = torch.randn_like(batch.distance) * deviation
        return replace(batch, distance=(batch.distance + noise).clamp(min=SHORTEST))


class Strain:
    """Scale all distances of a crystal by one random factor: an isotropic strain.

    distance' = max(distance * (1 + sigma * N(0, 1)), 0.1 Å), with one draw per crystal.
    """

    def __init__(
        self,
        sigma: Annotated[float, Setting("Standard deviation of the strain.", at_least=0)] = 0.01,
        decay: Decay = 0.0,
    ) -> None:
        self.sigma = sigma
        self.decay = decay

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        sigma = self.sigma * fading(progress, self.decay)
        strain = torch.randn(batch.n_graphs, device=batch.distance.device) * sigma
        graph_of_edge = batch.graph_index.index_select(0, batch.edge_index[1])
        stretched = batch.distance * (1 + strain.index_select(0, graph_of_edge))
        return replace(batch, distance=stretched.clamp(min=SHORTEST))


def fading(progress: Tensor, decay: float) -> Tensor:
    """Return a factor that falls linearly from 1 to 0, or a constant 1.

    Args:
        progress: Completed fraction of the training, a scalar.
        decay: Fraction of the training at which the factor reaches 0; 0 keeps it constant.
    """
    return (1 - progress / decay).clamp(min=0) if decay else torch.ones_like(progress)


class Augmentations:
    """Apply several augmentations, one after the other."""

    def __init__(self, parts: Mapping[str, Augmentation]) -> None:
        self.parts = parts

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        for part in self.parts.values():
            batch = part(batch, progress)
        return batch
