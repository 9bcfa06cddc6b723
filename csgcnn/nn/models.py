"""The network: one body, any convolution."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.edge_calculators import EdgeCalculator
from csgcnn.nn.heads import Head, TargetScaler
from csgcnn.nn.layers import Block, EdgeUpdate
from csgcnn.nn.node_features import ElementTable, LearnedEmbedding, NodeFeatures
from csgcnn.nn.pooling import AttentionPooling, MaxPooling, Set2Set, SumPooling


class CrystalGraphNetwork(nn.Module):
    """Crystal graphs in, properties in physical units out: features -> blocks -> pooling -> head -> scaler.

    The convolution makes the model: `GatedConvolution` CSGCNN, `AttentionConvolution` CSGANN, `IsomorphismConvolution`
    CSGINN. CSGCNN is the network of CGCNN (Xie & Grossman, PRL 120, 145301, 2018): it has the original's 80,833
    parameters at the original's settings (`atom_init`, Gaussians to 8 Å, hidden 64, 3 convolutions, head 128).

    `convolution(hidden, edge_dim, norm, activation, message_layers)` and `pooling(hidden)` make the layers.

    Shapes: GraphBatch -> [n_graphs, n_targets].
    """

    def __init__(
        self,
        node_features: Mapping[str, ElementTable | LearnedEmbedding],
        edge_calculator: EdgeCalculator,
        convolution: Callable[[int, int, str, str, int], nn.Module],
        pooling: Callable[[int], SumPooling | MaxPooling | AttentionPooling | Set2Set],
        n_targets: int = 1,
        hidden: int = 64,
        n_convolutions: int = 3,
        message_layers: int = 1,
        norm: str = "batch",
        activation: str = "softplus",
        dropout: float = 0.0,
        residual: str = "post",
        head_hidden: int = 128,
        n_head_layers: int = 1,
    ) -> None:
        super().__init__()
        self.node_features = NodeFeatures(node_features)
        self.edge_calculator = edge_calculator
        edge_dim = edge_calculator.dim
        self.embedding = nn.Linear(self.node_features.dim, hidden)
        self.blocks = nn.ModuleList(
            Block(
                convolution(hidden, edge_dim, norm, activation, message_layers),
                *(hidden, norm, activation, dropout, residual),
            )
            for _ in range(n_convolutions)
        )
        n_updates = n_convolutions - 1 if edge_calculator.learnable else 0
        self.edge_updates = nn.ModuleList(EdgeUpdate(hidden, edge_dim, norm, activation) for _ in range(n_updates))
        self.pooling = pooling(hidden)
        self.head = Head(self.pooling.dim, head_hidden, n_head_layers, n_targets, activation, dropout)
        self.scaler = TargetScaler(n_targets)

    def standardized(self, graph: GraphBatch) -> Tensor:
        """Standardised predictions, what a loss compares: [n_graphs, n_targets]."""
        x = self.embedding(self.node_features(graph.atomic_number))
        edge_attr = self.edge_calculator(graph)
        for i, block in enumerate(self.blocks):
            x = block(x, edge_attr, graph)
            if i < len(self.edge_updates):
                edge_attr = self.edge_updates[i](x, edge_attr, graph)
        return self.head(self.pooling(x, graph))

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.scaler(self.standardized(graph).float())
