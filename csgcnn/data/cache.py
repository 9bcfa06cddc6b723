"""A cache of graphs: built once per data set and settings, shared by all runs."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.datasets import (
    find_reader,
    iter_records,
    reader_version,
    source_files,
)
from csgcnn.crystals.graph_builder import GraphPlan, build_graphs
from csgcnn.crystals.records import COLUMN_OPTIONS, DEFAULT_OPTIONS, ReadOptions
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.data.shards import (
    WARNINGS,
    Builder,
    OpenedDataset,
    StorePlan,
    build_store,
    pack_store,
    read_rejected,
    read_warnings,
    shards_folder,
)
from csgcnn.data.store import GraphStore, made_by_user, open_store
from csgcnn.data.store_files import FORMAT, FORMAT_WITHOUT_WARNINGS, is_store, reading
from csgcnn.errors import ConfigError, first_line
from csgcnn.io import exclusive_when_free, file_digest, read_json

log = logging.getLogger(__name__)

BUILT = "a folder of built graphs"


def default_cache_folder() -> Path:
    """Return `$CSGCNN_CACHE`, or `csgcnn` in the cache folder of the user.

    Raises:
        OSError: The user has no home folder, as in some containers.
    """
    if given := os.environ.get("CSGCNN_CACHE"):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csgcnn"
    except RuntimeError as error:
        raise OSError(f"{first_line(error)} Set CSGCNN_CACHE to a folder") from error


def open_dataset(
    path: Path,
    settings: GraphSettings,
    options: ReadOptions = DEFAULT_OPTIONS,
    cache_folder: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
    builder: Builder = build_graphs,
) -> OpenedDataset:
    """Return the graphs of a data set from the cache, building them if necessary.

    The cache key is the bytes of the data, the graph settings, the reading options and the format
    version, see `content_key`. If several processes need the same graphs, one builds them and the
    others wait. A data set that is a store is opened without the cache. If the cache cannot be
    written, a warning is logged and the graphs stay in memory.

    Args:
        path: A data file, a folder of structure files, or a store.
        settings: How the graphs are made.
        options: Columns of the ids and the structures.
        cache_folder: The cache; None for `default_cache_folder()`.
        workers: Number of processes; None for one per core.
        progress: Called with the number of records that were just finished.
        builder: Builds the graphs.

    Raises:
        UserError: The data cannot be read, or no record can be used.
        ConfigError: The data set is a store with other graph settings, or an option has no effect.
    """
    check_options(path, options, "dataset.")
    if is_store(path):
        if cache_folder is not None:
            raise ConfigError(f"dataset.cache_dir has no effect on {path} ({BUILT}); omit it")
        return _open_built(path, settings)
    key = content_key(path, settings, options)
    plan = store_plan(path, settings, options, cache_folder, workers)
    plan = replace(plan, progress=progress, builder=builder)
    folder = None
    try:
        folder = (cache_folder or default_cache_folder()) / key
        if folder.exists():
            # Damaged graphs are reported by the process that builds them again.
            with suppress(ValueError):
                return _load(folder, settings)
        return build_or_wait(plan, folder)
    except OSError as error:
        log.warning("the graphs are not cached: %s", error)
        if folder:
            shutil.rmtree(shards_folder(folder), ignore_errors=True)
    return pack_store([*plan.chunks()], plan)


def store_plan(
    path: Path,
    settings: GraphSettings,
    options: ReadOptions = DEFAULT_OPTIONS,
    cache_folder: Path | None = None,
    workers: int | None = None,
) -> StorePlan:
    """Return how the store of a data set is built.

    Args:
        path: A data file, or a folder of structure files.
        settings: How the graphs are made.
        options: How its records are read.
        cache_folder: The cache, where site features are looked up; None for the default folder.
        workers: Number of processes; None for one per core.
    """
    if cache_folder is None:
        with suppress(OSError):
            cache_folder = default_cache_folder()
    site_cache = cache_folder and cache_folder / "site_features"
    graphs = GraphPlan(
        settings,
        workers,
        options.formula_mismatch,
        site_cache,
        prototypes=options.prototypes,
    )
    return StorePlan(partial(iter_records, path, options), path, graphs)


def check_options(path: Path, options: ReadOptions, section: str = "") -> None:
    """Check that reading a data set depends on the options that the user gave.

    Args:
        path: A data file, a folder of structure files, or a store, which depends on none.
        options: Options that differ from the default.
        section: What precedes the names of the keys in the message.

    Raises:
        ConfigError: It does not depend on one of them.
    """
    given, defaults = asdict(options), asdict(DEFAULT_OPTIONS)
    names, reader = [name for name in given if given[name] != defaults[name]], find_reader(path)
    # Built graphs have the vectors that were kept when they were built.
    names = [name for name in names if name != "vectors"]
    kind = BUILT
    if not is_store(path):
        kind = reader.name if reader else ""
        read = getattr(reader, "columns_read", COLUMN_OPTIONS)
        names = [name for name in names if name in COLUMN_OPTIONS and name not in read]
    for name in names:
        raise ConfigError(f"{section}{name} has no effect on {path} ({kind}); omit it")


def build_or_wait(plan: StorePlan, folder: Path) -> OpenedDataset:
    """Build a store and load it, or wait until another process has built it.

    A damaged store is reported and built again.

    Args:
        plan: What to build, and how.
        folder: The store to make.

    Raises:
        UserError: No record can be used.
        OSError: The folder cannot be written.
    """
    with _alone(folder):
        if folder.exists():
            try:
                return _load(folder, plan.graphs.settings)
            except ValueError as error:
                log.warning("the cached graphs are damaged and are built again (%s)", error)
                shutil.rmtree(folder)
        build_store(plan, folder)
    return _load(folder, plan.graphs.settings)


def content_key(path: Path, settings: GraphSettings, options: ReadOptions) -> str:
    """Return the name of the cached graphs of a data set.

    Args:
        path: A data file or a folder of structure files.
        settings: How the graphs are made.
        options: Columns of the ids and the structures.

    Returns:
        The name of the data set, and a SHA-256 of the store format, the arguments, the version of
        the reader and the bytes of all files that are read.
    """
    read = asdict(options)
    if not options.prototypes:
        # The key of graphs that were built before the options existed.
        del read["prototypes"]
    if not options.vectors:
        del read["vectors"]
    key = [FORMAT, asdict(settings), read]
    key += filter(None, [reader_version(path)])
    digest = hashlib.sha256(json.dumps(key).encode())
    folder = path if path.is_dir() else path.parent
    for file in source_files(path, options):
        digest.update(f"{os.path.relpath(file, folder)}\0{file_digest(file)}\0".encode())
    return f"{path.name.split('.')[0]}-{digest.hexdigest()[:16]}"


def known_warnings(folder: Path) -> list[StructureNote]:
    """Read the warnings about the structures of a store that a user made.

    Stores of older formats have none: this is logged, with the command that builds them again.

    Args:
        folder: Folder of the store.

    Raises:
        UserError: The list is damaged.
    """
    if read_json(folder / "meta.json")["format"] == FORMAT_WITHOUT_WARNINGS:
        log.warning(
            "%s was built by an older version; warnings about its structures are not known. Build "
            "it again: csgcnn build dataset.path=DATA output=FOLDER",
            folder,
        )
        return []
    if not (folder / WARNINGS).exists():
        # `GraphStore.save` writes no such list.
        return []
    with made_by_user():
        return read_warnings(folder)


def _open_built(folder: Path, settings: GraphSettings) -> OpenedDataset:
    """Open a store that `csgcnn build` made."""
    store = open_store(folder)
    if store.settings != settings:
        wanted, found = asdict(settings), asdict(store.settings)
        overrides = " ".join(
            f"graph.{name}={json.dumps(found[name])}"
            for name in wanted
            if wanted[name] != found[name]
        )
        raise ConfigError(
            f"{folder} holds graphs with other settings; add {overrides}, or build other graphs"
        )
    with made_by_user():
        rejected = read_rejected(folder)
    return OpenedDataset(store, rejected, known_warnings(folder))


def _load(folder: Path, settings: GraphSettings) -> OpenedDataset:
    store = GraphStore.load(folder)
    with reading(folder / "meta.json"):
        if store.settings != settings:
            raise ValueError(f"holds graphs of {store.settings}")
    return OpenedDataset(store, read_rejected(folder), read_warnings(folder))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from building the same store, where the file system has locks."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}.lock")
    with ExitStack() as stack:
        # Without locks every process builds the store, and the first one to finish wins.
        with suppress(NotImplementedError):
            message = "waiting for another process that builds these graphs"
            stack.enter_context(exclusive_when_free(path, lambda: log.info(message)))
        try:
            yield
        finally:
            # A process that holds the removed file finds the store, or builds it once more.
            with suppress(OSError):
                path.unlink()
