"""What several commands make from their configuration: a data set, a network, a device."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from csgcnn.config.paths import data_path, user_path
from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.datasets import check_labeled
from csgcnn.crystals.records import ReadOptions
from csgcnn.data.cache import open_dataset
from csgcnn.data.dataset import Dataset, check_rejected, select_targets
from csgcnn.data.store import GraphStore, is_store
from csgcnn.data.targets import Target, derive_columns, describe_targets

log = logging.getLogger(__name__)


def load_dataset(
    options: DatasetSettings,
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
        check_labeled(path)
    with tqdm(
        desc="building graphs", unit="crystal", delay=1, disable=None if progress else True
    ) as bar:
        cache_folder = user_path(options.cache_dir) if options.cache_dir else None
        store, rejected = open_dataset(
            path,
            graph,
            ReadOptions(options.id_column, options.structure_column),
            cache_folder,
            workers,
            bar.update,
        )
    learned = {target.name: target.derived for target in targets or () if target.derived}
    absent = {name: comparison for name, comparison in learned.items() if name not in store.columns}
    derive_columns(store, {**absent, **options.derived}, path)
    if targets is None:
        names, tasks, units, derived = (
            options.targets,
            options.tasks,
            options.units,
            options.derived,
        )
        targets = describe_targets(store, names, tasks, units, derived, path)
    dataset = select_targets(store, targets, rejected, path)
    check_rejected(dataset, path, options.on_error, report)
    if isolated := sum(int((block.n_isolated > 0).sum()) for block in store.blocks()):
        log.warning(
            "%d crystals have atoms without a neighbor within %g Å; they are kept",
            isolated,
            graph.cutoff,
        )
    return dataset


def move_to_device(
    store: GraphStore, device: torch.device, resident_gib: float | None = None
) -> GraphStore:
    """Have the graphs in the memory of the device, or leave them in their files if they take more than `resident_gib`.

    None: 1 GiB on the CPU, half of the memory of a GPU.
    """
    if resident_gib is None:
        on_gpu = device.type == "cuda"
        resident_gib = (
            torch.cuda.get_device_properties(device).total_memory / 2**31 if on_gpu else 1.0
        )
    gib = store.n_bytes / 2**30
    if gib > resident_gib:
        log.info(
            "%.1f GiB of graphs stay in their files (trainer.resident_gib=%.3g)", gib, resident_gib
        )
    return store.to(device, resident=gib <= resident_gib)
