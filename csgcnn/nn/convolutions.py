"""Graph convolutions on multiplicity graphs: node features in, their update out.

Each takes (hidden, edge_dim, norm, activation, message_layers) and maps x [n_atoms, hidden], edge_attr
[n_edges, edge_dim] and the graph to an update [n_atoms, hidden]; skip, norm and activation around it are the block's.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.layers import PairLinear, activation_function, hidden_layers, weighted_softmax
from csgcnn.nn.norms import WeightedBatchNorm, make_norm, norm_backward, standardize


class GatedConvolution(nn.Module):
    r"""CGCNN's convolution (Xie & Grossman, PRL 120, 145301, 2018, eq. 5), up to its sum over neighbours.

    .. math:: \sum_j w_{ij} \, \sigma(z_{ij}^f) \odot g(z_{ij}^s), \quad
              [z^f_{ij}, z^s_{ij}] = BN(W [x_i, x_j, e_{ij}] + b)

    with g the softplus and w the multiplicity of the edge. In a block with batch norm, softplus and `residual="post"`
    it is the original's layer; PyG's `CGConv` has neither the norm on the message nor the softplus after the skip.
    """

    def __init__(self, hidden: int, edge_dim: int, norm: str, activation: str, message_layers: int) -> None:
        super().__init__()
        self.linear = PairLinear(hidden, edge_dim, 2 * hidden)
        self.deeper = hidden_layers(2 * hidden, activation, message_layers - 1)
        self.message_norm = make_norm(norm, 2 * hidden)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        z = self.deeper(self.linear(x, edge_attr, graph.edge_index))
        if self.training and isinstance(self.message_norm, WeightedBatchNorm):
            return self._train_sum(z, self.message_norm, graph)
        gate, core = self.message_norm(z, graph.edge_count).chunk(2, dim=1)
        return graph.sum_neighbors(torch.sigmoid(gate) * F.softplus(core))

    def _train_sum(self, z: Tensor, norm: WeightedBatchNorm, graph: GraphBatch) -> Tensor:
        total = norm.total(graph.edge_count)
        aggregate, mean, var = _GatedSum.apply(
            *(z, norm.weight, norm.bias, norm.eps, norm.shared, graph.edge_count / total),
            *(graph.edge_multiplicity, graph.edge_index[1], len(graph.atomic_number)),
        )
        norm.track(mean, var, total)
        return aggregate


class _GatedSum(torch.autograd.Function):
    """Batch norm, gate and sum over neighbours in one, with a closed-form gradient: where training spends its time.

    The same numbers as `GatedConvolution.forward` in evaluation, in fewer passes over [n_edges, 2 hidden]. The core is
    taken with its sign turned, so that one sigmoid serves both halves: softplus(c) = -log(sigmoid(-c)), faster than
    `softplus` on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        shared: bool,
        p: Tensor,
        multiplicity: Tensor,
        centre: Tensor,
        n_atoms: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = z.shape[1] // 2
        ctx.shared = shared
        sign = torch.ones_like(weight)
        sign[hidden:] = -1
        normed, mean, var, rstd = standardize(z, p, eps, shared)
        turned = torch.addcmul(bias * sign, normed, weight * sign)
        squashed = turned.sigmoid()
        gate, closed = squashed[:, :hidden], squashed[:, hidden:]
        core = closed.clamp(min=torch.finfo(closed.dtype).tiny).log_().neg_()
        core = torch.maximum(core, turned[:, hidden:].neg_(), out=core)  # exact where the sigmoid underflows, too
        message = (gate * core).mul_(multiplicity.unsqueeze(1))
        ctx.save_for_backward(normed, squashed, core, p, weight * rstd, multiplicity, centre)
        ctx.mark_non_differentiable(mean, var)
        return message.new_zeros(n_atoms, hidden).index_add_(0, centre, message), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        normed, squashed, core, p, scale, multiplicity, centre = ctx.saved_tensors
        hidden = core.shape[1]
        gate, closed = squashed[:, :hidden], squashed[:, hidden:]
        of_gated = grad.index_select(0, centre).mul_(multiplicity.unsqueeze(1)).mul_(gate)
        grad_y = torch.empty_like(squashed)
        by_gate = torch.mul(of_gated, core, out=grad_y[:, :hidden])
        by_gate.addcmul_(by_gate, gate, value=-1)  # the gate's sigmoid' is gate (1 - gate)
        torch.addcmul(of_gated, of_gated, closed, value=-1, out=grad_y[:, hidden:])  # softplus' is the sigmoid
        grad_z, grad_weight, grad_bias = norm_backward(grad_y, normed, p, scale, ctx.shared)
        return grad_z, grad_weight, grad_bias, *[None] * 6


class AttentionConvolution(nn.Module):
    r"""Multi-head attention over neighbours with the edge in the logits *and* in the values: CSGANN's layer.

    .. math:: W_o \Big[ \sum_j \alpha_{ij}^h \, g(v_{ij}^h) \Big]_h, \quad
              \alpha_{ij}^h = \frac{w_{ij} \exp(a_h \cdot g(q_{ij}^h))}{\sum_k w_{ik} \exp(a_h \cdot g(q_{ik}^h))}
              \quad [q_{ij}, v_{ij}] = N(W [x_i, x_j, e_{ij}] + b)

    The dynamic attention of GATv2 (Brody, Alon & Yahav, ICLR 2022) on CGCNN's messages. PyG's `GATv2Conv` has the edge
    in the logits alone, so the distance is missing from what is passed on, and its default self-loops delete the edges
    of an atom to its own periodic images; here they stay. w is the multiplicity, so compressed and full graphs agree.
    """

    def __init__(
        self, hidden: int, edge_dim: int, norm: str, activation: str, message_layers: int, heads: int = 4
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden={hidden} cannot be divided among heads={heads}")
        self.heads = heads
        self.linear = PairLinear(hidden, edge_dim, 2 * hidden)
        self.deeper = hidden_layers(2 * hidden, activation, message_layers - 1)
        self.message_norm = make_norm(norm, 2 * hidden)
        self.activation = activation_function(activation)
        self.attention = nn.Parameter(torch.randn(heads, hidden // heads) / (hidden // heads) ** 0.5)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        z = self.deeper(self.linear(x, edge_attr, graph.edge_index))
        query, value = self.message_norm(z, graph.edge_count).chunk(2, dim=1)
        logits = (self.activation(query).unflatten(1, (self.heads, -1)) * self.attention).sum(2)
        alpha = weighted_softmax(logits, graph.edge_multiplicity, graph.edge_index[1], len(graph.atomic_number))
        weighted = self.activation(value).unflatten(1, (self.heads, -1)) * alpha.unsqueeze(2)
        total = weighted.new_zeros(len(graph.atomic_number), value.shape[1])
        return self.out(total.index_add(0, graph.edge_index[1], weighted.flatten(1)))


class IsomorphismConvolution(nn.Module):
    r"""Graph isomorphism layer with edge features: CSGINN's layer.

    .. math:: \mathrm{MLP}\Big((1 + \epsilon) x_i + n_i^{-1/2} \sum_j w_{ij} \, g(N(W [x_j, e_{ij}] + b))\Big), \quad
              n_i = \sum_j w_{ij}

    GIN (Xu et al., ICLR 2019) with the edge features of GINE (Hu et al., ICLR 2020) and a learnable epsilon. PyG's
    `GINEConv` adds x_j and e_ij before a ReLU without a norm, and its sum grows with the degree; the square root keeps
    the scale of the sum steady while it still counts neighbours, and the messages and the MLP are normalised.
    """

    def __init__(self, hidden: int, edge_dim: int, norm: str, activation: str, message_layers: int) -> None:
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
