"""Graph convolutions on multiplicity graphs: node features in, node features out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.norms import WeightedBatchNorm


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
        z = F.linear(edge_attr, self.weight[:, 2 * self.hidden :])
        z = z + F.linear(x, w_centre, self.bias).index_select(0, of_centre)
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
        z = self.message_norm(self.linear(x, edge_attr, graph.edge_index), graph.edge_count)
        gate, core = z.chunk(2, dim=1)
        message = torch.sigmoid(gate) * F.softplus(core) * graph.edge_multiplicity.unsqueeze(1)
        aggregate = torch.zeros_like(x).index_add(0, graph.edge_index[1], message.to(x.dtype))
        return F.softplus(x + self.update_norm(aggregate, graph.atom_multiplicity))


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
