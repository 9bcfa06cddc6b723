"""A data set's graphs: built once, in a cache that is never stale, never half-written, and shared by every run."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.datasets import iter_records, reader_version, source_files
from csgcnn.crystals.graph_builder import (
    Rejected,
    Warnings,
    build_graphs,
    merge_warnings,
    warning_lines,
)
from csgcnn.crystals.records import DEFAULT_OPTIONS, ReadOptions, Record
from csgcnn.data.shards import Progress, build_store, parts_of, read_rejected, store_of
from csgcnn.data.store import FORMAT, GraphStore, is_store, open_store
from csgcnn.data.store_files import naming
from csgcnn.errors import ConfigError
from csgcnn.io import exclusive_when_free, file_digest, write_csv

log = logging.getLogger(__name__)


def default_cache_folder() -> Path:
    """`$CSGCNN_CACHE`, else `csgcnn` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CSGCNN_CACHE") or Path(base) / "csgcnn")


def open_dataset(
    path: Path,
    settings: GraphSettings,
    options: ReadOptions = DEFAULT_OPTIONS,
    cache_folder: Path | None = None,
    workers: int | None = None,
    progress: Progress = lambda _: None,
) -> tuple[GraphStore, list[Rejected]]:
    """The data set's graphs, and the records that were rejected: from the cache, else built and cached.

    The cache key is the bytes of the data, the graph settings, the reading options and the format version. Of several
    processes that want the same, one builds and the others wait. A data set that is a store already needs no cache.

    Raises:
        UserError: the data set cannot be read, or no record of it can be used.
        ConfigError: it is a store of other graph settings.
    """
    if is_store(path):
        return _own_store(path, settings)
    folder = (cache_folder or default_cache_folder()) / content_key(path, settings, options)
    if folder.exists():
        with suppress(ValueError):  # damaged, which is told by who repairs it
            return _load(folder, settings)

    def records() -> Iterator[Record]:
        return iter_records(path, options)

    try:
        return build_or_wait(records, settings, folder, path, workers, progress)
    except OSError as error:
        log.warning("the graphs are not cached: %s", error)
        shutil.rmtree(parts_of(folder), ignore_errors=True)
    parts = []
    for built in build_graphs(records(), settings, workers):
        parts.append(built)
        progress(len(built.records) + len(built.rejected))
    _tell(merge_warnings(part.warnings for part in parts))
    return store_of(parts, settings, path)


def build_or_wait(
    records: Callable[[], Iterable[Record]],
    settings: GraphSettings,
    folder: Path,
    source: Path,
    workers: int | None = None,
    progress: Progress = lambda _: None,
) -> tuple[GraphStore, list[Rejected]]:
    """Build the store `folder` and open it, or wait until another process has built it.

    Raises:
        UserError: no record can be used, or ids are repeated.
        OSError: it cannot be written.
    """
    with _alone(folder):
        if folder.exists():
            try:
                return _load(folder, settings)
            except ValueError as error:
                log.warning("the cached graphs are damaged and are built again (%s)", error)
                shutil.rmtree(folder)
        _tell(build_store(records(), settings, folder, source, workers, progress))
    return _load(folder, settings)


def _own_store(folder: Path, settings: GraphSettings) -> tuple[GraphStore, list[Rejected]]:
    """A store that `csgcnn build` made."""
    store = open_store(folder)
    if store.settings != settings:
        wanted, found = asdict(settings), asdict(store.settings)
        differing = [
            f"graph.{name}={json.dumps(found[name])}"
            for name in wanted
            if wanted[name] != found[name]
        ]
        raise ConfigError(
            f"{folder} holds graphs of {' '.join(differing)}: give these words, or build other graphs"
        )
    return store, read_rejected(folder)


def _load(folder: Path, settings: GraphSettings) -> tuple[GraphStore, list[Rejected]]:
    store, rejected = GraphStore.load(folder), read_rejected(folder)
    with naming(folder / "meta.json"):
        if store.settings != settings:
            raise ValueError(f"holds graphs of {store.settings}")
    return store, rejected


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


def _tell(warned: Warnings) -> None:
    for line in warning_lines(warned):
        log.warning("%s", line)


def content_key(path: Path, settings: GraphSettings, options: ReadOptions) -> str:
    """The name of the graphs of a data set: its bytes, the graph settings, the reading options and the format."""
    key = [FORMAT, asdict(settings), options.id_column, options.structure_column]
    key += filter(None, [reader_version(path)])
    digest = hashlib.sha256(json.dumps(key).encode())
    folder = path if path.is_dir() else path.parent
    for file in source_files(path, options):
        digest.update(f"{os.path.relpath(file, folder)}\0{file_digest(file)}\0".encode())
    return f"{path.name.split('.')[0]}-{digest.hexdigest()[:16]}"


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """Write id and reason of every rejected record."""
    write_csv(path, Rejected._fields, rejected)
