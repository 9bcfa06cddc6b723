"""The small parts that convolutions are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch, sum_rows
from csgcnn.nn.norms import make_norm

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def activation_function(name: str) -> nn.Module:
    """One of softplus, silu, relu, gelu, tanh.

    Raises:
        ValueError: there is no such activation.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def hidden_layers(size: int, activation: str, n: int) -> nn.Sequential:
    """Make `n` times an activation and a linear layer of `size`; nothing at all for n = 0."""
    return nn.Sequential(
        *(
            layer
            for _ in range(n)
            for layer in (activation_function(activation), nn.Linear(size, size))
        )
    )


class PairLinear(nn.Linear):
    """One linear map of [x_i, x_j, e_ij] for every edge i <- j, computed as W_i x_i + W_j x_j + W_e e_ij.

    The first two products are taken once per atom instead of once per edge: the same function and the same parameters
    as `Linear(2 * hidden + edge_dim, out)` on the concatenation, for a third of the multiplications.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_edges, out].
    """

    def __init__(self, hidden: int, edge_dim: int, out: int) -> None:
        super().__init__(2 * hidden + edge_dim, out)
        self.hidden = hidden

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:  # type: ignore[override]
        of_ends, of_edge = split_pair(self.weight, self.hidden)
        ends = F.linear(
            x, of_ends, F.pad(self.bias, (0, len(self.bias)))
        )  # the bias once, with the center
        pairs = sum_rows(
            ends.view(2 * len(x), len(self.bias)), graph.ends_of_edge, graph.edges_of_end
        )
        return torch.addmm(pairs, edge_attr, of_edge.t())


def split_pair(weight: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """What acts on an atom, as a center and below as a neighbor, and on an edge: [2 out, hidden], [out, edge_dim]."""
    return weight[:, : 2 * hidden].unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 1), weight[
        :, 2 * hidden :
    ]


def join_pair(of_ends: Tensor, of_edge: Tensor) -> Tensor:
    """The weight that `split_pair` splits: [out, 2 hidden + edge_dim]."""
    return torch.cat([*of_ends.chunk(2), of_edge], dim=1)


class EdgeUpdate(nn.Module):
    r"""Learnable edge features, updated from their two atoms: e_ij' = e_ij + g(N(W [x_i, x_j, e_ij] + b)).

    The residual form of the edge update in iCGCNN (Park & Wolverton, PRMaterials 4, 063801, 2020), without its gate.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_edges, edge_dim].
    """

    def __init__(self, hidden: int, edge_dim: int, norm: str, activation: str) -> None:
        super().__init__()
        self.linear = PairLinear(hidden, edge_dim, edge_dim)
        self.norm = make_norm(norm, edge_dim)
        self.activation = activation_function(activation)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        return edge_attr + self.activation(
            self.norm(self.linear(x, edge_attr, graph), graph.edge_count)
        )


class Block(nn.Module):
    """A convolution with norm, activation, dropout and skip around it.

    - `residual="post"`: g(x + N(conv(x))), CGCNN's as published
    - `residual="pre"`: x + N(g(conv(x))), the plain residual block
    - `residual="none"`: g(N(conv(x)))

    Shapes: x [n_atoms, hidden] -> [n_atoms, hidden].
    """

    def __init__(
        self,
        convolution: nn.Module,
        hidden: int,
        norm: str,
        activation: str,
        dropout: float,
        residual: str,
    ) -> None:
        super().__init__()
        if residual not in ("post", "pre", "none"):
            raise ValueError(f"residual={residual}: expected post, pre or none")
        self.convolution = convolution
        self.norm = make_norm(norm, hidden)
        self.activation = activation_function(activation)
        self.dropout = nn.Dropout(dropout)
        self.residual = residual

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        update = self.convolution(x, edge_attr, graph)
        if self.residual == "pre":
            return x + self.dropout(self.norm(self.activation(update), graph.atom_multiplicity))
        update = self.dropout(self.norm(update, graph.atom_multiplicity))
        return self.activation(x + update if self.residual == "post" else update)


def weighted_softmax(logits: Tensor, weight: Tensor, index: Tensor, size: int) -> Tensor:
    """Softmax over the rows of each group, row k counted weight[k] times; the weights of a group sum to 1.

    Shapes: logits [n_rows, heads], weight, index [n_rows] -> [n_rows, heads], groups 0 .. size - 1.
    """
    highest = logits.new_full((size, logits.shape[1]), -torch.inf)
    highest = highest.scatter_reduce(
        0, index.unsqueeze(1).expand_as(logits), logits.detach(), "amax"
    )
    exp = torch.exp(logits - highest.index_select(0, index)) * weight.unsqueeze(1)
    total = exp.new_zeros(size, logits.shape[1]).index_add(0, index, exp)
    return exp / total.index_select(0, index)
