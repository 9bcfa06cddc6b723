"""What several commands make from their configuration: a data set, a network, a device."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from csgcnn.config import build, data_path, user_path
from csgcnn.crystals.graphs import GraphSettings
from csgcnn.data.cache import open_dataset
from csgcnn.data.dataset import Dataset, check_rejected, select_targets
from csgcnn.errors import ConfigError
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.schemas import DatasetConfig

log = logging.getLogger(__name__)


def load_dataset(
    options: DatasetConfig, graph: GraphSettings, report: Path, workers: int | None = None, progress: bool = True
) -> Dataset:
    """Open the data set that the group `dataset` describes; rejected records are written to `report`.

    Raises:
        UserError: it cannot be read, a target does not exist, or records were rejected that may not be skipped.
    """
    path = data_path(options.path, options.hint)
    with tqdm(desc="building graphs", unit="crystal", delay=1, disable=None if progress else True) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        cache_folder = user_path(options.cache_dir) if options.cache_dir else None
        store, rejected = open_dataset(
            path, graph, options.id_column, options.structure_column, cache_folder, workers, advance
        )
    dataset = select_targets(store, options.targets, rejected, path)
    check_rejected(dataset, path, options.on_error, report)
    if isolated := int((store.graphs.n_isolated > 0).sum()):
        log.warning("%d crystals have atoms without a neighbour within %g Å; they are kept", isolated, graph.cutoff)
    return dataset


def build_model(config: Mapping[str, Any], n_targets: int) -> CrystalGraphNetwork:
    """Make the network that the groups model, node_features, edge_calculator and pooling describe."""
    parts = {name: build(config[name]) for name in ("node_features", "edge_calculator", "pooling")}
    return build(config["model"], **parts, n_targets=n_targets)


def select_device(name: str, threads: int | None = None) -> torch.device:
    """The device to run on; `auto` is the GPU where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: {str(error).splitlines()[0]}") from error
    return device
