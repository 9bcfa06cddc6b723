"""Node features of a crystal in, one vector for the crystal out.

A node counts as often as its multiplicity, so compressed and full graphs agree. Mean, max, attention and Set2Set are
the same for every supercell of a crystal; the sum is not: it grows with the cell, for targets that do.
"""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch_geometric.nn.aggr import MaxAggregation

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.layers import weighted_softmax


class SumPooling(nn.Module):
    """Sum over the sites of each crystal, for properties of the whole cell: doubled by a doubled cell.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dim = hidden

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        total = x.new_zeros(graph.n_graphs, x.shape[1])
        return total.index_add(
            0, graph.graph_index, x * graph.atom_multiplicity.unsqueeze(1).to(x.dtype)
        )


class MeanPooling(SumPooling):
    """Mean over the sites of each crystal, CGCNN's pooling: the same for any supercell.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        return super().forward(x, graph) / graph.n_sites.unsqueeze(1)


class MaxPooling(nn.Module):
    """Largest value of each feature in the crystal: the same for any supercell.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dim = hidden
        self.max = MaxAggregation()

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        # atoms that fill up a batch have multiplicity 0
        counting = torch.where(graph.atom_multiplicity.unsqueeze(1) > 0, x, -torch.inf)
        return self.max(counting, graph.graph_index, dim_size=graph.n_graphs)


class AttentionPooling(nn.Module):
    """Gated attention (Li et al., ICLR 2016): a mean weighted by a learned softmax; the same for any supercell.

    Unlike PyG's `AttentionalAggregation`, a node counts with its multiplicity.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dim = hidden
        self.gate = nn.Linear(hidden, 1, bias=False)  # a softmax ignores a common shift
        self.value = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        return attend(self.gate(x), self.value(x), graph)


class Set2Set(nn.Module):
    """Set2Set (Vinyals, Bengio & Kudlur, ICLR 2016): an LSTM that reads the crystal `steps` times by attention.

    Unlike PyG's `Set2Set`, a node counts with its multiplicity; the same for any supercell.

    Shapes: x [n_atoms, hidden] -> [n_graphs, 2 hidden].
    """

    def __init__(
        self,
        hidden: int,
        steps: Annotated[
            int, Setting("Times that the LSTM reads the crystal.", at_least=1, at_most=100)
        ] = 3,
    ) -> None:
        super().__init__()
        self.dim = 2 * hidden
        self.steps = steps
        self.lstm = nn.LSTMCell(2 * hidden, hidden)

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        read = x.new_zeros(graph.n_graphs, self.dim)
        state: tuple[Tensor, Tensor] | None = None
        for _ in range(self.steps):
            state = self.lstm(read, state)
            query = state[0]
            logits = (x * query.index_select(0, graph.graph_index)).sum(1, keepdim=True)
            read = torch.cat([query, attend(logits, x, graph)], dim=1)
        return read


def attend(logits: Tensor, value: Tensor, graph: GraphBatch) -> Tensor:
    """Mean of values [n_atoms, size] over each crystal with the softmax of logits [n_atoms, 1]: [n_graphs, size]."""
    alpha = weighted_softmax(logits, graph.atom_multiplicity, graph.graph_index, graph.n_graphs)
    weighted = alpha * value
    return weighted.new_zeros(graph.n_graphs, value.shape[1]).index_add(
        0, graph.graph_index, weighted
    )
