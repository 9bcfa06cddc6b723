"""The network: one body, any convolution."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.edge_calculators import EdgeCalculator
from csgcnn.nn.global_features import GlobalFeatures
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
    `n_outputs` per target: 1 for a number, one for each class of a classification target, whose probability it becomes.

    Shapes: GraphBatch -> [n_graphs, sum of n_outputs].
    """

    def __init__(
        self,
        node_features: Mapping[str, ElementTable | LearnedEmbedding],
        edge_calculator: EdgeCalculator,
        convolution: Callable[[int, int, str, str, int], nn.Module],
        pooling: Callable[[int], SumPooling | MaxPooling | AttentionPooling | Set2Set],
        n_outputs: Sequence[int] = (1,),
        hidden: int = 64,
        n_convolutions: int = 3,
        message_layers: int = 1,
        norm: str = "batch",
        activation: str = "softplus",
        dropout: float = 0.0,
        residual: str = "post",
        head_hidden: int = 128,
        n_head_layers: int = 1,
        n_global: int = 0,
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
        self.global_features = GlobalFeatures(n_global) if n_global else None
        self.head = Head(self.pooling.dim + n_global, head_hidden, n_head_layers, sum(n_outputs), activation, dropout)
        self.scaler = TargetScaler(n_outputs)

    def standardized(self, graph: GraphBatch) -> Tensor:
        """What a loss compares, standardised values and logits: [n_graphs, sum of n_outputs]."""
        x = self.embedding(self.node_features(graph.atomic_number))
        edge_attr = self.edge_calculator(graph)
        for i, block in enumerate(self.blocks):
            x = block(x, edge_attr, graph)
            if i < len(self.edge_updates):
                edge_attr = self.edge_updates[i](x, edge_attr, graph)
        crystal = self.pooling(x, graph)
        if self.global_features is not None:
            crystal = torch.cat([crystal, self.global_features(graph.global_features)], dim=1)
        return self.head(crystal)

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.scaler(self.standardized(graph).to(self.scaler.mean.dtype))
