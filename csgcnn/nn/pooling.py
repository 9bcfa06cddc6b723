"""Node features of a crystal in, one vector for the crystal out."""

from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch


class MeanPooling(nn.Module):
    """Mean over the sites of each crystal, a node counted as often as its multiplicity: the same for any supercell.

    Shapes: x [n_atoms, hidden] -> [n_graphs, hidden].
    """

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        total = x.new_zeros(graph.n_graphs, x.shape[1])
        total = total.index_add(0, graph.graph_index, x * graph.atom_multiplicity.unsqueeze(1).to(x.dtype))
        return total / graph.n_sites.unsqueeze(1)
