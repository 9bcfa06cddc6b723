"""Graph convolutions on multiplicity graphs: node features in, their update out.

Each takes (hidden, edge_dim, norm, activation, message_layers) and maps x [n_atoms, hidden], edge_attr
[n_edges, edge_dim] and the graph to an update [n_atoms, hidden]; skip, norm and activation around it are the block's.
"""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.layers import (
    PairLinear,
    activation_function,
    hidden_layers,
    join_pair,
    split_pair,
    weighted_softmax,
)
from csgcnn.nn.norms import WeightedBatchNorm, make_norm, norm_backward, weighted_mean


class GatedConvolution(nn.Module):
    r"""CGCNN's convolution (Xie & Grossman, PRL 120, 145301, 2018, eq. 5), up to its sum over neighbors.

    .. math:: \sum_j w_{ij} \, \sigma(z_{ij}^f) \odot g(z_{ij}^s), \quad
              [z^f_{ij}, z^s_{ij}] = BN(W [x_i, x_j, e_{ij}] + b)

    with g the softplus and w the multiplicity of the edge. In a block with batch norm, softplus and `residual="post"`
    it is the original's layer; PyG's `CGConv` has neither the norm on the message nor the softplus after the skip.
    """

    def __init__(
        self, hidden: int, edge_dim: int, norm: str, activation: str, message_layers: int
    ) -> None:
        super().__init__()
        self.linear = PairLinear(hidden, edge_dim, 2 * hidden)
        self.deeper = hidden_layers(2 * hidden, activation, message_layers - 1)
        self.message_norm = make_norm(norm, 2 * hidden)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        if self.training and isinstance(self.message_norm, WeightedBatchNorm) and not self.deeper:
            return self._train_sum(x, edge_attr, self.message_norm, graph)
        z = self.deeper(self.linear(x, edge_attr, graph))
        gate, core = self.message_norm(z, graph.edge_count).chunk(2, dim=1)
        return graph.sum_neighbors(torch.sigmoid(gate) * F.softplus(core))

    def _train_sum(
        self, x: Tensor, edge_attr: Tensor, norm: WeightedBatchNorm, graph: GraphBatch
    ) -> Tensor:
        kind, total = x.device.type, norm.total(graph.edge_count)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            aggregate, mean, var = _GatedConvolution.apply(
                *(x.to(dtype), edge_attr.to(dtype), self.linear.weight.to(dtype), self.linear.bias),
                *(norm.weight, norm.bias, norm.eps, graph.edge_count / total, graph),
            )
        norm.track(mean, var, total)
        return aggregate


class _GatedConvolution(torch.autograd.Function):
    """`GatedConvolution` in training with a closed-form gradient: where training spends its time.

    The same numbers in fewer passes over [n_edges, 2 hidden]. The bias of the linear map matters to the mean alone, as
    the norm takes it away again. The core is taken with its sign turned, so that one sigmoid serves both halves,
    softplus(c) = -log(sigmoid(-c)), faster than `softplus` on a CPU; its minus waits until the sum. What scales whole
    columns of the gradient is applied to the small products that come of it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        edge_attr: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        p: Tensor,
        graph: GraphBatch,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = x.shape[1]
        ctx.graph = graph
        of_ends, of_edge = split_pair(weight, hidden)
        z = graph.ends_of_edge.sum(F.linear(x, of_ends).view(2 * len(x), 2 * hidden)).addmm_(
            edge_attr, of_edge.t()
        )
        z = z.to(norm_weight.dtype)
        mean = weighted_mean(p, z)
        centered = z.sub_(mean)
        squared = centered.square()
        var = weighted_mean(p, squared)
        rstd = torch.rsqrt(var + eps)
        sign = torch.ones_like(norm_weight)
        sign[hidden:] = -1
        scale = norm_weight * rstd * sign
        turned = torch.addcmul(norm_bias * sign, centered, scale, out=squared)
        squashed = turned.sigmoid()
        gate, closed = squashed[:, :hidden], squashed[:, hidden:]
        core = closed.clamp(min=torch.finfo(closed.dtype).tiny).log_()
        core = torch.minimum(
            core, turned[:, hidden:], out=core
        )  # exact where the sigmoid underflows, too
        message = core.mul_(gate)
        mean = mean + bias
        ctx.save_for_backward(
            x, edge_attr, of_ends, of_edge, centered, squashed, message, p, rstd, sign, scale
        )
        ctx.mark_non_differentiable(mean, var)
        return graph.edges_of_center.sum(message).neg_(), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, edge_attr, of_ends, of_edge, centered, squashed, message, p, rstd, sign, scale = (
            ctx.saved_tensors
        )
        hidden = x.shape[1]
        gate, closed = squashed[:, :hidden], squashed[:, hidden:]
        by_message = ctx.graph.center_of_edge.sum(-grad)
        by_turned = torch.empty_like(squashed)
        by_gate = torch.mul(by_message, message, out=by_turned[:, :hidden])
        by_gate.addcmul_(by_gate, gate, value=-1)  # the gate's sigmoid' is gate (1 - gate)
        by_core = by_message.mul_(gate)
        torch.addcmul(
            by_core, by_core, closed, value=-1, out=by_turned[:, hidden:]
        )  # softplus' is the sigmoid
        unscaled, grad_weight, grad_bias = norm_backward(by_turned, centered, p, rstd)
        by_ends = (
            ctx.graph.edges_of_end.sum(unscaled).mul_(scale).view(len(x), 4 * hidden).to(x.dtype)
        )
        unscaled, scale = unscaled.to(x.dtype), scale.unsqueeze(1).to(x.dtype)
        of_weight = join_pair(by_ends.t() @ x, (edge_attr.t() @ unscaled).t() * scale)
        by_edge = unscaled @ (of_edge * scale) if ctx.needs_input_grad[1] else None
        by_norm = torch.zeros_like(grad_bias), grad_weight * sign, grad_bias * sign
        return by_ends @ of_ends, by_edge, of_weight, *by_norm, *[None] * 3


class AttentionConvolution(nn.Module):
    r"""Multi-head attention over neighbors with the edge in the logits *and* in the values: CSGANN's layer.

    .. math:: W_o \Big[ \sum_j \alpha_{ij}^h \, g(v_{ij}^h) \Big]_h, \quad
              \alpha_{ij}^h = \frac{w_{ij} \exp(a_h \cdot g(q_{ij}^h))}{\sum_k w_{ik} \exp(a_h \cdot g(q_{ik}^h))}
              \quad [q_{ij}, v_{ij}] = N(W [x_i, x_j, e_{ij}] + b)

    The dynamic attention of GATv2 (Brody, Alon & Yahav, ICLR 2022) on CGCNN's messages. PyG's `GATv2Conv` has the edge
    in the logits alone, so the distance is missing from what is passed on, and its default self-loops delete the edges
    of an atom to its own periodic images; here they stay. w is the multiplicity, so compressed and full graphs agree.
    """

    def __init__(
        self,
        hidden: int,
        edge_dim: int,
        norm: str,
        activation: str,
        message_layers: int,
        heads: Annotated[
            int, Setting("Attention heads; hidden must be a multiple.", at_least=1, at_most=10_000)
        ] = 4,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden={hidden} cannot be divided among heads={heads}")
        self.heads = heads
        self.linear = PairLinear(hidden, edge_dim, 2 * hidden)
        self.deeper = hidden_layers(2 * hidden, activation, message_layers - 1)
        self.message_norm = make_norm(norm, 2 * hidden)
        self.activation = activation_function(activation)
        self.attention = nn.Parameter(
            torch.randn(heads, hidden // heads) / (hidden // heads) ** 0.5
        )
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        z = self.deeper(self.linear(x, edge_attr, graph))
        query, value = self.message_norm(z, graph.edge_count).chunk(2, dim=1)
        logits = (self.activation(query).unflatten(1, (self.heads, -1)) * self.attention).sum(2)
        alpha = weighted_softmax(
            logits, graph.edge_multiplicity, graph.edge_index[1], len(graph.atomic_number)
        )
        weighted = self.activation(value).unflatten(1, (self.heads, -1)) * alpha.unsqueeze(2)
        total = weighted.new_zeros(len(graph.atomic_number), value.shape[1])
        return self.out(total.index_add(0, graph.edge_index[1], weighted.flatten(1)))


class IsomorphismConvolution(nn.Module):
    r"""Graph isomorphism layer with edge features: CSGINN's layer.

    .. math:: \mathrm{MLP}\Big((1 + \epsilon) x_i + n_i^{-1/2} \sum_j w_{ij} \, g(N(W [x_j, e_{ij}] + b))\Big), \quad
              n_i = \sum_j w_{ij}

    GIN (Xu et al., ICLR 2019) with the edge features of GINE (Hu et al., ICLR 2020) and a learnable epsilon. PyG's
    `GINEConv` adds x_j and e_ij before a ReLU without a norm, and its sum grows with the degree; the square root keeps
    the scale of the sum steady while it still counts neighbors, and the messages and the MLP are normalized.
    """

    def __init__(
        self, hidden: int, edge_dim: int, norm: str, activation: str, message_layers: int
    ) -> None:
        super().__init__()
        self.of_neighbor = nn.Linear(hidden, hidden)
        self.of_edge = nn.Linear(edge_dim, hidden, bias=False)
        self.deeper = hidden_layers(hidden, activation, message_layers - 1)
        self.message_norm = make_norm(norm, hidden)
        self.activation = activation_function(activation)
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.update = nn.ModuleList([nn.Linear(hidden, 2 * hidden), nn.Linear(2 * hidden, hidden)])
        self.update_norm = make_norm(norm, 2 * hidden)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        z = self.of_neighbor(x).index_select(0, graph.edge_index[0]) + self.of_edge(edge_attr)
        message = self.activation(self.message_norm(self.deeper(z), graph.edge_count))
        aggregate = graph.sum_neighbors(message) * graph.degree.clamp(min=1).rsqrt().unsqueeze(1)
        up, down = self.update
        inner = self.update_norm(up((1 + self.epsilon) * x + aggregate), graph.atom_multiplicity)
        return down(self.activation(inner))
