"""The network: one body, any convolution."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from csgcnn.config.instantiate import instantiate
from csgcnn.config.settings import Setting
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.edge_calculators import EdgeCalculator
from csgcnn.nn.global_features import GlobalFeatures
from csgcnn.nn.heads import Head, StdHead, TargetScaler
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
    `predict_std`: tell the standard deviation of each number, too, which a likelihood as loss teaches.

    Shapes: GraphBatch -> [n_graphs, sum of n_outputs].
    """

    def __init__(
        self,
        node_features: Mapping[str, ElementTable | LearnedEmbedding],
        edge_calculator: EdgeCalculator,
        convolution: Callable[[int, int, str, str, int], nn.Module],
        pooling: Callable[[int], SumPooling | MaxPooling | AttentionPooling | Set2Set],
        n_outputs: Sequence[int] = (1,),
        hidden: Annotated[int, Setting("Features per atom.", at_least=1, at_most=10_000)] = 64,
        n_convolutions: Annotated[int, Setting("Convolutions.", at_least=1, at_most=100)] = 3,
        message_layers: Annotated[
            int, Setting("Linear layers from atoms and edge to a message.", at_least=1, at_most=10)
        ] = 1,
        norm: Annotated[
            str,
            Setting("Normalization of messages and updates.", choices=("batch", "layer", "none")),
        ] = "batch",
        activation: Annotated[
            str,
            Setting("Activation function.", choices=("softplus", "silu", "relu", "gelu", "tanh")),
        ] = "softplus",
        dropout: Annotated[
            float, Setting("Dropout of updates and of the head.", at_least=0, below=1, body=False)
        ] = 0.0,
        residual: Annotated[
            str,
            Setting(
                "post: g(x + N(conv(x))), as in CGCNN; pre: x + N(g(conv(x))); none: g(N(conv(x))).",
                choices=("post", "pre", "none"),
            ),
        ] = "post",
        head_hidden: Annotated[
            int, Setting("Width of the head.", at_least=1, at_most=10_000, body=False)
        ] = 128,
        n_head_layers: Annotated[
            int, Setting("Hidden layers of the head.", at_least=0, at_most=100, body=False)
        ] = 1,
        predict_std: Annotated[
            bool,
            Setting(
                "Predict the standard deviation of each number; set by loss=gaussian and loss=laplace.",
                body=False,
            ),
        ] = False,
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
        self.edge_updates = nn.ModuleList(
            EdgeUpdate(hidden, edge_dim, norm, activation) for _ in range(n_updates)
        )
        self.pooling = pooling(hidden)
        self.global_features = GlobalFeatures(n_global) if n_global else None
        shape = self.pooling.dim + n_global, head_hidden, n_head_layers
        self.head = Head(*shape, sum(n_outputs), activation, dropout)
        self.scaler = TargetScaler(n_outputs)
        self.spread = (
            StdHead(*shape, n_outputs, activation) if predict_std and 1 in n_outputs else None
        )

    @property
    def body(self) -> list[nn.Module]:
        """What makes the crystal vector: all but the head and what it answers with."""
        whole = [*chain(*self.stages[:-1]), self.pooling, self.global_features]
        return [module for module in whole if module is not None]

    @property
    def stages(self) -> list[list[nn.Module]]:
        """The network from crystal to property: features, each block with the edge update behind it, head."""
        blocks = [[block, *self.edge_updates[i : i + 1]] for i, block in enumerate(self.blocks)]
        last = [self.pooling, self.global_features, self.head, self.scaler, self.spread]
        features: list[nn.Module] = [self.node_features, self.edge_calculator, self.embedding]
        return [features, *blocks, [module for module in last if module is not None]]

    @property
    def has_std(self) -> bool:
        """Whether `with_std` knows a deviation."""
        return self.spread is not None

    @property
    def std_scale(self) -> Tensor:
        """What predicted deviations are multiplied by."""
        if self.spread is None:
            raise AttributeError("this network predicts no deviations")
        return self.spread.std_scale

    def standardized(self, graph: GraphBatch) -> Tensor:
        """What a loss compares: standardized values and logits [n_graphs, sum of n_outputs].

        With `predict_std` the logarithms of the standardized deviations come behind, `n_numbers` more columns.
        """
        x = self.embedding(self.node_features(graph.atomic_number))
        edge_attr = self.edge_calculator(graph)
        for i, block in enumerate(self.blocks):
            x = block(x, edge_attr, graph)
            if i < len(self.edge_updates):
                edge_attr = self.edge_updates[i](x, edge_attr, graph)
        crystal = self.pooling(x, graph)
        if self.global_features is not None:
            crystal = torch.cat([crystal, self.global_features(graph.global_features)], dim=1)
        outputs = self.head(crystal)
        return outputs if self.spread is None else torch.cat([outputs, self.spread(crystal)], dim=1)

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.scaler(self.standardized(graph).to(self.scaler.mean.dtype))

    def with_std(self, graph: GraphBatch) -> tuple[Tensor, Tensor]:
        """Values and probabilities, and the deviations of the values, NaN for classes: [n_graphs, sum of n_outputs]."""
        outputs = self.standardized(graph).to(self.scaler.mean.dtype)
        values = self.scaler(outputs)
        if self.spread is None:
            return values, torch.full_like(values, torch.nan)
        return values, self.spread.std(outputs[:, values.shape[1] :], self.scaler)


def build_network(config: Mapping[str, Any], n_outputs: Sequence[int]) -> CrystalGraphNetwork:
    """Make the network that the groups model, node_features, edge_calculator, pooling and graph describe.

    `n_outputs` per target: 1 for a number, the number of classes for a class.
    """
    parts = {
        name: instantiate(config[name]) for name in ("node_features", "edge_calculator", "pooling")
    }
    n_global = len(descriptor_names(GraphSettings(**config["graph"]).global_features))
    return instantiate(config["model"], **parts, n_outputs=n_outputs, n_global=n_global)
