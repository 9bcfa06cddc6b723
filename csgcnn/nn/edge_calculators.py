"""Distance in, edge features out."""

import math

import torch
from torch import Tensor, nn

UNDERFLOW = 60.0  # exp(-60) is as good as 0, and not a denormal number, which CPUs handle a hundred times slower


class EdgeCalculator(nn.Module):
    """A radial basis, and optionally a learnable embedding of it that the model updates layer by layer.

    Children give `basis`. With `learnable`, the basis is mapped to `embedding` features, which every convolution but
    the last passes on updated (`convolutions.EdgeUpdate`); `embedding` is the one hyperparameter this adds.

    Shapes: distance [n_edges] Å -> [n_edges, dim].
    """

    def __init__(self, n_basis: int, learnable: bool, embedding: int) -> None:
        super().__init__()
        self.learnable = learnable
        self.dim = embedding if learnable else n_basis
        self.embed = nn.Linear(n_basis, embedding) if learnable else nn.Identity()

    def basis(self, distance: Tensor) -> Tensor:
        """Expand distances [n_edges] -> [n_edges, n_basis]."""
        raise NotImplementedError

    def forward(self, distance: Tensor) -> Tensor:
        return self.embed(self.basis(distance))


class GaussianDistance(EdgeCalculator):
    """CGCNN's Gaussian expansion (Xie & Grossman 2018): exp(-(d - mu_k)^2 / step^2), mu_k = 0, step, ..., cutoff.

    Shapes: distance [n_edges] Å -> [n_edges, cutoff / step + 1].
    """

    centre: Tensor

    def __init__(self, cutoff: float, step: float = 0.2, learnable: bool = False, embedding: int = 64) -> None:
        centre = torch.arange(round(cutoff / step) + 1, dtype=torch.float64) * step
        super().__init__(len(centre), learnable, embedding)
        self.step = step
        self.register_buffer("centre", centre.float())

    def basis(self, distance: Tensor) -> Tensor:
        exponent = ((distance.unsqueeze(1) - self.centre) / self.step).square()
        return torch.exp(-exponent.clamp(max=UNDERFLOW))


class RadialBasis(EdgeCalculator):
    r"""Exponential-normal radial basis with learnable centres and widths and a smooth envelope.

    .. math:: e_k(d) = f(d) \exp(-\beta_k (e^{-\alpha d} - \mu_k)^2), \quad \alpha = 5 / \mathrm{cutoff}

    with f(d) = (1 + cos(pi d / cutoff)) / 2 (PhysNet, Unke & Meuwly, JCTC 15, 3678, 2019). Evenly spaced in
    exp(-alpha d), its functions are narrow at bond lengths and wide far away, where less depends on the distance; the
    training moves them to where the data need resolution; and the envelope fades a neighbour out before it leaves the
    cutoff, so a prediction cannot jump when an atom crosses it.

    Shapes: distance [n_edges] Å -> [n_edges, n_basis].
    """

    def __init__(self, cutoff: float, n_basis: int = 32, learnable: bool = False, embedding: int = 64) -> None:
        super().__init__(n_basis, learnable, embedding)
        self.cutoff = cutoff
        self.alpha = 5 / cutoff
        lowest = math.exp(-self.alpha * cutoff)
        self.centre = nn.Parameter(torch.linspace(lowest, 1, n_basis))
        self.log_width = nn.Parameter(torch.full((n_basis,), math.log((2 / n_basis * (1 - lowest)) ** -2)))

    def basis(self, distance: Tensor) -> Tensor:
        envelope = torch.where(distance < self.cutoff, 0.5 * (1 + torch.cos(distance * (math.pi / self.cutoff))), 0.0)
        offset = torch.exp(-self.alpha * distance).unsqueeze(1) - self.centre
        return envelope.unsqueeze(1) * torch.exp(-(self.log_width.exp() * offset.square()).clamp(max=UNDERFLOW))
