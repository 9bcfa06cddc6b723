"""A trained model with all it needs to predict: usable in three lines of Python."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.crystals.build import Rejected, Warnings, build_graphs
from csgcnn.crystals.datasets import Record
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.graphs import GraphSettings
from csgcnn.crystals.structure_files import one_line
from csgcnn.crystals.structures import StructureSource
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError, StructureError, UserError
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.training.checkpoint import load_checkpoint
from csgcnn.training.run_directory import with_unit
from csgcnn.training.trainer import predict_rows
from csgcnn.values import check_values
from csgcnn.wiring import build_model

# What building a network that a stranger describes may raise.
UNFIT = (ArithmeticError, AttributeError, ConfigError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions for a chunk of records: values [n, n_columns] for `ids`, what was rejected, and what was mended."""

    ids: list[str]
    values: NDArray[np.float32]
    unseen: list[set[int]]  # atomic numbers in each that the training never saw
    rejected: list[Rejected]
    warnings: Warnings


class Predictor:
    """A trained model: network, graph settings, targets and the elements it knows.

    It answers a column per number, in `units`, and one per class of a classification target, its probability; `columns`
    names them.

    Example:
        >>> from csgcnn import load
        >>> model = load("best.ckpt")
        >>> model.predict([structure])  # [1, n_columns]: model.columns, numbers in model.units
    """

    def __init__(
        self,
        network: CrystalGraphNetwork,
        graph: GraphSettings,
        targets: list[Target],
        elements: set[int],
        split: dict[str, list[str]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network.to(device).eval()
        self.graph = graph
        self.targets = targets
        self.names = [target.name for target in targets]
        self.units = [target.unit for target in targets]
        self.columns = [name for target in targets for name in target.outputs]
        self.elements = elements
        self.split = split  # ids of the training's train, val and test rows
        self.device = torch.device(device)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "Predictor":
        """Rebuild a model from its checkpoint alone.

        Raises:
            UserError: the file is no usable checkpoint.
        """
        content = load_checkpoint(Path(path).expanduser())
        config = content["config"]
        try:
            check_values(config)
            targets = [Target(**target) for target in content["targets"]]
            network = _network(config, [target.n_outputs for target in targets], content["state_dict"])
            graph = GraphSettings(**config["graph"])
            _try_out(network, len(descriptor_names(graph.global_features)))
        except UNFIT as error:
            raise UserError(f"{path}: its weights do not fit its own configuration: {one_line(error)}") from error
        return cls(network, graph, targets, set(content["elements"]), content.get("split"), device)

    def predict(self, structures: "Sequence[StructureSource | str] | StructureSource") -> NDArray[np.float32]:
        """Predict for pymatgen `Structure`s, structure dicts or structure files: [n, n_columns].

        Raises:
            StructureError: a structure cannot be used; the message says which and why.
        """
        is_one = isinstance(structures, str | Path | dict) or hasattr(structures, "lattice")
        listed: list[Any] = [structures] if is_one else list(cast(Iterable[Any], structures))
        records = [Record(str(i), Path(s) if isinstance(s, str) else s, {}) for i, s in enumerate(listed)]
        chunks = list(self.stream(records, workers=1))
        for chunk in chunks:
            if chunk.rejected:
                raise StructureError(f"structure {chunk.rejected[0].id}: {chunk.rejected[0].reason}")
        return np.concatenate([chunk.values for chunk in chunks]) if chunks else np.empty((0, len(self.columns)), "f4")

    def stream(
        self, records: Iterable[Record], batch_size: int = 256, workers: int | None = None
    ) -> Iterator[Prediction]:
        """Predict chunk by chunk, in order; memory does not grow with the number of records."""
        for built in build_graphs(records, self.graph, workers):
            ids = [record.id for record in built.records]
            if built.graphs is None:
                yield Prediction([], np.empty((0, len(self.columns)), "f4"), [], built.rejected, built.warnings)
                continue
            store = GraphStore(built.graphs, ids, {}, self.graph)
            unseen = [found - self.elements for found in store.elements]
            values = predict_rows(self.network, store.to(self.device), torch.arange(len(store)), batch_size)
            yield Prediction(ids, values.cpu().numpy(), unseen, built.rejected, built.warnings)

    def __repr__(self) -> str:
        targets = ", ".join(map(with_unit, self.names, self.units))
        return f"Predictor({targets}; {len(self.elements)} elements)"


def _network(config: Mapping[str, Any], n_outputs: Sequence[int], state: Mapping[str, Tensor]) -> CrystalGraphNetwork:
    """The network of a configuration, which may ask for any size, with the weights `state`."""
    if not n_outputs:
        raise ValueError("it has no targets")
    if bad := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{bad[0]} is not finite: the training had diverged")
    with torch.device("meta"):  # nothing is allocated before names and shapes are known to be those of the weights
        network = build_model(config, n_outputs)
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    weights = {name: tensor.to(dtypes.get(name, tensor.dtype)).contiguous() for name, tensor in state.items()}
    network.load_state_dict(weights, assign=True)
    return network


@torch.inference_mode()
def _try_out(network: CrystalGraphNetwork, n_global: int) -> None:
    """Predict one atom with one neighbour: what fails here would fail for every crystal."""
    one, first = torch.ones(1), torch.zeros(1, dtype=torch.long)
    edge_index, edge_vector = first.expand(2, 1), torch.empty(1, 0)
    network.eval()(GraphBatch(first + 1, one, first, edge_index, one, one, edge_vector, torch.zeros(1, n_global), 1))
