"""A trained model with all it needs to predict: usable in three lines of Python."""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.config.keys import section_keys
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.run import RunSettings
from csgcnn.config.validate import check_values
from csgcnn.crystals.crystal import Crystal, StructureSource
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER
from csgcnn.crystals.graph_builder import Rejected, Warnings, build_graphs
from csgcnn.crystals.records import Record
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target, with_unit
from csgcnn.errors import ConfigError, StructureError, UserError, one_line
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork, build_network
from csgcnn.runs.checkpoint import load_checkpoint

# What building a network that a stranger describes may raise.
UNFIT = (
    ArithmeticError,
    AttributeError,
    ConfigError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


STORE_ROWS = 4096  # of a store, in a chunk


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions for a chunk of records: values [n, n_columns] for `ids`, what was rejected, and what was mended."""

    ids: list[str]
    values: NDArray[np.float32]
    std: (
        NDArray[np.float32] | None
    )  # [n, n_columns], if the model tells it; of a single model's class NaN
    unseen: dict[
        int, str
    ]  # atomic numbers that the training never saw, and the first of `ids` with it
    rejected: list[Rejected]
    warnings: Warnings


class Predictor:
    """A trained model, or an ensemble of them: network, graph settings, targets and the elements it knows.

    It answers a column per number, in `units`, and one per class of a classification target, its probability; `columns`
    names them. An ensemble answers the mean of its members. An ensemble, and a model that was trained by a likelihood,
    tell standard deviations, too (`has_std`); those of one training are calibrated on its validation rows.

    Example:
        >>> from csgcnn import load
        >>> model = load("best.ckpt")
        >>> model.predict([structure])  # [1, n_columns]: model.columns, numbers in model.units
    """

    def __init__(
        self,
        network: CrystalGraphNetwork | Ensemble,
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
        self.has_std = network.has_std
        self.elements = elements
        self.split = split  # ids of the training's train, val and test rows
        self.device = torch.device(device)

    @classmethod
    def load(
        cls, path: "str | Path | Sequence[str | Path]", device: torch.device | str = "cpu"
    ) -> "Predictor":
        """Rebuild a model from its checkpoint alone, or an ensemble from several, which a pattern may stand for.

        Raises:
            UserError: a file is no usable checkpoint, or they answer different questions.
        """
        paths = checkpoint_paths(path)
        members = [cls._of_checkpoint(path, device) for path in paths]
        return members[0] if len(members) == 1 else cls._of_members(members, paths, device)

    @classmethod
    def _of_checkpoint(cls, path: Path, device: torch.device | str) -> "Predictor":
        content = load_checkpoint(path)
        config = content["config"]
        try:
            check_values(config, section_keys(RunSettings))
            targets = [Target(**target) for target in content["targets"]]
            network = _network(
                config, [target.n_outputs for target in targets], content["state_dict"]
            )
            graph = GraphSettings(**config["graph"])
            _try_out(network, len(descriptor_names(graph.global_features)))
        except UNFIT as error:
            raise UserError(
                f"{path}: its weights do not fit its own configuration: {one_line(error)}"
            ) from error
        return cls(network, graph, targets, set(content["elements"]), content.get("split"), device)

    @classmethod
    def _of_members(
        cls, members: "Sequence[Predictor]", paths: Sequence[Path], device: torch.device | str
    ) -> "Predictor":
        first = members[0]
        for member, path in zip(members, paths, strict=True):
            if difference := _difference(first, member):
                raise UserError(
                    f"{paths[0]} and {path} are no ensemble: they differ in {difference}"
                )
        network = Ensemble([network for member in members for network in _networks(member)])
        elements = set.intersection(*(member.elements for member in members))
        return cls(network, first.graph, first.targets, elements, _common_split(members), device)

    def predict(
        self, structures: "Sequence[StructureSource | str] | StructureSource"
    ) -> NDArray[np.float32]:
        """Predict for pymatgen `Structure`s, structure dicts or structure files: [n, n_columns].

        Raises:
            StructureError: a structure cannot be used; the message says which and why.
        """
        return self._predict(structures)[0]

    def predict_with_std(
        self, structures: "Sequence[StructureSource | str] | StructureSource"
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Predict as `predict`, and the standard deviation behind each number: [n, n_columns] both.

        Raises:
            StructureError: a structure cannot be used; the message says which and why.
            UserError: this is one model, and its loss was no likelihood.
        """
        if not self.has_std:
            raise UserError(
                "this model tells no deviation; load several checkpoints: load([a, b, c])"
            )
        values, std = self._predict(structures)
        return values, cast(NDArray[np.float32], std)

    def _predict(self, structures: Any) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        is_one = isinstance(structures, str | Path | dict) or hasattr(structures, "lattice")
        listed: list[Any] = [structures] if is_one else list(cast(Iterable[Any], structures))
        records = [
            Record(str(i), Path(s) if isinstance(s, str) else s, {}) for i, s in enumerate(listed)
        ]
        chunks = list(self.stream(records, workers=1))
        for chunk in chunks:
            if chunk.rejected:
                raise StructureError(
                    f"structure {chunk.rejected[0].id}: {chunk.rejected[0].reason}"
                )
        if not chunks:
            return self._nothing()
        std = [chunk.std for chunk in chunks if chunk.std is not None]
        return np.concatenate([chunk.values for chunk in chunks]), np.concatenate(
            std
        ) if std else None

    def stream(
        self, records: Iterable[Record], batch_size: int = 256, workers: int | None = None
    ) -> Iterator[Prediction]:
        """Predict chunk by chunk, in order; memory does not grow with the number of records."""
        for built in build_graphs(records, self.graph, workers):
            if built.graphs is None:
                yield Prediction([], *self._nothing(), {}, built.rejected, built.warnings)
                continue
            store = GraphStore(
                built.graphs, [record.id for record in built.records], {}, self.graph
            )
            yield self.predict_rows(
                store, range(len(store)), batch_size, built.rejected, built.warnings
            )

    def predict_usable(
        self, crystals: Sequence[tuple[str, Crystal]]
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Predict crystals with ids, and leave out those that cannot be predicted: ids, [n_usable, n_columns]."""
        chunks = list(
            self.stream((Record(id_, crystal, {}) for id_, crystal in crystals), workers=1)
        )
        ids = [id_ for chunk in chunks for id_ in chunk.ids]
        return ids, np.concatenate([self._nothing()[0], *(chunk.values for chunk in chunks)])

    def stream_store(
        self, store: GraphStore, batch_size: int = 256, first: int = 0
    ) -> Iterator[Prediction]:
        """Predict the rows of a store from `first` on, chunk by chunk, in order.

        Raises:
            UserError: the store's graphs are of other settings than the model's.
        """
        self.check_settings(store)
        for start in range(first, len(store), STORE_ROWS):
            yield self.predict_rows(
                store, range(start, min(start + STORE_ROWS, len(store))), batch_size
            )

    def check_settings(self, store: GraphStore) -> None:
        """Check that a store holds the graphs that the model reads.

        Raises:
            UserError: it does not; the message names the settings that differ.
        """
        if found := _differing(asdict(self.graph), asdict(store.settings)):
            told = ", ".join(
                f"graph.{key}={ours} (the store has {theirs})" for key, ours, theirs in found
            )
            raise UserError(
                f"the store's graphs are not those of the model, which needs {told}; build it with these"
            )

    @torch.inference_mode()
    def predict_rows(
        self,
        store: GraphStore,
        rows: range,
        batch_size: int,
        rejected: Sequence[Rejected] = (),
        warnings: Warnings | None = None,
    ) -> Prediction:
        """Predict rows of a store, which lies on the host, batch by batch."""
        ids, unseen = store.ids[rows.start : rows.stop], dict[int, str]()
        values, std = list[Tensor](), list[Tensor]()
        for start in range(0, len(rows), batch_size):
            batch = store.batch(
                torch.arange(rows.start + start, min(rows.start + start + batch_size, rows.stop))
            )
            for z, graph in _strangers(batch, self.elements):
                unseen.setdefault(z, ids[start + graph])
            batch = batch.to(self.device)
            if self.has_std:
                of_batch, deviation = self.network.with_std(batch)
                std.append(deviation)
            else:
                of_batch = self.network(batch)
            values.append(of_batch)
        deviations = torch.cat(std).cpu().numpy() if std else None
        return Prediction(
            ids, torch.cat(values).cpu().numpy(), deviations, unseen, list(rejected), warnings or {}
        )

    def _nothing(self) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        empty = np.empty((0, len(self.columns)), "f4")
        return empty, empty if self.has_std else None

    def __repr__(self) -> str:
        targets = ", ".join(map(with_unit, self.names, self.units))
        return f"Predictor({targets}; {len(self.elements)} elements)"


def _networks(model: Predictor) -> list[CrystalGraphNetwork]:
    """Of an ensemble its members, whose own deviations are kept, unlike the ensemble's scale."""
    members = model.network.members if isinstance(model.network, Ensemble) else [model.network]
    return [cast(CrystalGraphNetwork, member) for member in members]


def _network(
    config: Mapping[str, Any], n_outputs: Sequence[int], state: Mapping[str, Tensor]
) -> CrystalGraphNetwork | Ensemble:
    """The network of a configuration, which may ask for any size, with the weights `state`."""
    if not n_outputs:
        raise ValueError("it has no targets")
    if bad := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{bad[0]} is not finite: the training had diverged")
    with torch.device(
        "meta"
    ):  # nothing is allocated before names and shapes are known to be those of the weights
        members = [build_network(config, n_outputs) for _ in range(config.get("ensemble", 1))]
        network = members[0] if len(members) == 1 else Ensemble(members)
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    weights = {
        name: tensor.to(dtypes.get(name, tensor.dtype)).contiguous()
        for name, tensor in state.items()
    }
    network.load_state_dict(weights, assign=True)
    return network


@torch.inference_mode()
def _try_out(network: CrystalGraphNetwork | Ensemble, n_global: int) -> None:
    """Predict one atom with one neighbor: what fails here would fail for every crystal."""
    one, first = torch.ones(1), torch.zeros(1, dtype=torch.long)
    edge_index = first.expand(2, 1)
    network.eval()(
        GraphBatch(first + 1, one, first, edge_index, one, one, torch.zeros(1, n_global), 1)
    )


def checkpoint_paths(given: "str | Path | Sequence[str | Path]") -> list[Path]:
    """The files that paths and patterns such as `runs/*/checkpoints/best.ckpt` stand for.

    Raises:
        UserError: no file matches a pattern.
    """
    found: list[Path] = []
    for path in [given] if isinstance(given, str | Path) else given:
        whole = Path(path).expanduser()
        is_pattern = glob.has_magic(str(whole)) and not whole.exists()
        matches = (
            sorted(map(Path, glob.glob(str(whole), recursive=True))) if is_pattern else [whole]
        )
        if not matches:
            raise UserError(f"ckpt={path}: no file matches it")
        found += matches
    if not found:
        raise UserError("ckpt=[]: expected a checkpoint, or several")
    return found


def _difference(one: Predictor, other: Predictor) -> str:
    """What keeps two models from answering the same question about the same graphs, or nothing."""
    if one.names != other.names:
        return f"targets ({', '.join(one.names)} and {', '.join(other.names)})"
    ours, theirs = (
        {f"graph.{key}": value for key, value in asdict(model.graph).items()}
        | {
            f"{target.name}.{key}": value
            for target in model.targets
            for key, value in asdict(target).items()
        }
        for model in (one, other)
    )
    return ", ".join(f"{key} ({a} and {b})" for key, a, b in _differing(ours, theirs))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(key, one[key], other[key]) for key in one if one[key] != other[key]]


def _common_split(members: Sequence[Predictor]) -> dict[str, list[str]] | None:
    """What trained any of the members is train; of the other parts, what is in them for all members."""
    splits = [member.split for member in members if member.split]
    if len(splits) < len(members):
        return None
    trained = dict.fromkeys(id_ for split in splits for id_ in split["train"])
    others = {
        part: set.intersection(*(set(split.get(part, ())) for split in splits))
        for part in splits[0]
    }
    common = {part: [id_ for id_ in splits[0][part] if id_ in ids] for part, ids in others.items()}
    return {**common, "train": [*trained]}


def _strangers(batch: GraphBatch, known: set[int]) -> Iterator[tuple[int, int]]:
    """Atomic numbers that are not `known`, each with the position of a crystal that has it, the first ones first."""
    is_known = torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.bool)
    is_known[list(known)] = True
    strange = ~is_known[batch.atomic_number]
    yield from zip(
        batch.atomic_number[strange].tolist(), batch.graph_index[strange].tolist(), strict=True
    )
