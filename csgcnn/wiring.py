"""What several commands make from their configuration: a data set, a network, a device."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from csgcnn.config import build, data_path, user_path
from csgcnn.crystals.datasets import check_labelled
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.graphs import GraphSettings
from csgcnn.data.cache import open_dataset
from csgcnn.data.dataset import Dataset, check_rejected, select_targets
from csgcnn.data.store import GraphStore, is_store
from csgcnn.data.targets import Target, check_names, derive_columns, describe_targets
from csgcnn.errors import ConfigError
from csgcnn.machine import cores, keep_freed_memory, launch
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.schemas import DatasetConfig
from csgcnn.training.losses import MultiTask, balanced_class_weights

log = logging.getLogger(__name__)


def load_dataset(
    options: DatasetConfig,
    graph: GraphSettings,
    report: Path,
    workers: int | None = None,
    progress: bool = True,
    targets: Sequence[Target] | None = None,
) -> Dataset:
    """Open the data set that the group `dataset` describes; rejected records are written to `report`.

    `targets`: those of a trained model, in place of those that `dataset` names.

    Raises:
        UserError: it cannot be read, a target does not exist, or records were rejected that may not be skipped.
    """
    path = data_path(options.path, options.hint)
    if not is_store(path):
        check_labelled(path)
    with tqdm(desc="building graphs", unit="crystal", delay=1, disable=None if progress else True) as bar:
        cache_folder = user_path(options.cache_dir) if options.cache_dir else None
        store, rejected = open_dataset(
            path, graph, options.id_column, options.structure_column, cache_folder, workers, bar.update
        )
    learned = {target.name: target.derived for target in targets or () if target.derived}
    absent = {name: comparison for name, comparison in learned.items() if name not in store.columns}
    derive_columns(store, {**absent, **options.derived}, path)
    if targets is None:
        names, tasks, units, derived = options.targets, options.tasks, options.units, options.derived
        targets = describe_targets(store, names, tasks, units, derived, path)
    dataset = select_targets(store, targets, rejected, path)
    check_rejected(dataset, path, options.on_error, report)
    if isolated := sum(int((block.n_isolated > 0).sum()) for block in store.blocks()):
        log.warning("%d crystals have atoms without a neighbour within %g Å; they are kept", isolated, graph.cutoff)
    return dataset


def place(store: GraphStore, device: torch.device, resident_gib: float | None = None) -> GraphStore:
    """Have the graphs in the memory of the device, or leave them in their files if they take more than `resident_gib`.

    None: 1 GiB on the CPU, half of the memory of a GPU.
    """
    if resident_gib is None:
        on_gpu = device.type == "cuda"
        resident_gib = torch.cuda.get_device_properties(device).total_memory / 2**31 if on_gpu else 1.0
    gib = store.n_bytes / 2**30
    if gib > resident_gib:
        log.info("%.1f GiB of graphs stay in their files (trainer.resident_gib=%.3g)", gib, resident_gib)
    return store.to(device, resident=gib <= resident_gib)


def build_model(config: Mapping[str, Any], n_outputs: Sequence[int]) -> CrystalGraphNetwork:
    """Make the network that the groups model, node_features, edge_calculator, pooling and graph describe.

    `n_outputs` per target: 1 for a number, the number of classes for a class.
    """
    parts = {name: build(config[name]) for name in ("node_features", "edge_calculator", "pooling")}
    n_global = len(descriptor_names(GraphSettings(**config["graph"]).global_features))
    return build(config["model"], **parts, n_outputs=n_outputs, n_global=n_global)


def build_loss(config: Mapping[str, Any], targets: Sequence[Target], train: Tensor) -> MultiTask:
    """Make what training minimises from the group loss, the weights in dataset and the labels `train` of its rows.

    Shapes: train [n_rows, n_targets], NaN where missing.

    Raises:
        ConfigError: a weight is given for what is no target.
    """
    options = config["dataset"]
    check_names("dataset.task_weights", options["task_weights"], [target.name for target in targets])
    is_balanced = options["class_weights"] == "balanced"
    return MultiTask(
        build(config["loss"]),
        [target.n_outputs for target in targets],
        [options["task_weights"].get(target.name, 1.0) for target in targets],
        [
            balanced_class_weights(column, target.n_outputs)
            if is_balanced and target.classes
            else torch.ones(target.n_outputs)
            for target, column in zip(targets, train.unbind(1), strict=True)
        ],
        config["trainer"]["learn_task_weights"],
    )


def select_device(name: str, threads: int | None = None, deterministic: bool = False) -> torch.device:
    """The device to run on; `auto` is the GPU where there is one, `cuda` this process's among those of its node.

    `threads` of the CPU; None: the cores that this process has for itself.

    `deterministic`: of several algorithms the GPU takes one that always gives the same bytes, as the CPU always does.

    Raises:
        ConfigError: there is no such device.
    """
    torch.set_num_threads(threads or min(cores(), torch.get_num_threads()))
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(deterministic)
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", launch().local_rank % torch.cuda.device_count())
            torch.cuda.set_device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: {str(error).splitlines()[0]}") from error
    return device
