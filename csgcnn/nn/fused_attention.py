"""The attention of CSGANN with its gradient in closed form, for training."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.fused_messages import Pairs, linear_pairs


class AttentionSumFunction(torch.autograd.Function):
    r"""Mean of messages over the neighbors of each atom, weighted by attention.

    .. math:: \Big[ \sum_j \alpha_{ij}^h \, g(v_{ij}^h) \Big]_h, \quad
              \alpha_{ij}^h = \frac{w_{ij} \exp(a_h \cdot g(q_{ij}^h))}
                                   {\sum_k w_{ik} \exp(a_h \cdot g(q_{ik}^h))}, \quad
              [q_{ij}, v_{ij}] = y_{ij}

    with g the SiLU and w the multiplicity of the edge. The last argument of `apply` is a.

    Shapes: as in `csgcnn.nn.fused_messages`, and a [heads, hidden / heads]; the result is
    [n_atoms, hidden], and size is 2 hidden.

    The messages are summed with the weights :math:`w \exp`, and each sum is divided by that of the
    weights. With G the gradient with respect to a sum s, and T the sum of its weights,

    .. math:: \partial v_{ij} = \frac{w_{ij} G_i}{T_i} \exp_{ij} g'(v_{ij}), \quad
              \partial (a \cdot g(q_{ij})) =
              \frac{w_{ij}}{T_i} \exp_{ij} \, G_i \cdot (g(v_{ij}) - s_i)
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
        attention: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden, columns = x.shape[1], columns_of_heads(attention)
        pairs, mean, var, buffer = linear_pairs(
            x, edge_attr, weight, p, graph, eps, norm_weight.dtype
        )
        scale = norm_weight * pairs.rstd
        active = F.silu(torch.addcmul(norm_bias, pairs.centered, scale, out=buffer))
        query, value = active[:, :hidden], active[:, hidden:]
        exp = shifted_exp(query @ (columns * attention.flatten()).t(), graph)
        total = graph.edges_of_center.sum(exp)
        total.masked_fill_(total == 0, 1)
        message = torch.mul(
            value, exp @ columns, out=buffer.view(-1)[: value.numel()].view_as(value)
        )
        out = graph.edges_of_center.sum(message).div_(total @ columns)
        mean = mean + bias
        ctx.graph = graph
        ctx.save_for_backward(active, exp, total, out, attention, norm_bias, scale, *pairs)
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to the arguments of `forward`.

        Args:
            ctx: Tensors that `forward` saved.
            grad: Gradient with respect to the first output.
            _: Gradients with respect to the other outputs, which have none.
        """
        active, exp, total, out, attention, norm_bias, scale, *saved = ctx.saved_tensors
        pairs, columns = Pairs(*saved), columns_of_heads(attention)
        hidden = grad.shape[1]
        query, value = active[:, :hidden], active[:, hidden:]
        by_sum = grad / (total @ columns)
        by_total = (by_sum * out) @ columns.t()
        of_center = ctx.graph.center_of_edge.sum(torch.cat([by_sum, by_total], dim=1))
        by_message, by_total = of_center[:, :hidden], of_center[:, hidden:]

        by_active = torch.empty_like(active)
        by_value = torch.mul(by_message, value, out=by_active[:, hidden:])
        by_logit = (by_value @ columns.t()).sub_(by_total).mul_(exp)
        by_attention = (columns * (by_logit.t() @ query)).sum(0).view_as(attention)
        torch.mm(by_logit, columns * attention.flatten(), out=by_active[:, :hidden])
        torch.mul(by_message, exp @ columns, out=by_value)

        normed = torch.addcmul(norm_bias, pairs.centered, scale)
        by_normed = torch.ops.aten.silu_backward.grad_input(by_active, normed, grad_input=by_active)
        gradients = pairs.backward(by_normed, scale, ctx.graph, ctx.needs_input_grad[1])
        return *gradients, None, None, None, by_attention


def shifted_exp(logits: Tensor, graph: GraphBatch) -> Tensor:
    """Return exp(logit - highest logit of the atom), 0 for edges that count 0.

    Args:
        logits: [n_edges, heads].
        graph: The edges.

    Returns:
        [n_edges, heads].
    """
    edges = graph.edges_of_center
    logits = logits.masked_fill(graph.edge_multiplicity.unsqueeze(1) == 0, -torch.inf)
    highest = F.embedding_bag(edges.row, logits, edges.first, mode="max")
    highest.masked_fill_(highest == -torch.inf, 0)
    return logits.sub_(highest.index_select(0, graph.edge_index[1])).exp_()


def columns_of_heads(attention: Tensor) -> Tensor:
    """Return 1 for the columns of each head: attention [heads, size] -> [heads, heads * size]."""
    eye = torch.eye(len(attention), dtype=attention.dtype, device=attention.device)
    return eye.repeat_interleave(attention.shape[1], dim=1)
