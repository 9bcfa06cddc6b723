"""Build what a configuration describes: settings, data set, split, network and trainer."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from csgcnn import distributed
from csgcnn.commands.counting import counted
from csgcnn.config.instantiate import instantiate
from csgcnn.config.paths import data_path, user_path
from csgcnn.config.settings.dataset import DatasetSettings, SplitSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.plot import PlotSettings
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.crystals.checks import FormulaMismatch
from csgcnn.crystals.datasets import check_labeled
from csgcnn.crystals.records import ReadOptions
from csgcnn.data.augment import Augmentations
from csgcnn.data.cache import OpenedDataset, open_dataset
from csgcnn.data.dataset import Dataset, check_rejected, select_targets
from csgcnn.data.derived import derive_columns
from csgcnn.data.fidelities import known_fidelities, spread_fidelities
from csgcnn.data.inputs import Input, check_inputs, describe_inputs, read_columns
from csgcnn.data.label_checks import check_labels
from csgcnn.data.record_reports import RecordReports, report_warnings
from csgcnn.data.split_files import CALIBRATION
from csgcnn.data.splits import Split, split_dataset
from csgcnn.data.store import GraphStore
from csgcnn.data.store_files import is_store
from csgcnn.data.targets import Target, describe_targets, output_sizes
from csgcnn.errors import ConfigError, UserError
from csgcnn.evaluation.conformal import check_calibration
from csgcnn.hardware import select_device
from csgcnn.nn.build import build_network
from csgcnn.training.kernel_fit import check_kernel_head
from csgcnn.training.losses import build_loss
from csgcnn.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The data of a run, ready to train on.

    Attributes:
        trainer: Settings of the training.
        device: Device of the run.
        dataset: Graphs on the host, with targets and values.
        split: Rows of train, val and test.
        store: The graphs where the training reads them.
        plot: Settings of the figures; None: no figures.
    """

    trainer: TrainerSettings
    device: torch.device
    dataset: Dataset
    split: Split
    store: GraphStore
    plot: PlotSettings | None

    @property
    def batch_size(self) -> int:
        """Rows of a batch without gradients."""
        return 4 * self.trainer.batch_size

    def on_all_rows(self) -> "Prepared":
        """Return the data with the validation rows among the training rows."""
        train, val = self.split["train"], self.split["val"]
        return replace(self, split={**self.split, "train": torch.cat([train, val]), "val": val[:0]})


def prepare(cfg: DictConfig, reports: RecordReports) -> Prepared:
    """Select the device, read the data set, split it and place the graphs.

    Args:
        cfg: Configuration of a training.
        reports: Files that list rejected records and warnings.

    Raises:
        UserError: The data cannot be used; every rank raises what one met.
    """
    trainer = TrainerSettings(**plain(cfg.trainer))
    device = select_device(trainer.device, trainer.threads, trainer.deterministic)

    def read() -> tuple[Dataset, Split]:
        dataset = read_dataset(cfg, reports)
        split = split_dataset(dataset, dataset_settings(cfg).split)
        check_labels(dataset.values[split["train"]], dataset.targets)
        check_inputs(dataset.store, dataset.inputs, split["train"])
        if CALIBRATION in split:
            check_calibration(dataset.values[split[CALIBRATION]], dataset.targets)
        if dataset.weights is not None and not dataset.weights[split["train"]].any():
            raise UserError(f"all training rows have the weight 0 in {cfg.dataset.weight_column}")
        if not len(split["val"]):
            _check_without_validation(trainer, str(cfg.scheduler.get("_target_")))
        return dataset, split

    dataset, split = distributed.run_on_all_ranks(read)
    store = move_to_device(dataset.store, device, trainer.resident_gib)
    plot = PlotSettings(**plain(cfg.plot)) if trainer.figures else None
    return Prepared(trainer, device, dataset, split, store, plot)


def _check_without_validation(trainer: TrainerSettings, scheduler: str) -> None:
    """Check that nothing depends on validation rows, of which there are none."""
    key = f"trainer.patience={trainer.patience}" if trainer.patience else ""
    key = "trainer.refit=true" if trainer.refit else key
    key = "scheduler=plateau" if scheduler.endswith(".plateau") else key
    if key:
        raise ConfigError(
            f"{key} needs validation rows, and there are none: omit it, or give "
            "dataset.split.val=0.1"
        )


def read_dataset(cfg: DictConfig, reports: RecordReports) -> Dataset:
    """Read the data set of a training.

    Args:
        cfg: Configuration of a training.
        reports: Files that list rejected records and warnings.
    """
    graph, trainer = GraphSettings(**plain(cfg.graph)), cfg.trainer
    settings = dataset_settings(cfg)
    return load_dataset(settings, graph, reports, trainer.workers, trainer.progress)


def build_trainer(cfg: DictConfig, data: Prepared) -> Trainer:
    """Build the network, the loss and all else that trains it.

    Args:
        cfg: Configuration of a training.
        data: Its data.
    """
    dataset, split = data.dataset, data.split
    sizes = output_sizes(dataset.targets)
    network = build_network(cfg, sizes, [len(one.categories) for one in dataset.inputs])
    if head := network.kernel_head:
        of_head = data.on_all_rows().split if data.trainer.refit else split
        distributed.run_on_all_ranks(lambda: check_kernel_head(head, dataset, of_head))
    loss = build_loss(cfg, dataset.targets, dataset.values[split["train"]])
    return Trainer(
        network,
        dataset,
        split,
        loss,
        instantiate(cfg.optimizer),
        instantiate(cfg.scheduler),
        data.trainer,
        Augmentations(instantiate(cfg.augment)),
    )


def load_dataset(
    settings: DatasetSettings,
    graph: GraphSettings,
    reports: RecordReports,
    workers: int | None = None,
    progress: bool = True,
    targets: Sequence[Target] | None = None,
    inputs: Sequence[Input] = (),
) -> Dataset:
    """Read a data set: its graphs, from the cache if they are there, and its targets.

    Args:
        settings: The data set.
        graph: How its crystals become graphs.
        reports: Files that list rejected records and warnings.
        workers: Processes that build graphs; None: one per core.
        progress: Whether to show progress.
        targets: Targets of a trained model, which replace those of the settings.
        inputs: Its inputs beside the structure, likewise.

    Raises:
        UserError: The data cannot be read, a target does not exist, or rejected records may not
            be left out.
    """
    path = data_path(settings.path, settings.hint)
    if not is_store(path):
        check_labeled(path)
    if targets is not None:
        settings = replace(settings, grid={one.name: one.grid for one in targets if one.grid})
    store, rejected, warnings = open_graphs(settings, graph, workers, progress)
    learned = {target.name: target.derived for target in targets or () if target.derived}
    absent = {name: formula for name, formula in learned.items() if name not in store.columns}
    failed = derive_columns(store, {**absent, **settings.derived}, path)
    weight_column = settings.weight_column if targets is None else None
    if targets is None and settings.fidelities:
        # the last fidelity names the target
        settings = replace(
            settings, targets=settings.targets or [*settings.fidelities.values()][-1:]
        )
        fidelities, names = settings.fidelities, settings.targets
    else:
        fidelities, names = known_fidelities(store, inputs), [one.name for one in targets or ()]
    if fidelities:
        store, failed = spread_fidelities(store, fidelities, names or (), path), {}
    if targets is None:
        targets = describe_targets(store, settings, path)
        inputs = describe_inputs(store, settings, path)
    read_columns(store, targets, inputs, path)
    dataset = select_targets(store, targets, rejected, path, failed, weight_column)
    dataset = replace(dataset, inputs=inputs)
    report_warnings(warnings, reports.warnings)
    check_rejected(dataset, path, settings.on_error, reports.rejected, settings.max_rejected)
    return dataset


def open_graphs(
    settings: DatasetSettings,
    graph: GraphSettings,
    workers: int | None = None,
    progress: bool = True,
) -> OpenedDataset:
    """Return the graphs of a data set, from the cache if they are there.

    Args:
        settings: The data set.
        graph: How its crystals become graphs.
        workers: Processes that build graphs; None: one per core.
        progress: Whether to show progress.

    Raises:
        UserError: The data cannot be read.
    """
    path, options = data_path(settings.path, settings.hint), read_options(settings)
    if settings.split.method == "leave_prototype" and not is_store(path):
        options = replace(options, prototypes=True)
    with counted("building graphs", progress) as count:
        return open_dataset(
            path,
            graph,
            options,
            user_path(settings.cache_dir) if settings.cache_dir else None,
            workers,
            count,
        )


def move_to_device(
    store: GraphStore, device: torch.device, resident_gib: float | None = None
) -> GraphStore:
    """Copy the graphs to the device, or leave them in their files if they are too large.

    Args:
        store: The graphs.
        device: Device that computes.
        resident_gib: Largest size of graphs in memory, in GiB. None: 1 on the CPU, half of the
            memory of a GPU.
    """
    if resident_gib is None:
        resident_gib = 1.0
        if device.type == "cuda":
            resident_gib = torch.cuda.get_device_properties(device).total_memory / 2**31
    gib = store.n_bytes / 2**30
    if gib > resident_gib:
        log.info("%.1f GiB of graphs stay in files (trainer.resident_gib=%.3g)", gib, resident_gib)
    return store.to(device, resident=gib <= resident_gib)


def dataset_settings(cfg: DictConfig) -> DatasetSettings:
    """Return the section `dataset` of a configuration."""
    keys = plain(cfg.dataset)
    return DatasetSettings(**{**keys, "split": SplitSettings(**keys["split"])})


def read_options(settings: DatasetSettings) -> ReadOptions:
    """Return how the records of a data set are read."""
    return ReadOptions(
        settings.id_column,
        settings.structure_column,
        None if settings.columns is None else tuple(settings.columns),
        formula_mismatch=cast(FormulaMismatch, settings.formula_mismatch),
        prototypes=settings.prototypes,
        vectors=tuple(sorted(settings.grid)),
    )


def plain(node: DictConfig) -> dict[str, Any]:
    """Return a node of a configuration as dicts, lists and values."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
