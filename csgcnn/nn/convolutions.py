"""Graph convolutions on multiplicity graphs: node features in, node features out."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.norms import WeightedBatchNorm, norm_backward, standardize


class PairLinear(nn.Linear):
    """One linear map of [x_i, x_j, e_ij] for every edge i <- j, computed as W_i x_i + W_j x_j + W_e e_ij.

    The first two products are taken once per atom instead of once per edge: the same function and the same parameters
    as `Linear(2 * hidden + edge_dim, out)` on the concatenation, for a third of the multiplications.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_edges, out].
    """

    def __init__(self, hidden: int, edge_dim: int, out: int) -> None:
        super().__init__(2 * hidden + edge_dim, out)
        self.hidden = hidden

    def forward(self, x: Tensor, edge_attr: Tensor, edge_index: Tensor) -> Tensor:  # type: ignore[override]
        w_centre, w_neighbor = self.weight[:, : self.hidden], self.weight[:, self.hidden : 2 * self.hidden]
        of_neighbor, of_centre = edge_index
        z = F.linear(x, w_centre, self.bias).index_select(0, of_centre)
        z = torch.addmm(z, edge_attr, self.weight[:, 2 * self.hidden :].t())
        return z + F.linear(x, w_neighbor).index_select(0, of_neighbor)


class GatedConvolution(nn.Module):
    r"""CGCNN's convolution (Xie & Grossman, PRL 120, 145301, 2018, eq. 5).

    .. math:: x_i' = g\big(x_i + BN\big(\sum_j w_{ij} \, \sigma(z_{ij}^f) \odot g(z_{ij}^s)\big)\big), \quad
              [z^f_{ij}, z^s_{ij}] = BN(W [x_i, x_j, e_ij] + b)

    with g the softplus and w the multiplicity of the edge. It is the original's operator with both batch norms and
    the softplus after the residual; PyG's `CGConv` has neither the norm on the message nor that softplus.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_atoms, hidden].
    """

    def __init__(self, hidden: int, edge_dim: int) -> None:
        super().__init__()
        self.linear = PairLinear(hidden, edge_dim, 2 * hidden)
        self.message_norm = WeightedBatchNorm(2 * hidden)
        self.update_norm = WeightedBatchNorm(hidden)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        z = self.linear(x, edge_attr, graph.edge_index)
        aggregate = self._train_sum(z, graph) if self.training else self._sum(z, graph)
        return F.softplus(x + self.update_norm(aggregate, graph.atom_multiplicity))

    def _sum(self, z: Tensor, graph: GraphBatch) -> Tensor:
        gate, core = self.message_norm(z, graph.edge_count).chunk(2, dim=1)
        message = torch.sigmoid(gate) * F.softplus(core) * graph.edge_multiplicity.unsqueeze(1)
        return message.new_zeros(len(graph.atomic_number), message.shape[1]).index_add(0, graph.edge_index[1], message)

    def _train_sum(self, z: Tensor, graph: GraphBatch) -> Tensor:
        norm, total = self.message_norm, graph.edge_count.sum()
        aggregate, mean, var = _GatedSum.apply(
            *(z, norm.weight, norm.bias, norm.eps, graph.edge_count / total),
            *(graph.edge_multiplicity, graph.edge_index[1], len(graph.atomic_number)),
        )
        norm.track(mean, var, total)
        return aggregate


class _GatedSum(torch.autograd.Function):
    """Batch norm, gate and sum over neighbours in one, with a closed-form gradient: where training spends its time.

    The same numbers as `GatedConvolution._sum` in fewer passes over [n_edges, 2 hidden]. The core is taken with its sign
    turned, so that one sigmoid serves both halves: softplus(c) = -log(sigmoid(-c)), faster than `softplus` on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        p: Tensor,
        multiplicity: Tensor,
        centre: Tensor,
        n_atoms: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = z.shape[1] // 2
        sign = torch.ones_like(weight)
        sign[hidden:] = -1
        normed, mean, var, rstd = standardize(z, p, eps)
        squashed = torch.addcmul(bias * sign, normed, weight * sign).sigmoid_()
        gate, closed = squashed[:, :hidden], squashed[:, hidden:]
        core = closed.clamp(min=torch.finfo(closed.dtype).tiny).log_().neg_()
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
        torch.mul(of_gated, core, out=grad_y[:, :hidden]).mul_(1 - gate)  # the gate's sigmoid' is gate (1 - gate)
        torch.mul(of_gated, 1 - closed, out=grad_y[:, hidden:])  # softplus' is the sigmoid
        grad_z, grad_weight, grad_bias = norm_backward(grad_y, normed.clone(), p, scale)
        return grad_z, grad_weight, grad_bias, None, None, None, None, None


class EdgeUpdate(nn.Module):
    r"""Learnable edge features, updated from their two atoms: e_ij' = e_ij + g(BN(W [x_i, x_j, e_ij] + b)).

    The residual form of the edge update in iCGCNN (Park & Wolverton, PRMaterials 4, 063801, 2020), without its gate.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_edges, edge_dim].
    """

    def __init__(self, hidden: int, edge_dim: int) -> None:
        super().__init__()
        self.linear = PairLinear(hidden, edge_dim, edge_dim)
        self.norm = WeightedBatchNorm(edge_dim)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        return edge_attr + F.softplus(self.norm(self.linear(x, edge_attr, graph.edge_index), graph.edge_count))
