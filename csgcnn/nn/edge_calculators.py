"""Edge calculators, which implement `csgcnn.nn.interfaces.EdgeCalculator`."""

import math
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.layers import LinearBeforeNorm

# exp(-60) is negligible and not yet a denormal number, with which CPUs are a hundred times slower.
LARGEST_EXPONENT = 60.0

Cutoff = Annotated[float, Setting("Distance that the basis covers.", unit="Å", above=0, at_most=50)]
Step = Annotated[
    float,
    Setting(
        "Distance between the centers of the Gaussians.", unit="Å", at_least=0.001, at_most=100
    ),
]
BasisSize = Annotated[int, Setting("Number of basis functions.", at_least=1, at_most=10_000)]
Learnable = Annotated[
    bool, Setting("Embed the basis; the network updates the embedding layer by layer.")
]
EmbeddingSize = Annotated[
    int, Setting("Size of the embedding, with learnable.", at_least=1, at_most=10_000)
]


class BasisExpansion(nn.Module):
    """Base class: a basis expansion of the distance, optionally followed by a linear embedding.

    Subclasses implement `basis`, or `expand` if they need more than the distance. With
    `learnable`, the basis is embedded, and the network updates the embedding after each convolution
    but the last (`csgcnn.nn.layers.EdgeUpdate`).

    Shapes: GraphBatch -> [n_edges, dim].

    Args:
        n_basis: Number of basis functions.
        learnable: Whether to embed the basis.
        embedding: Size of the embedding.
    """

    def __init__(self, n_basis: int, learnable: bool = False, embedding: int = 64) -> None:
        super().__init__()
        self.learnable = learnable
        self.dim = embedding if learnable else n_basis
        self.embed = LinearBeforeNorm(n_basis, embedding, "none") if learnable else nn.Identity()

    def basis(self, distance: Tensor) -> Tensor:
        """Return the basis functions [n_edges, n_basis] of distances [n_edges] in Å."""
        raise NotImplementedError

    def expand(self, graph: GraphBatch) -> Tensor:
        """Return the basis functions [n_edges, n_basis] of the edges of a batch."""
        return self.basis(graph.distance)

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.embed(self.expand(graph))


class GaussianDistance(BasisExpansion):
    r"""The Gaussian expansion of CGCNN (Xie & Grossman, PRL 120, 145301, 2018).

    .. math:: e_k(d) = \exp\big(-(d - \mu_k)^2 / \mathrm{step}^2\big), \quad
              \mu_k = 0, \mathrm{step}, \ldots, \mathrm{cutoff}

    Shapes: distance [n_edges] Å -> [n_edges, cutoff / step + 1].
    """

    center: Tensor

    def __init__(
        self,
        cutoff: Cutoff,
        step: Step = 0.2,
        learnable: Learnable = False,
        embedding: EmbeddingSize = 64,
    ) -> None:
        center = even_centers(cutoff, step)
        super().__init__(len(center), learnable, embedding)
        self.step = step
        self.register_buffer("center", center)

    def basis(self, distance: Tensor) -> Tensor:
        exponent = ((distance.unsqueeze(1) - self.center) / self.step).square()
        return torch.exp(-exponent.clamp(max=LARGEST_EXPONENT))


class RadialBasis(BasisExpansion):
    r"""Exponential-normal radial basis of PhysNet (Unke & Meuwly, JCTC 15, 3678, 2019).

    .. math:: e_k(d) = f(d) \exp(-\beta_k (e^{-\alpha d} - \mu_k)^2), \quad
              f(d) = \tfrac{1}{2} (1 + \cos(\pi d / c)), \quad \alpha = 5 / c

    with the cutoff c and learnable centers and widths. The centers are evenly spaced in
    exp(-alpha d): the functions are narrow at bond lengths and wide at large distances. The
    envelope f makes the features of a neighbor vanish smoothly at the cutoff.

    Shapes: distance [n_edges] Å -> [n_edges, n_basis].
    """

    def __init__(
        self,
        cutoff: Cutoff,
        n_basis: BasisSize = 32,
        learnable: Learnable = False,
        embedding: EmbeddingSize = 64,
    ) -> None:
        super().__init__(n_basis, learnable, embedding)
        self.cutoff = cutoff
        self.alpha = 5 / cutoff
        lowest = math.exp(-self.alpha * cutoff)
        self.center = nn.Parameter(torch.linspace(lowest, 1, n_basis))
        width = math.log((2 / n_basis * (1 - lowest)) ** -2)
        self.log_width = nn.Parameter(torch.full((n_basis,), width))

    def basis(self, distance: Tensor) -> Tensor:
        offset = torch.exp(-self.alpha * distance).unsqueeze(1) - self.center
        exponent = self.log_width.exp() * offset.square()
        envelope = cosine_envelope(distance, self.cutoff).unsqueeze(1)
        return envelope * torch.exp(-exponent.clamp(max=LARGEST_EXPONENT))


class PairGaussian(BasisExpansion):
    r"""Gaussians whose width is proportional to the sizes of the two atoms.

    .. math:: e_k(d) = \exp\big(-(d - \mu_k)^2 / \sigma_{ij}^2\big), \quad
              \sigma_{ij} = s \, (r_i + r_j), \quad
              \mu_k = 0, \mathrm{step}, \ldots, \mathrm{cutoff}

    with the atomic radii r and a learnable scale s. Distances between small atoms, whose bonds are
    short and stiff, are resolved more finely.

    Shapes: radius [n_elements] Å, by atomic number; GraphBatch -> [n_edges, cutoff / step + 1].
    """

    center: Tensor
    radius: Tensor

    def __init__(
        self,
        cutoff: Cutoff,
        radius: NDArray[np.float32],
        step: Step = 0.2,
        scale: Annotated[
            float,
            Setting(
                "Initial width of the Gaussians, relative to the sum of the two atomic radii.",
                at_least=0.001,
                at_most=100,
            ),
        ] = 0.1,
        learnable: Learnable = False,
        embedding: EmbeddingSize = 64,
    ) -> None:
        center = even_centers(cutoff, step)
        super().__init__(len(center), learnable, embedding)
        self.register_buffer("center", center)
        self.register_buffer("radius", torch.tensor(radius))
        self.scale = nn.Parameter(torch.tensor(scale))

    def expand(self, graph: GraphBatch) -> Tensor:
        radius = self.radius.index_select(0, graph.atomic_number)
        neighbor, center = graph.edge_index
        width = self.scale * (radius.index_select(0, neighbor) + radius.index_select(0, center))
        exponent = ((graph.distance.unsqueeze(1) - self.center) / width.unsqueeze(1)).square()
        return torch.exp(-exponent.clamp(max=LARGEST_EXPONENT))


class ScreenedCoulomb(BasisExpansion):
    r"""Yukawa potentials (Proc. Phys.-Math. Soc. Jpn. 17, 48, 1935) with learnable screening.

    .. math:: e_k(d) = f(d) \, e^{-\kappa_k d} / d, \quad
              \kappa_k = 0.05 \ldots 2 \text{ Å}^{-1} \text{ initially}

    with the cosine envelope f of `RadialBasis`. PotNet and ComFormer use expansions of -c/r (Lin et
    al., ICML 2023; Yan et al., ICLR 2024).

    Shapes: distance [n_edges] Å -> [n_edges, n_basis].
    """

    def __init__(
        self,
        cutoff: Cutoff,
        n_basis: BasisSize = 16,
        learnable: Learnable = False,
        embedding: EmbeddingSize = 64,
    ) -> None:
        super().__init__(n_basis, learnable, embedding)
        self.cutoff = cutoff
        self.kappa = nn.Parameter(torch.linspace(0.05, 2, n_basis))

    def basis(self, distance: Tensor) -> Tensor:
        exponent = distance.unsqueeze(1) * self.kappa.abs()
        potential = torch.exp(-exponent.clamp(max=LARGEST_EXPONENT)) / distance.unsqueeze(1)
        return cosine_envelope(distance, self.cutoff).unsqueeze(1) * potential


class BesselBasis(BasisExpansion):
    r"""Radial Bessel functions of DimeNet (Gasteiger, Groß & Günnemann, ICLR 2020, eqs. 7 and 8).

    .. math:: e_n(d) = u(d / c) \sqrt{2 / c} \, \sin(n \pi d / c) / d, \quad
              u(x) = 1 - \tfrac{(p+1)(p+2)}{2} x^p + p(p+2) x^{p+1} - \tfrac{p(p+1)}{2} x^{p+2}

    with p = 6, the cutoff c and learnable frequencies. The functions are orthogonal on (0, c);
    value, slope and curvature vanish at the cutoff.

    Shapes: distance [n_edges] Å -> [n_edges, n_basis].
    """

    def __init__(
        self,
        cutoff: Cutoff,
        n_basis: BasisSize = 16,
        learnable: Learnable = False,
        embedding: EmbeddingSize = 64,
    ) -> None:
        super().__init__(n_basis, learnable, embedding)
        self.cutoff = cutoff
        self.frequency = nn.Parameter(torch.arange(1, n_basis + 1) * math.pi)

    def basis(self, distance: Tensor) -> Tensor:
        x, p = (distance / self.cutoff).clamp(max=1).unsqueeze(1), 6
        envelope = (
            1
            - (p + 1) * (p + 2) / 2 * x**p
            + p * (p + 2) * x ** (p + 1)
            - p * (p + 1) / 2 * x ** (p + 2)
        )
        scaled = envelope * math.sqrt(2 / self.cutoff)
        return scaled * torch.sin(self.frequency * x) / distance.unsqueeze(1)


def even_centers(cutoff: float, step: float) -> Tensor:
    """Return evenly spaced centers, rounded once from float64.

    Args:
        cutoff: Largest center, in Å.
        step: Distance between the centers, in Å.

    Returns:
        0, step, 2 step, ... [cutoff / step + 1].
    """
    return (torch.arange(round(cutoff / step) + 1, dtype=torch.float64) * step).float()


def cosine_envelope(distance: Tensor, cutoff: float) -> Tensor:
    """Return (1 + cos(pi d / cutoff)) / 2, and 0 beyond the cutoff.

    Args:
        distance: [n_edges] in Å.
        cutoff: Å.

    Returns:
        Values [n_edges].
    """
    return torch.where(distance < cutoff, 0.5 * (1 + torch.cos(distance * (math.pi / cutoff))), 0.0)
