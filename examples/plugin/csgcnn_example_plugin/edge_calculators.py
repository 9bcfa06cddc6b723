"""An edge calculator, which implements `csgcnn.nn.interfaces.EdgeCalculator`."""

from typing import Annotated

import torch
from torch import Tensor

from csgcnn.config.settings import Setting
from csgcnn.nn.edge_calculators import (
    BasisExpansion,
    Cutoff,
    EmbeddingSize,
    Learnable,
    cosine_envelope,
)


class InversePowers(BasisExpansion):
    r"""Inverse powers of the distance.

    .. math:: e_k(d) = f(d) \, d^{-k}, \quad k = 1, \ldots, n

    with d in Å and the cosine envelope f, which is 0 at the cutoff.

    Shapes: distance [n_edges] Å -> [n_edges, n_powers].
    """

    power: Tensor

    def __init__(
        self,
        cutoff: Cutoff,
        n_powers: Annotated[int, Setting("Number of powers.", at_least=1, at_most=12)] = 6,
        learnable: Learnable = False,
        embedding: EmbeddingSize = 64,
    ) -> None:
        super().__init__(n_powers, learnable, embedding)
        self.cutoff = cutoff
        self.register_buffer("power", torch.arange(1.0, n_powers + 1))

    def basis(self, distance: Tensor) -> Tensor:
        """Return the basis functions [n_edges, n_powers] of distances [n_edges] in Å."""
        envelope = cosine_envelope(distance, self.cutoff).unsqueeze(1)
        return envelope * distance.unsqueeze(1) ** -self.power
