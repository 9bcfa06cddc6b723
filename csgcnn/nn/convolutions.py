"""Graph convolutions, which implement `csgcnn.nn.interfaces.Convolution`."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.fused_attention import AttentionSumFunction
from csgcnn.nn.fused_messages import GatedSumFunction, fused
from csgcnn.nn.interfaces import LayerConfig
from csgcnn.nn.layers import (
    LinearBeforeNorm,
    PairLinear,
    activation_function,
    hidden_layers,
    weighted_softmax,
)
from csgcnn.nn.norms import WeightedBatchNorm, make_norm


class GatedConvolution(nn.Module):
    r"""CSGCNN: the convolution of CGCNN (Xie & Grossman, PRL 120, 145301, 2018, eq. 5).

    .. math:: \sum_j w_{ij} \, \sigma(z_{ij}^f) \odot g(z_{ij}^s), \quad
              [z^f_{ij}, z^s_{ij}] = N(W [x_i, x_j, e_{ij}] + b)

    with g the softplus and w the multiplicity of the edge. In a block with batch norm, softplus
    and `residual=post` it is the published layer. PyG's `CGConv` has neither the norm of the
    message nor the softplus after the skip connection.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_atoms, hidden].
    """

    ignores_shifts = True

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        size = 2 * config.hidden
        self.linear = PairLinear(config.hidden, config.edge_dim, size, config.norm_of_first)
        self.deeper = hidden_layers(size, config.activation, config.message_layers - 1, config.norm)
        self.message_norm = make_norm(config.norm, size)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        norm = self.message_norm
        if isinstance(norm, WeightedBatchNorm) and norm.training and not self.deeper:
            return fused(GatedSumFunction, self.linear, norm, x, edge_attr, graph)
        z = self.deeper(self.linear(x, edge_attr, graph))
        gate, core = norm(z, graph.edge_count).chunk(2, dim=1)
        return graph.sum_neighbors(torch.sigmoid(gate) * F.softplus(core))


class AttentionConvolution(nn.Module):
    r"""CSGANN: multi-head attention over the neighbors.

    .. math:: W_o \Big[ \sum_j \alpha_{ij}^h \, g(v_{ij}^h) \Big]_h, \quad
              \alpha_{ij}^h = \frac{w_{ij} \exp(a_h \cdot g(q_{ij}^h))}
                                   {\sum_k w_{ik} \exp(a_h \cdot g(q_{ik}^h))}, \quad
              [q_{ij}, v_{ij}] = N(W [x_i, x_j, e_{ij}] + b)

    with g the activation and w the multiplicity of the edge: the dynamic attention of GATv2
    (Brody, Alon & Yahav, ICLR 2022) on the messages of CGCNN. PyG's `GATv2Conv` uses the edge in
    the logits only, not in the values, and its default self-loops delete the edges of an atom to
    its own periodic images.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_atoms, hidden].
    """

    ignores_shifts = True

    def __init__(
        self,
        config: LayerConfig,
        heads: Annotated[
            int,
            Setting(
                "Attention heads; hidden must be a multiple.",
                at_least=1,
                at_most=10_000,
                divides="model.hidden",
            ),
        ] = 4,
    ) -> None:
        super().__init__()
        hidden = config.hidden
        if hidden % heads:
            raise ValueError(f"hidden={hidden} cannot be divided among heads={heads}")
        self.heads = heads
        size = 2 * hidden
        self.linear = PairLinear(hidden, config.edge_dim, size, config.norm_of_first)
        self.deeper = hidden_layers(size, config.activation, config.message_layers - 1, config.norm)
        self.message_norm = make_norm(config.norm, 2 * hidden)
        self.activation = activation_function(config.activation)
        size = hidden // heads
        self.attention = nn.Parameter(torch.randn(heads, size) / size**0.5)
        self.out = LinearBeforeNorm(hidden, hidden, config.norm_of_update)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        norm, is_silu = self.message_norm, isinstance(self.activation, nn.SiLU)
        if isinstance(norm, WeightedBatchNorm) and norm.training and is_silu and not self.deeper:
            function, linear = AttentionSumFunction, self.linear
            return self.out(fused(function, linear, norm, x, edge_attr, graph, self.attention))
        query, value = self._messages(x, edge_attr, graph)
        alpha = self._alpha(query, graph)
        weighted = self.activation(value).unflatten(1, (self.heads, -1)) * alpha.unsqueeze(2)
        total = weighted.new_zeros(len(graph.atomic_number), value.shape[1])
        return self.out(total.index_add(0, graph.edge_index[1], weighted.flatten(1)))

    def attention_weights(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        """Return the weights alpha of the edges [n_edges, heads]; those of each atom sum to 1.

        Args:
            x: Features of the atoms [n_atoms, hidden].
            edge_attr: Features of the edges [n_edges, edge_dim].
            graph: The crystals.
        """
        query, _ = self._messages(x, edge_attr, graph)
        return self._alpha(query, graph)

    def _messages(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> tuple[Tensor, ...]:
        z = self.deeper(self.linear(x, edge_attr, graph))
        return self.message_norm(z, graph.edge_count).chunk(2, dim=1)

    def _alpha(self, query: Tensor, graph: GraphBatch) -> Tensor:
        logits = (self.activation(query).unflatten(1, (self.heads, -1)) * self.attention).sum(2)
        center, n_atoms = graph.edge_index[1], len(graph.atomic_number)
        return weighted_softmax(logits, graph.edge_multiplicity, center, n_atoms)


class IsomorphismConvolution(nn.Module):
    r"""CSGINN: a graph isomorphism layer with edge features.

    .. math:: \mathrm{MLP}\Big((1 + \epsilon) x_i
                + n_i^{-1/2} \sum_j w_{ij} \, g(N(W [x_j, e_{ij}] + b))\Big), \quad
              n_i = \sum_j w_{ij}

    with g the activation and w the multiplicity of the edge: GIN (Xu et al., ICLR 2019) with the
    edge features of GINE (Hu et al., ICLR 2020) and a learnable epsilon. PyG's `GINEConv` adds x_j
    and e_ij before a ReLU, without a norm, and its sum grows with the degree. The square root keeps
    the scale of the sum while the sum still depends on the number of neighbors.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_atoms, hidden].
    """

    ignores_shifts = True

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.of_neighbor = LinearBeforeNorm(hidden, hidden, config.norm_of_first)
        self.of_edge = nn.Linear(config.edge_dim, hidden, bias=False)
        self.deeper = hidden_layers(
            hidden, config.activation, config.message_layers - 1, config.norm
        )
        self.message_norm = make_norm(config.norm, hidden)
        self.activation = activation_function(config.activation)
        self.epsilon = nn.Parameter(torch.zeros(()))
        up = LinearBeforeNorm(hidden, 2 * hidden, config.norm)
        down = LinearBeforeNorm(2 * hidden, hidden, config.norm_of_update)
        self.update = nn.ModuleList([up, down])
        self.update_norm = make_norm(config.norm, 2 * hidden)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        z = self.of_neighbor(x).index_select(0, graph.edge_index[0]) + self.of_edge(edge_attr)
        message = self.activation(self.message_norm(self.deeper(z), graph.edge_count))
        aggregate = graph.sum_neighbors(message) * graph.degree.clamp(min=1).rsqrt().unsqueeze(1)
        up, down = self.update
        inner = self.update_norm(up((1 + self.epsilon) * x + aggregate), graph.atom_multiplicity)
        return down(self.activation(inner))


class SumConvolution(nn.Module):
    r"""coGN: the sum of deep messages (Ruff et al., Digital Discovery 3, 594, 2024).

    .. math:: W_o \sum_j w_{ij} \, g(\mathrm{MLP}([x_i, x_j, e_{ij}])) + b

    with g the activation and w the multiplicity of the edge. The MLP has `message_layers` linear
    layers. In a block with `residual=pre` and `norm=none` it is the published layer.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_atoms, hidden].
    """

    ignores_shifts = True

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.linear = PairLinear(hidden, config.edge_dim, hidden, config.norm_of_first)
        self.deeper = hidden_layers(
            hidden, config.activation, config.message_layers - 1, config.norm
        )
        self.message_norm = make_norm(config.norm, hidden)
        self.activation = activation_function(config.activation)
        self.out = LinearBeforeNorm(hidden, hidden, config.norm_of_update)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        z = self.deeper(self.linear(x, edge_attr, graph))
        message = self.activation(self.message_norm(z, graph.edge_count))
        return self.out(graph.sum_neighbors(message))
