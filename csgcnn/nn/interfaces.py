"""Interfaces of the parts of a network, to be implemented inside the package or in a plugin.

Each part is a `torch.nn.Module` with the attributes and the call listed here. Shapes use
n_atoms, the atoms of the batch after symmetry compression; n_edges, its edges; n_graphs, its
crystals. In a compressed graph atom i stands for `graph.atom_multiplicity[i]` sites and edge k for
`graph.edge_multiplicity[k]` neighbors; sums and means must count them as often, so that compressed
and full graphs give the same predictions.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from csgcnn.data.batch import GraphBatch


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """Sizes and choices that the layers of a network share.

    Attributes:
        hidden: Features per atom.
        edge_dim: Features per edge.
        norm: Name of the normalization, see `csgcnn.nn.norms.make_norm`.
        activation: Name of the activation function, see `csgcnn.nn.layers.activation_function`.
        message_layers: Linear layers from atoms and edge to a message.
        residual: Skip connection of the blocks, see `csgcnn.nn.layers.Block`.
    """

    hidden: int
    edge_dim: int
    norm: str
    activation: str
    message_layers: int
    residual: str = "pre"

    @property
    def norm_of_first(self) -> str:
        """The norm that directly follows the first layer of a message."""
        return self.norm if self.message_layers == 1 else "none"

    @property
    def norm_of_update(self) -> str:
        """The norm that directly follows the convolution; `pre` has the activation between."""
        return "none" if self.residual == "pre" else self.norm


class Convolution(Protocol):
    """Compute the update of each atom from its neighbors.

    The constructor takes a `LayerConfig` as its first argument; further arguments are keys of
    `model.convolution`. `csgcnn.nn.layers.Block` adds norm, activation, dropout and skip
    connection. A class with `ignores_shifts = True` uses features only in linear maps that a norm
    follows, if `message_layers=1`: a constant added to those of all atoms, or of all edges, changes
    nothing.
    """

    def __call__(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        """Return the updates of the atoms.

        Args:
            x: Features of the atoms [n_atoms, hidden].
            edge_attr: Features of the edges [n_edges, edge_dim].
            graph: The crystals. Edge k leads from neighbor `edge_index[0, k]` to center
                `edge_index[1, k]`; `sum_neighbors` sums messages over the neighbors.

        Returns:
            Updates [n_atoms, hidden], finite for an atom without neighbors.
        """
        ...


class Pooling(Protocol):
    """Reduce the atoms of each crystal to one vector.

    The constructor takes `hidden` as its first argument; further arguments are keys of `pooling`.

    Attributes:
        dim: Size of the vector.
    """

    dim: int

    def __call__(self, x: Tensor, graph: GraphBatch) -> Tensor:
        """Return the vectors of the crystals.

        Args:
            x: Features of the atoms [n_atoms, hidden].
            graph: The crystals. Atom i belongs to crystal `graph_index[i]`; atoms of multiplicity 0
                fill up a batch and must not count.

        Returns:
            Vectors [n_graphs, dim].
        """
        ...


class EdgeCalculator(Protocol):
    """Compute features of the edges from distances and elements.

    The constructor's arguments are keys of `edge_calculator`. `csgcnn.nn.edge_calculators` has a
    base class for expansions of the distance.

    Attributes:
        dim: Features per edge.
        learnable: Whether the network updates the features after each convolution but the last.
    """

    dim: int
    learnable: bool

    def __call__(self, graph: GraphBatch) -> Tensor:
        """Return features of the edges.

        Args:
            graph: The crystals, with `distance` [n_edges] in Å.

        Returns:
            Features [n_edges, dim].
        """
        ...


class NodeFeature(Protocol):
    """Compute features of the atoms, in general from their elements.

    The constructor's arguments are keys of `node_features.NAME`.

    Attributes:
        dim: Features per atom.
    """

    dim: int

    def __call__(self, graph: GraphBatch) -> Tensor:
        """Return features of the atoms.

        Args:
            graph: The crystals, with `atomic_number` [n_atoms], int64, from 1 to 100.

        Returns:
            Features [n_atoms, dim].
        """
        ...
