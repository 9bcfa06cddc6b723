"""Distance in, edge features out."""

import math
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch

UNDERFLOW = 60.0  # exp(-60) is as good as 0, and not a denormal number, which CPUs handle a hundred times slower


class EdgeCalculator(nn.Module):
    """A radial basis, and optionally a learnable embedding of it that the model updates layer by layer.

    Children give `basis`, or `expand` where it takes more than the distance. With `learnable`, the basis is mapped to
    `embedding` features, which every convolution but the last passes on updated (`layers.EdgeUpdate`);
    `embedding` is the one hyperparameter this adds.

    Shapes: GraphBatch -> [n_edges, dim].
    """

    def __init__(self, n_basis: int, learnable: bool, embedding: int) -> None:
        super().__init__()
        self.learnable = learnable
        self.dim = embedding if learnable else n_basis
        self.embed = nn.Linear(n_basis, embedding) if learnable else nn.Identity()

    def basis(self, distance: Tensor) -> Tensor:
        """Expand distances [n_edges] -> [n_edges, n_basis]."""
        raise NotImplementedError

    def expand(self, graph: GraphBatch) -> Tensor:
        """Expand the edges of a graph: [n_edges, n_basis]."""
        return self.basis(graph.distance)

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.embed(self.expand(graph))


class GaussianDistance(EdgeCalculator):
    """CGCNN's Gaussian expansion (Xie & Grossman 2018): exp(-(d - mu_k)^2 / step^2), mu_k = 0, step, ..., cutoff.

    Shapes: distance [n_edges] Å -> [n_edges, cutoff / step + 1].
    """

    center: Tensor

    def __init__(
        self,
        cutoff: Annotated[
            float, Setting("Distance that the basis covers.", unit="Å", above=0, at_most=50)
        ],
        step: Annotated[
            float,
            Setting(
                "Distance between the centers, and their width.",
                unit="Å",
                at_least=0.001,
                at_most=100,
            ),
        ] = 0.2,
        learnable: Annotated[
            bool, Setting("Embed the basis; the network updates the embedding layer by layer.")
        ] = False,
        embedding: Annotated[
            int, Setting("Size of the embedding, with learnable.", at_least=1, at_most=10_000)
        ] = 64,
    ) -> None:
        center = torch.arange(round(cutoff / step) + 1, dtype=torch.float64) * step
        super().__init__(len(center), learnable, embedding)
        self.step = step
        self.register_buffer("center", center.float())

    def basis(self, distance: Tensor) -> Tensor:
        exponent = ((distance.unsqueeze(1) - self.center) / self.step).square()
        return torch.exp(-exponent.clamp(max=UNDERFLOW))


class RadialBasis(EdgeCalculator):
    r"""Exponential-normal radial basis with learnable centers and widths and a smooth envelope.

    .. math:: e_k(d) = f(d) \exp(-\beta_k (e^{-\alpha d} - \mu_k)^2), \quad \alpha = 5 / \mathrm{cutoff}

    with f(d) = (1 + cos(pi d / cutoff)) / 2 (PhysNet, Unke & Meuwly, JCTC 15, 3678, 2019). Evenly spaced in
    exp(-alpha d), its functions are narrow at bond lengths and wide far away, where less depends on the distance; the
    training moves them to where the data need resolution; and the envelope fades a neighbor out before it leaves the
    cutoff, so a prediction cannot jump when an atom crosses it.

    Shapes: distance [n_edges] Å -> [n_edges, n_basis].
    """

    def __init__(
        self,
        cutoff: Annotated[
            float, Setting("Distance that the basis covers.", unit="Å", above=0, at_most=50)
        ],
        n_basis: Annotated[int, Setting("Basis functions.", at_least=1, at_most=10_000)] = 32,
        learnable: Annotated[
            bool, Setting("Embed the basis; the network updates the embedding layer by layer.")
        ] = False,
        embedding: Annotated[
            int, Setting("Size of the embedding, with learnable.", at_least=1, at_most=10_000)
        ] = 64,
    ) -> None:
        super().__init__(n_basis, learnable, embedding)
        self.cutoff = cutoff
        self.alpha = 5 / cutoff
        lowest = math.exp(-self.alpha * cutoff)
        self.center = nn.Parameter(torch.linspace(lowest, 1, n_basis))
        self.log_width = nn.Parameter(
            torch.full((n_basis,), math.log((2 / n_basis * (1 - lowest)) ** -2))
        )

    def basis(self, distance: Tensor) -> Tensor:
        offset = torch.exp(-self.alpha * distance).unsqueeze(1) - self.center
        return cosine_envelope(distance, self.cutoff).unsqueeze(1) * torch.exp(
            -(self.log_width.exp() * offset.square()).clamp(max=UNDERFLOW)
        )


class PairGaussian(EdgeCalculator):
    r"""Gaussians as wide as the two elements are large.

    .. math:: e_k(d) = \exp\big(-(d - \mu_k)^2 / \sigma_{ij}^2\big), \quad \sigma_{ij} = s \, (r_i + r_j)

    with CGCNN's centers mu_k = 0, step, ..., cutoff and the atomic radii r: the distance is resolved finely between
    small atoms, whose bonds are short and stiff, and coarsely between large ones. `scale` s is learnable, from its
    given value.

    Shapes: radius [n_elements] Å, by atomic number; GraphBatch -> [n_edges, cutoff / step + 1].
    """

    center: Tensor
    radius: Tensor

    def __init__(
        self,
        cutoff: Annotated[
            float, Setting("Distance that the basis covers.", unit="Å", above=0, at_most=50)
        ],
        radius: NDArray[np.float32],
        step: Annotated[
            float,
            Setting(
                "Distance between the centers, and their width.",
                unit="Å",
                at_least=0.001,
                at_most=100,
            ),
        ] = 0.2,
        scale: Annotated[
            float,
            Setting(
                "Initial width, relative to the sum of the two atomic radii.",
                at_least=0.001,
                at_most=100,
            ),
        ] = 0.1,
        learnable: Annotated[
            bool, Setting("Embed the basis; the network updates the embedding layer by layer.")
        ] = False,
        embedding: Annotated[
            int, Setting("Size of the embedding, with learnable.", at_least=1, at_most=10_000)
        ] = 64,
    ) -> None:
        center = torch.arange(round(cutoff / step) + 1, dtype=torch.float64) * step
        super().__init__(len(center), learnable, embedding)
        self.register_buffer("center", center.float())
        self.register_buffer("radius", torch.tensor(radius))
        self.scale = nn.Parameter(torch.tensor(scale))

    def expand(self, graph: GraphBatch) -> Tensor:
        radius = self.radius.index_select(0, graph.atomic_number)
        width = self.scale * (
            radius.index_select(0, graph.edge_index[0])
            + radius.index_select(0, graph.edge_index[1])
        )
        exponent = ((graph.distance.unsqueeze(1) - self.center) / width.unsqueeze(1)).square()
        return torch.exp(-exponent.clamp(max=UNDERFLOW))


class ScreenedCoulomb(EdgeCalculator):
    r"""Screened 1/r: Yukawa potentials (Yukawa 1935) of learnable screening lengths, with a smooth envelope.

    .. math:: e_k(d) = f(d) \, e^{-\kappa_k d} / d, \quad \kappa_k = 0.05 \ldots 2 \text{ Å}^{-1}

    with f the cosine envelope of `RadialBasis`. 1/r is what ions feel of each other; -c/r expansions serve PotNet and
    ComFormer (Lin et al., ICML 2023; Yan et al., ICLR 2024).

    Shapes: distance [n_edges] Å -> [n_edges, n_basis].
    """

    def __init__(
        self,
        cutoff: Annotated[
            float, Setting("Distance that the basis covers.", unit="Å", above=0, at_most=50)
        ],
        n_basis: Annotated[int, Setting("Basis functions.", at_least=1, at_most=10_000)] = 16,
        learnable: Annotated[
            bool, Setting("Embed the basis; the network updates the embedding layer by layer.")
        ] = False,
        embedding: Annotated[
            int, Setting("Size of the embedding, with learnable.", at_least=1, at_most=10_000)
        ] = 64,
    ) -> None:
        super().__init__(n_basis, learnable, embedding)
        self.cutoff = cutoff
        self.kappa = nn.Parameter(torch.linspace(0.05, 2, n_basis))

    def basis(self, distance: Tensor) -> Tensor:
        potential = torch.exp(
            -(distance.unsqueeze(1) * self.kappa.abs()).clamp(max=UNDERFLOW)
        ) / distance.unsqueeze(1)
        return cosine_envelope(distance, self.cutoff).unsqueeze(1) * potential


class BesselBasis(EdgeCalculator):
    r"""Radial Bessel functions with a polynomial envelope (DimeNet, Gasteiger, Groß & Günnemann, ICLR 2020, eq. 7-8).

    .. math:: e_n(d) = u(d / c) \sqrt{2 / c} \, \sin(n \pi d / c) / d, \quad
              u(x) = 1 - \tfrac{(p+1)(p+2)}{2} x^p + p(p+2) x^{p+1} - \tfrac{p(p+1)}{2} x^{p+2}, \; p = 6

    Orthogonal on (0, c), with learnable frequencies; value, slope and curvature vanish at the cutoff c.

    Shapes: distance [n_edges] Å -> [n_edges, n_basis].
    """

    def __init__(
        self,
        cutoff: Annotated[
            float, Setting("Distance that the basis covers.", unit="Å", above=0, at_most=50)
        ],
        n_basis: Annotated[int, Setting("Basis functions.", at_least=1, at_most=10_000)] = 16,
        learnable: Annotated[
            bool, Setting("Embed the basis; the network updates the embedding layer by layer.")
        ] = False,
        embedding: Annotated[
            int, Setting("Size of the embedding, with learnable.", at_least=1, at_most=10_000)
        ] = 64,
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
        return (
            envelope
            * math.sqrt(2 / self.cutoff)
            * torch.sin(self.frequency * x)
            / distance.unsqueeze(1)
        )


def cosine_envelope(
    distance: Tensor,
    cutoff: Annotated[
        float, Setting("Distance that the basis covers.", unit="Å", above=0, at_most=50)
    ],
) -> Tensor:
    """(1 + cos(pi d / cutoff)) / 2, and 0 beyond the cutoff: [n_edges]."""
    return torch.where(distance < cutoff, 0.5 * (1 + torch.cos(distance * (math.pi / cutoff))), 0.0)
