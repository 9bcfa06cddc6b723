"""The network, from graph batch to prediction, for any convolution."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.global_features import GlobalFeatures
from csgcnn.nn.heads import Head, StdHead, TargetScaler
from csgcnn.nn.input_features import InputsAt, place_inputs
from csgcnn.nn.interfaces import Convolution, EdgeCalculator, LayerConfig, NodeFeature, Pooling
from csgcnn.nn.kernel_heads import N_STATISTICS, GaussianProcessHead, KernelHead, pooled_sites
from csgcnn.nn.layers import Block, EdgeUpdate, LinearBeforeNorm, initialize_glorot
from csgcnn.nn.node_features import NodeFeatures
from csgcnn.nn.references import Reference

HEAD = ("head", "scaler", "reference", "std_head", "kernel_head", "head_inputs")
READOUT = ("pooling", "global_features", *HEAD)

# Keys of `model`.
Hidden = Annotated[int, Setting("Features per atom.", at_least=1, at_most=10_000)]
Depth = Annotated[int, Setting("Number of convolutions.", at_least=1, at_most=100)]
MessageLayers = Annotated[
    int, Setting("Linear layers from atoms and edge to a message.", at_least=1, at_most=10)
]
Norm = Annotated[
    str, Setting("Normalization of messages and updates.", choices=("batch", "layer", "none"))
]
Activation = Annotated[
    str, Setting("Activation function g.", choices=("softplus", "silu", "relu", "gelu", "tanh"))
]
Dropout = Annotated[
    float, Setting("Dropout probability in updates and head.", at_least=0, below=1, body=False)
]
Residual = Annotated[
    str,
    Setting(
        "Skip connection: post is g(x + N(conv(x))), pre is x + N(g(conv(x))), "
        "none is g(N(conv(x))).",
        choices=("post", "pre", "none"),
    ),
]
HeadWidth = Annotated[
    int,
    Setting("Width of the head.", at_least=1, at_most=10_000, body=False, read_by="n_head_layers"),
]
HeadDepth = Annotated[
    int | None,
    Setting(
        "Hidden layers of the head.",
        at_least=0,
        at_most=100,
        body=False,
        null="one linear map of the crystal vector",
    ),
]
Initialization = Annotated[
    str,
    Setting(
        "Initial weights of linear maps: those of torch, or uniform as by Glorot & Bengio "
        "(AISTATS 2010) with biases 0.",
        choices=("torch", "glorot"),
        body=False,
    ),
]
PredictStd = Annotated[
    bool,
    Setting(
        "Predict the standard deviation of each regression target; "
        "set by loss=gaussian and loss=laplace.",
        body=False,
    ),
]


class CrystalGraphNetwork(nn.Module):
    """Predict properties of crystals, in physical units, from their graphs.

    node features -> embedding -> blocks -> pooling -> head -> scaler, and edge features from the
    edge calculator to every block. The convolution makes the model: `GatedConvolution` CSGCNN,
    `AttentionConvolution` CSGANN, `IsomorphismConvolution` CSGINN, `SumConvolution` coGN. CSGCNN is
    the network of CGCNN (Xie & Grossman, PRL 120, 145301, 2018): with its settings (`atom_init`,
    Gaussians up to 8 Å, hidden 64, 3 convolutions, head 128) it has its 80,833 parameters. A kernel
    head, once it is fitted, takes the place of the head.

    Shapes: GraphBatch -> [n_graphs, sum of n_outputs].

    Args:
        node_features: Parts of the node features by name, concatenated.
        edge_calculator: Computes the edge features.
        convolution: Builds a convolution from a `LayerConfig`.
        pooling: Builds the pooling from the number of features per atom.
        n_outputs: Outputs per target: 1 for regression; for classification one per class.
        n_global: Number of global features.
        site_widths: Number of site features of each layer of pretrained potentials.
        kernel_head: Builds a kernel head from the widths of its possible inputs and the number of
            targets.
        reference: What is subtracted from the targets before training, and added to predictions.
        input_sizes: Number of categories of each input beside the structure; 0: a number.
    """

    def __init__(
        self,
        node_features: Mapping[str, NodeFeature],
        edge_calculator: EdgeCalculator,
        convolution: Callable[[LayerConfig], Convolution],
        pooling: Callable[[int], Pooling],
        n_outputs: Sequence[int] = (1,),
        hidden: Hidden = 64,
        n_convolutions: Depth = 3,
        message_layers: MessageLayers = 1,
        norm: Norm = "batch",
        activation: Activation = "softplus",
        dropout: Dropout = 0.0,
        residual: Residual = "post",
        head_hidden: HeadWidth = 128,
        n_head_layers: HeadDepth = 1,
        initialization: Initialization = "torch",
        predict_std: PredictStd = False,
        inputs: InputsAt = "head",
        n_global: int = 0,
        site_widths: Sequence[int] = (),
        kernel_head: Callable[[Mapping[str, Sequence[int]], int], KernelHead] | None = None,
        reference: Reference | None = None,
        input_sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        layer = LayerConfig(hidden, edge_calculator.dim, norm, activation, message_layers, residual)
        self.node_features = NodeFeatures(node_features)
        self.edge_calculator = edge_calculator
        self.embedding = LinearBeforeNorm(self.node_features.dim, hidden, "none")
        self.blocks = nn.ModuleList(
            Block(convolution(layer), layer, dropout, residual) for _ in range(n_convolutions)
        )
        n_updates = n_convolutions - 1 if edge_calculator.learnable else 0
        self.edge_updates = nn.ModuleList(EdgeUpdate(layer) for _ in range(n_updates))
        self._mark_removed_biases(layer)
        self.pooling = pooling(hidden)
        self.global_features = GlobalFeatures(n_global) if n_global else None
        self.head_inputs, self.state = place_inputs(input_sizes, inputs, hidden, n_convolutions)
        width = self.pooling.dim + n_global + (hidden if self.head_inputs else 0)
        widths = [width, *[head_hidden] * (n_head_layers or 0)]
        head_activation = None if n_head_layers is None else activation
        self.head = Head(widths, sum(n_outputs), head_activation, dropout)
        self.scaler = TargetScaler(n_outputs)
        self.reference = reference
        has_std = predict_std and 1 in n_outputs
        self.std_head = StdHead(widths, n_outputs, head_activation) if has_std else None
        blocks = {"crystal": [self.pooling.dim], "global": [n_global]}
        blocks["sites"] = N_STATISTICS * list(site_widths)
        self.kernel_head = kernel_head(blocks, sum(n_outputs)) if kernel_head else None
        if initialization == "glorot":
            self.apply(initialize_glorot)

    def _mark_removed_biases(self, layer: LayerConfig) -> None:
        """Tell the embeddings whether batch norms remove every effect of their biases."""
        convolutions = [cast(Block, block).convolution for block in self.blocks]
        if not all(getattr(convolution, "ignores_shifts", False) for convolution in convolutions):
            return
        if layer.residual == "none":  # otherwise the skip connections lead to the pooling
            self.embedding.next_norm = layer.norm_of_first
        embedding_of_edges = getattr(self.edge_calculator, "embed", None)
        if isinstance(embedding_of_edges, LinearBeforeNorm):
            embedding_of_edges.next_norm = layer.norm_of_first

    @property
    def body(self) -> list[nn.Module]:
        """The modules that compute the crystal vector: all but the head."""
        return [module for name, module in self.named_children() if name not in HEAD]

    @property
    def stages(self) -> list[list[nn.Module]]:
        """The modules from input to output: features, each block with its edge update, readout."""
        modules = dict(self.named_children())
        first = ("node_features", "edge_calculator", "embedding", "state")
        features = [modules[name] for name in first if name in modules]
        blocks = [[block, *self.edge_updates[i : i + 1]] for i, block in enumerate(self.blocks)]
        return [features, *blocks, [modules[name] for name in READOUT if name in modules]]

    @property
    def has_std(self) -> bool:
        """Whether the network predicts standard deviations."""
        head = self.fitted_kernel_head
        return head.has_std if head else self.std_head is not None

    @property
    def fitted_kernel_head(self) -> KernelHead | None:
        """The kernel head if it predicts: after its fit, which follows the training."""
        return self.kernel_head if self.kernel_head and self.kernel_head.is_fitted else None

    @property
    def std_scale(self) -> Tensor:
        """Calibration factors of the standard deviations [sum of n_outputs]."""
        head = self.fitted_kernel_head or self.std_head
        if not isinstance(head, GaussianProcessHead | StdHead):
            raise RuntimeError("this network predicts no standard deviations")
        return head.std_scale

    def crystal_vector(self, graph: GraphBatch) -> Tensor:
        """Return the vector of each crystal after the pooling [n_graphs, pooling.dim]."""
        return self.pooling(self.atom_features(graph)[-1], graph)

    def atom_features(self, graph: GraphBatch) -> list[Tensor]:
        """Return the features of the atoms behind each block [n_atoms, hidden]."""
        x = self.embedding(self.node_features(graph))
        edge_attr = self.edge_calculator(graph)
        states = self.state(graph) if self.state else ()
        found = []
        for i, block in enumerate(self.blocks):
            x = block(x + states[i] if states else x, edge_attr, graph)
            found.append(x)
            if i < len(self.edge_updates):
                edge_attr = self.edge_updates[i](x, edge_attr, graph)
        return found

    def pooled(self, graph: GraphBatch) -> Tensor:
        """Return crystal vectors, or what a fitted kernel head compares [n_graphs, n_features]."""
        return self.kernel_inputs(graph) if self.fitted_kernel_head else self.crystal_vector(graph)

    def standardized(self, graph: GraphBatch, crystal: Tensor | None = None) -> Tensor:
        """Return what the loss compares with standardized targets.

        Args:
            graph: The crystals.
            crystal: Their vectors after the pooling, if they are known.

        Returns:
            Standardized values and logits [n_graphs, sum of n_outputs]. With `predict_std`, also
            logarithms of standardized standard deviations, one column per regression target.
        """
        crystal = self.crystal_vector(graph) if crystal is None else crystal
        if self.global_features is not None:
            crystal = torch.cat([crystal, self.global_features(graph.global_features)], dim=1)
        if self.head_inputs is not None:
            crystal = torch.cat([crystal, self.head_inputs(graph)], dim=1)
        outputs = self.head(crystal)
        if self.std_head is None:
            return outputs
        return torch.cat([outputs, self.std_head(crystal)], dim=1)

    def kernel_inputs(self, graph: GraphBatch) -> Tensor:
        """Return the inputs of the kernel head [n_graphs, n_inputs]."""
        parts = []
        for name in self.kernel_head.inputs if self.kernel_head else ():
            if name == "crystal":
                parts.append(self.crystal_vector(graph))
            elif name == "sites":
                parts.append(pooled_sites(graph))
            elif self.global_features is not None:
                parts.append(self.global_features.standardize(graph.global_features))
        return torch.cat(parts, dim=1)

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return values in physical units and class probabilities [n_graphs, sum of n_outputs]."""
        if head := self.fitted_kernel_head:
            return self._of_kernel(head, self.kernel_inputs(graph), graph)
        return self.in_units(self.standardized(graph), graph)

    def in_units(self, outputs: Tensor, graph: GraphBatch) -> Tensor:
        """Return values in physical units and class probabilities [n_graphs, sum of n_outputs].

        Args:
            outputs: What `standardized` returns.
            graph: The crystals.
        """
        values = self.scaler(outputs.to(self.scaler.mean.dtype))
        return values if self.reference is None else values + self.reference(graph).to(values)

    def _of_kernel(self, head: KernelHead, inputs: Tensor, graph: GraphBatch) -> Tensor:
        """Return the values of a kernel head, or their mean with those of the network."""
        values = head(inputs)
        if head.uses_network:
            values = torch.lerp(values, self.standardized(graph).to(values), head.network_weight)
        return self.in_units(values, graph)

    def with_std(self, graph: GraphBatch, pooled: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return predictions and standard deviations.

        Args:
            graph: The crystals.
            pooled: What `pooled` returns, if it is known.

        Returns:
            Predictions as from `forward`, and their standard deviations, NaN for class
            probabilities, both [n_graphs, sum of n_outputs].
        """
        if head := self.fitted_kernel_head:
            inputs = self.kernel_inputs(graph) if pooled is None else pooled
            values = self._of_kernel(head, inputs, graph)
            if not head.has_std:
                return values, torch.full_like(values, torch.nan)
            return values, head.std(inputs).to(values.dtype) * self.scaler.std
        outputs = self.standardized(graph, pooled).to(self.scaler.mean.dtype)
        values = self.in_units(outputs, graph)
        if self.std_head is None:
            return values, torch.full_like(values, torch.nan)
        return values, self.std_head.std(outputs[:, values.shape[1] :], self.scaler)
