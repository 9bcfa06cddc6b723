"""The network: one body, any convolution."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.convolutions import EdgeUpdate
from csgcnn.nn.edge_calculators import EdgeCalculator
from csgcnn.nn.heads import Head, TargetScaler
from csgcnn.nn.node_features import ElementTable, LearnedEmbedding, NodeFeatures
from csgcnn.nn.pooling import MeanPooling


class CrystalGraphNetwork(nn.Module):
    """Crystal graphs in, properties in physical units out: features -> convolutions -> pooling -> head -> scaler.

    With `GatedConvolution` this is CSGCNN, the network of CGCNN (Xie & Grossman, PRL 120, 145301, 2018): it has the
    original's 80,833 parameters at the original's settings (`atom_init`, Gaussians to 8 Å, hidden 64, 3 convolutions,
    head 128).

    `convolution(hidden, edge_dim)` makes one layer with forward(x, edge_attr, graph).

    Shapes: GraphBatch -> [n_graphs, n_targets].
    """

    def __init__(
        self,
        node_features: Mapping[str, ElementTable | LearnedEmbedding],
        edge_calculator: EdgeCalculator,
        convolution: Callable[[int, int], nn.Module],
        n_targets: int = 1,
        hidden: int = 64,
        n_convolutions: int = 3,
        head_hidden: int = 128,
        n_head_layers: int = 1,
    ) -> None:
        super().__init__()
        self.node_features = NodeFeatures(node_features)
        self.edge_calculator = edge_calculator
        self.embedding = nn.Linear(self.node_features.dim, hidden)
        self.convolutions = nn.ModuleList(convolution(hidden, edge_calculator.dim) for _ in range(n_convolutions))
        n_updates = n_convolutions - 1 if edge_calculator.learnable else 0
        self.edge_updates = nn.ModuleList(EdgeUpdate(hidden, edge_calculator.dim) for _ in range(n_updates))
        self.pooling = MeanPooling()
        self.head = Head(hidden, head_hidden, n_head_layers, n_targets)
        self.scaler = TargetScaler(n_targets)

    def standardized(self, graph: GraphBatch) -> Tensor:
        """Standardised predictions, what a loss compares: [n_graphs, n_targets]."""
        x = self.embedding(self.node_features(graph.atomic_number))
        edge_attr = self.edge_calculator(graph.distance)
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x, edge_attr, graph)
            if i < len(self.edge_updates):
                edge_attr = self.edge_updates[i](x, edge_attr, graph)
        return self.head(self.pooling(x, graph))

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.scaler(self.standardized(graph).float())
