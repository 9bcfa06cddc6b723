"""Kernel heads: predict targets from the similarity of a crystal to the training crystals.

`csgcnn.training.kernel_fit` fits them; torch predicts from the arrays that it finds.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.errors import ConfigError
from csgcnn.nn.pooling import MaxPooling, MeanPooling

MAX_ROWS = 20_000  # training rows; memory grows with their square
BLOCK = 4096  # training rows whose kernel is in memory at once
NEGLIGIBLE_STD = 1e-5  # relative to 1 + |mean|

Inputs = Annotated[
    Any,
    Setting(
        "What the kernel compares, one or a list: the vector after the pooling, the pooled site "
        "features, the global features.",
        choices=("crystal", "sites", "global"),
    ),
]
NetworkWeight = Annotated[
    float | None,
    Setting(
        "Weight of the network's own head in the mean of both predictions; the kernel has the "
        "rest.",
        at_least=0,
        below=1,
        null="that with the lowest error on the validation rows, for each target",
    ),
]
NEEDED = {
    "sites": "graph.site_features, such as graph.site_features=[sevennet]",
    "global": "graph.global_features, such as graph.global_features=[density]",
}
# Statistics over the sites of `pooled_sites`: each layer of a potential is a block for each.
N_STATISTICS = 3


def pooled_sites(graph: GraphBatch) -> Tensor:
    """Return mean, standard deviation and maximum of the site features over each crystal's sites.

    Args:
        graph: The crystals.

    Returns:
        [n_graphs, 3 n_site_features], the same for every cell of a crystal.
    """
    features = graph.site_features.to(graph.atom_multiplicity.dtype)
    n_features = features.shape[1]
    mean_of, max_of = MeanPooling(n_features), MaxPooling(n_features)
    mean = mean_of(features, graph)
    squared = (features - mean.index_select(0, graph.graph_index)).square()
    return torch.cat([mean, mean_of(squared, graph).sqrt(), max_of(features, graph)], dim=1)


class KernelHead(nn.Module):
    r"""Predict standardized targets by a kernel between inputs x and training inputs x_i.

    .. math:: f(x) = b + \sum_i \alpha_i k(x, x_i), \quad
              k = a (1 + r + r^2 / 3) e^{-r}, \quad r^2 = 5 \sum_B w_B |x_B - x_{iB}|^2

    the Matérn kernel of order 5/2 (Rasmussen & Williams, 2006, section 4.2). The inputs are
    standardized on the training rows, and those of each block B are divided by the square root of
    its width: the mean squared distance of two rows is 2 in each block. Weights w of the blocks
    say which layer of a potential, and which statistic over the sites, matters for a target. a, b,
    α and w differ by target. A state has any number of rows.

    Shapes: [n_graphs, n_inputs] -> [n_graphs, n_targets].

    Args:
        widths: Widths of the blocks of each input that the network has.
        n_targets: Number of targets.
        inputs: Names of the blocks to use.
        network_weight: Weight of the network's own head in the prediction; None: chosen by the fit.
    """

    option: ClassVar[str]  # of the group `head`
    has_std: ClassVar[bool] = False
    of_rows: ClassVar[Sequence[str]] = ("rows", "dual")  # buffers with an entry per training row

    mean: Tensor
    scale: Tensor
    rows: Tensor
    dual: Tensor
    amplitude: Tensor
    block_weight: Tensor
    offset: Tensor
    network_weight: Tensor

    def __init__(
        self,
        widths: Mapping[str, Sequence[int]],
        n_targets: int,
        inputs: Inputs,
        network_weight: NetworkWeight = 0.0,
    ) -> None:
        super().__init__()
        self.chooses_weight = network_weight is None
        self.uses_network = network_weight != 0
        weights = torch.full((n_targets,), network_weight or 0.0, dtype=torch.float64)
        self.register_buffer("network_weight", weights)
        self.inputs = list(dict.fromkeys([inputs] if isinstance(inputs, str) else inputs or ()))
        if not self.inputs:
            raise ConfigError(f"head.inputs=[]: expected one or several of {', '.join(widths)}")
        for name in self.inputs:
            if not sum(widths[name]):
                raise ConfigError(f"head.inputs={name} needs {NEEDED[name]}")
        self.widths = [width for name in self.inputs for width in widths[name]]
        n_inputs = sum(self.widths)
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("scale", torch.ones(n_inputs))
        self.register_buffer("rows", torch.empty(0, n_inputs))
        self.register_buffer("dual", torch.empty(0, n_targets, dtype=torch.float64))
        self.register_buffer("block_weight", torch.ones(len(self.widths), n_targets).double())
        for name in ("amplitude", "offset"):
            self.register_buffer(name, torch.ones(n_targets, dtype=torch.float64))
        self.add_buffers(n_targets)

    def add_buffers(self, n_targets: int) -> None:
        """Register further buffers of a kind of head."""

    @property
    def is_fitted(self) -> bool:
        """Whether there are training rows; before, the network predicts with its own head."""
        return len(self.rows) > 0

    def fit_inputs(self, inputs: Tensor) -> None:
        """Set mean and scale to those of training inputs [n_rows, n_inputs]."""
        std, mean = torch.std_mean(inputs.double(), dim=0, correction=0)
        std = torch.where(std > NEGLIGIBLE_STD * (1 + mean.abs()), std, 1.0)
        roots = [width**0.5 for width in self.widths for _ in range(width)]
        self.mean.copy_(mean)
        self.scale.copy_(std * std.new_tensor(roots))

    def standardize(self, inputs: Tensor) -> Tensor:
        """Return inputs as the kernel compares them."""
        return (inputs - self.mean) / self.scale

    def keep(self, **values: Tensor) -> None:
        """Set the buffers with an entry per training row, without rows that no target needs."""
        used = values["dual"].ne(0).any(1)
        used[0] |= not used.any()  # of constant targets only the offset is needed
        for name in self.of_rows:
            own = getattr(self, name)
            setattr(self, name, values[name][used].to(own.device, own.dtype))

    def kernel(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return the kernel between standardized inputs, in float64.

        Args:
            x: [n_graphs, n_inputs].
            rows: [n_rows, n_inputs].

        Returns:
            [n_targets, n_graphs, n_rows].
        """
        return torch.stack([self.kernel_of(i, x, rows) for i in range(len(self.amplitude))])

    def kernel_of(self, i: int, x: Tensor, rows: Tensor) -> Tensor:
        """Return the kernel of target i between standardized inputs, in float64.

        Args:
            i: The target.
            x: [n_graphs, n_inputs].
            rows: [n_rows, n_inputs].

        Returns:
            [n_graphs, n_rows].
        """
        widths = torch.tensor(self.widths, device=x.device)
        factor = self.block_weight[:, i].sqrt().repeat_interleave(widths)
        return self.amplitude[i] * matern(torch.cdist(x * factor, rows * factor).square())

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.standardize(inputs)
        blocks = zip(self.rows.split(BLOCK), self.dual.split(BLOCK), strict=True)
        sums = (torch.einsum("tgr,rt->gt", self.kernel(x, rows), dual) for rows, dual in blocks)
        return sum(sums, self.offset)

    def std(self, inputs: Tensor) -> Tensor:
        """Return the standard deviations of standardized targets [n_graphs, n_targets]."""
        raise NotImplementedError

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for as many training rows as the state has."""
        for name in self.of_rows:
            if (saved := state.get(prefix + name)) is not None:
                own = getattr(self, name)
                if len(saved) > MAX_ROWS:
                    raise ValueError(f"{prefix}{name} has {len(saved):,} rows")
                setattr(self, name, own.new_empty(len(saved), *own.shape[1:]))
        super()._load_from_state_dict(state, prefix, *rest)


def matern(squared: Tensor) -> Tensor:
    """Return the Matérn kernel of order 5/2 of squared distances, of amplitude 1."""
    # The gradient of a square root at 0 is infinite.
    r = (5 * squared + 1e-12).sqrt()
    return (1 + r + r.square() / 3) * (-r).exp()


class SupportVectorHead(KernelHead):
    """Support vector regression (Drucker et al., NeurIPS 1996); `rows` are the support vectors."""

    option = "svr"


class GaussianProcessHead(KernelHead):
    r"""Exact Gaussian process regression (Rasmussen & Williams, 2006), with standard deviations.

    .. math:: \sigma^2(x) = a + s - k(x)^T (K + s)^{-1} k(x)

    with the noise s of a target, which is part of the standard deviation. They are multiplied by
    `std_scale`, which `csgcnn.evaluation.calibration` determines on validation rows.
    """

    option = "gp"
    has_std = True
    of_rows = ("rows", "dual", "known")

    noise: Tensor
    known: Tensor  # 1 where a training row has a value of a target, else 0
    std_scale: Tensor
    factor: Tensor | None

    def add_buffers(self, n_targets: int) -> None:
        """Register what the standard deviations need."""
        self.register_buffer("noise", torch.ones(n_targets, dtype=torch.float64))
        self.register_buffer("known", torch.empty(0, n_targets, dtype=torch.float64))
        self.register_buffer("std_scale", torch.ones(n_targets))
        self.register_buffer("factor", None, persistent=False)

    def cholesky(self) -> Tensor:
        """Return the Cholesky factor of K + s of each target [n_targets, n_rows, n_rows]."""
        if self.factor is None:
            # rows without a value become rows of a unit matrix
            known, matrix = self.known.T, self.kernel(self.rows, self.rows)
            matrix.mul_(known.unsqueeze(1)).mul_(known.unsqueeze(2))
            noise = torch.where(known > 0, self.noise.unsqueeze(1), 1.0)
            matrix.diagonal(dim1=1, dim2=2).add_(noise)
            self.factor = torch.linalg.cholesky(matrix)
        return self.factor

    def _load_from_state_dict(self, *of_state: Any) -> None:
        self.factor = None
        super()._load_from_state_dict(*of_state)

    def std(self, inputs: Tensor) -> Tensor:
        kernel = self.kernel(self.standardize(inputs), self.rows) * self.known.T.unsqueeze(1)
        solved = torch.linalg.solve_triangular(self.cholesky(), kernel.mT, upper=False)
        explained = solved.square().sum(1).T
        return ((self.amplitude - explained).clamp(min=0) + self.noise).sqrt() * self.std_scale
