"""Layers that the network and its convolutions share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch, sum_rows
from csgcnn.nn.fused import split_pair
from csgcnn.nn.interfaces import Convolution, LayerConfig
from csgcnn.nn.norms import make_norm

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def activation_function(name: str) -> nn.Module:
    """Return the activation function softplus, silu, relu, gelu or tanh.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def initialize_glorot(module: nn.Module) -> None:
    """Draw the weights of a linear map as Glorot & Bengio (AISTATS 2010), with biases of zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class LinearBeforeNorm(nn.Linear):
    """Linear map whose result is normalized next.

    A batch norm in training removes the bias, so its gradient is 0. As a sum over rows it would be
    a rounding error, from which Adam makes steps of the size of the learning rate, other ones for
    another number of processes. It is therefore set to 0. The parameter stays, for checkpoints and
    because other norms do not remove it.

    Args:
        n_in: Input features.
        n_out: Output features.
        norm: Name of the norm, see `csgcnn.nn.norms.make_norm`.
    """

    def __init__(self, n_in: int, n_out: int, norm: str) -> None:
        super().__init__(n_in, n_out)
        self.next_norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.added_bias)

    @property
    def added_bias(self) -> Tensor:
        """The bias, with the gradient 0 where the norm removes it."""
        if self.training and self.next_norm == "batch":
            return self.bias.detach() + 0 * self.bias
        return self.bias


def hidden_layers(size: int, activation: str, n: int, norm: str = "none") -> nn.Sequential:
    """Build n pairs of an activation and a linear layer; without any, the identity.

    Args:
        size: Width of the linear layers.
        activation: Name of the activation function.
        n: Number of pairs.
        norm: Name of the norm behind the last layer.
    """
    norms = ["none"] * (n - 1) + [norm] * min(n, 1)
    pairs = ((activation_function(activation), LinearBeforeNorm(size, size, of)) for of in norms)
    return nn.Sequential(*(layer for pair in pairs for layer in pair))


class PairLinear(LinearBeforeNorm):
    """Linear map of [x_i, x_j, e_ij] for every edge i <- j.

    It is computed as W_i x_i + W_j x_j + W_e e_ij + b, the first two products once per atom instead
    of once per edge: the function and the parameters of `Linear(2 * hidden + edge_dim, out)` on the
    concatenation, for a third of the multiplications.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_edges, out].

    Args:
        hidden: Features per atom.
        edge_dim: Features per edge.
        out: Output features.
        norm: Name of the norm behind the map, see `LinearBeforeNorm`.
    """

    def __init__(self, hidden: int, edge_dim: int, out: int, norm: str = "none") -> None:
        super().__init__(2 * hidden + edge_dim, out, norm)
        self.hidden = hidden

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:  # type: ignore[override]
        of_ends, of_edge = split_pair(self.weight, self.hidden)
        # The bias is added once, with the center.
        ends = F.linear(x, of_ends, F.pad(self.added_bias, (0, len(self.bias))))
        ends = ends.view(2 * len(x), len(self.bias))
        pairs = sum_rows(ends, graph.ends_of_edge, graph.edges_of_end)
        return torch.addmm(pairs, edge_attr, of_edge.t())


class EdgeUpdate(nn.Module):
    r"""Update of learnable edge features from their two atoms.

    .. math:: e_{ij}' = e_{ij} + g(N(W [x_i, x_j, e_{ij}] + b))

    The residual form of the edge update of iCGCNN (Park & Wolverton, PRMaterials 4, 063801, 2020),
    without its gate.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_edges, edge_dim].
    """

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.linear = PairLinear(config.hidden, config.edge_dim, config.edge_dim, config.norm)
        self.norm = make_norm(config.norm, config.edge_dim)
        self.activation = activation_function(config.activation)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        z = self.linear(x, edge_attr, graph)
        return edge_attr + self.activation(self.norm(z, graph.edge_count))


class Block(nn.Module):
    """A convolution with norm N, activation g, dropout and skip connection.

    - `residual="post"`: g(x + N(conv(x))), as in CGCNN
    - `residual="pre"`: x + N(g(conv(x)))
    - `residual="none"`: g(N(conv(x)))

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_atoms, hidden].
    """

    def __init__(
        self, convolution: Convolution, config: LayerConfig, dropout: float, residual: str
    ) -> None:
        super().__init__()
        if residual not in ("post", "pre", "none"):
            raise ValueError(f"residual={residual}: expected post, pre or none")
        self.convolution = convolution
        self.norm = make_norm(config.norm, config.hidden)
        self.activation = activation_function(config.activation)
        self.dropout = nn.Dropout(dropout)
        self.residual = residual

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        update = self.convolution(x, edge_attr, graph)
        if self.residual == "pre":
            return x + self.dropout(self.norm(self.activation(update), graph.atom_multiplicity))
        update = self.dropout(self.norm(update, graph.atom_multiplicity))
        return self.activation(x + update if self.residual == "post" else update)


def weighted_softmax(logits: Tensor, weight: Tensor, index: Tensor, size: int) -> Tensor:
    """Return the softmax over the rows of each group, row k counted weight[k] times.

    A row of weight 0 has the result 0 and changes no other, whatever its logit.

    Args:
        logits: [n_rows, heads].
        weight: Multiplicity of each row [n_rows].
        index: Group of each row [n_rows], from 0 to size - 1.
        size: Number of groups.

    Returns:
        Weights [n_rows, heads], which sum to 1 in each group that has a row of positive weight.
    """
    logits = torch.where(weight.unsqueeze(1) > 0, logits, -torch.inf)
    highest = logits.new_full((size, logits.shape[1]), -torch.inf)
    rows = index.unsqueeze(1).expand_as(logits)
    highest = highest.scatter_reduce(0, rows, logits.detach(), "amax")
    # A group without a row of positive weight has the highest logit -inf and the total 0.
    highest = torch.where(highest == -torch.inf, 0.0, highest)
    exp = torch.exp(logits - highest.index_select(0, index)) * weight.unsqueeze(1)
    total = exp.new_zeros(size, logits.shape[1]).index_add(0, index, exp)
    total = torch.where(total == 0, 1.0, total)
    return exp / total.index_select(0, index)
