"""A convolution, which implements `csgcnn.nn.interfaces.Convolution`."""

from typing import Annotated

from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.interfaces import LayerConfig
from csgcnn.nn.layers import PairLinear, activation_function
from csgcnn.nn.norms import make_norm


class MeanConvolution(nn.Module):
    r"""Mean of the messages from the neighbors.

    .. math:: s \, \frac{\sum_j w_{ij} \, g(N(W [x_i, x_j, e_{ij}] + b))}{\sum_j w_{ij}}

    with the activation g, the norm N, the multiplicity w of the edge and a factor s.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim] -> [n_atoms, hidden].
    """

    def __init__(
        self,
        config: LayerConfig,
        scale: Annotated[
            float, Setting("Factor of the update.", at_least=0.001, at_most=1000)
        ] = 1.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.linear = PairLinear(config.hidden, config.edge_dim, config.hidden, config.norm)
        self.norm = make_norm(config.norm, config.hidden)
        self.activation = activation_function(config.activation)

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        """Return the updates of the atoms."""
        z = self.linear(x, edge_attr, graph)
        message = self.activation(self.norm(z, graph.edge_count))
        # An atom without neighbors has degree 0 and the update 0.
        degree = graph.degree.clamp(min=1).unsqueeze(1)
        return self.scale * graph.sum_neighbors(message) / degree
