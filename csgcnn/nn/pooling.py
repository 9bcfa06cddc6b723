"""Poolings, which implement `csgcnn.nn.interfaces.Pooling`.

An atom counts as often as its multiplicity, so compressed and full graphs give the same vector.
Mean, max, attention and Set2Set give the same vector for every supercell of a crystal; the sum
grows with the cell.
"""

from typing import Annotated

import torch
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.layers import weighted_softmax


class SumPooling(nn.Module):
    """Sum over the sites of each crystal, for extensive properties of the cell.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dim = hidden

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        weighted = x * graph.atom_multiplicity.unsqueeze(1).to(x.dtype)
        total = x.new_zeros(graph.n_graphs, x.shape[1])
        return total.index_add(0, graph.graph_index, weighted)


class MeanPooling(SumPooling):
    """Mean over the sites of each crystal, as in CGCNN.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        return super().forward(x, graph) / graph.n_sites.unsqueeze(1)


class MaxPooling(nn.Module):
    """Largest value of each feature in the crystal, as PyG's `MaxAggregation`.

    PyG is not imported here, because its import takes almost 2 s.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dim = hidden

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        # Atoms that fill up a batch have multiplicity 0.
        counting = torch.where(graph.atom_multiplicity.unsqueeze(1) > 0, x, -torch.inf)
        index = graph.graph_index.unsqueeze(1).expand_as(x)
        largest = counting.new_zeros(graph.n_graphs, x.shape[1])
        return largest.scatter_reduce(0, index, counting, "amax", include_self=False)


class AttentionPooling(nn.Module):
    r"""Mean with learned weights: gated attention (Li et al., ICLR 2016).

    .. math:: \sum_i a_i V x_i, \quad a_i = \mathrm{softmax}_i (u \cdot x_i)

    Unlike in PyG's `AttentionalAggregation`, the softmax counts an atom with its multiplicity. The
    logits need no bias: a softmax is invariant to a common shift.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dim = hidden
        self.gate = nn.Linear(hidden, 1, bias=False)
        self.value = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        return attend(self.gate(x), self.value(x), graph)


class Set2Set(nn.Module):
    r"""Set2Set (Vinyals, Bengio & Kudlur, ICLR 2016): an LSTM attends to the atoms several times.

    .. math:: q, h = \mathrm{LSTM}([q, r], h), \quad r = \sum_i a_i x_i, \quad
              a_i = \mathrm{softmax}_i (q \cdot x_i)

    Unlike in PyG's `Set2Set`, the softmax counts an atom with its multiplicity.

    Shapes: x [n_atoms, hidden] -> [q, r] [n_graphs, 2 hidden].
    """

    def __init__(
        self,
        hidden: int,
        steps: Annotated[int, Setting("Steps of the LSTM.", at_least=1, at_most=100)] = 3,
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
    """Return the mean over each crystal, weighted by a softmax.

    Args:
        logits: [n_atoms, 1].
        value: [n_atoms, size].
        graph: The crystals.

    Returns:
        Means [n_graphs, size].
    """
    alpha = weighted_softmax(logits, graph.atom_multiplicity, graph.graph_index, graph.n_graphs)
    weighted = alpha * value
    total = weighted.new_zeros(graph.n_graphs, value.shape[1])
    return total.index_add(0, graph.graph_index, weighted)
