"""Build a data set's graphs once: a cache that is never stale, never half-written, and shared by every run."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from csgcnn.crystals.build import Built, Rejected, build_graphs, merge_warnings, warning_lines
from csgcnn.crystals.datasets import read_records, source_files
from csgcnn.crystals.graphs import CrystalGraphs, GraphSettings
from csgcnn.data.graph_files import naming
from csgcnn.data.store import FORMAT, GraphStore
from csgcnn.errors import UserError
from csgcnn.files import write_csv

log = logging.getLogger(__name__)

REJECTED = "rejected.json"

Progress = Callable[[int, int], None]  # (records just done, records in all)


def default_cache_folder() -> Path:
    """`$CSGCNN_CACHE`, else `csgcnn` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CSGCNN_CACHE") or Path(base) / "csgcnn")


def open_dataset(
    path: Path,
    settings: GraphSettings,
    id_column: str | None = None,
    structure_column: str | None = None,
    cache_folder: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[GraphStore, list[Rejected]]:
    """The data set's graphs, and the records that were rejected: from the cache, else built and cached.

    The cache key is the bytes of the data, the graph settings, the reading options and the format version. The store is
    written under a temporary name and renamed when complete; of two processes building the same, the first wins.

    Raises:
        UserError: the data set cannot be read, or no record of it can be used.
    """
    folder = (cache_folder or default_cache_folder()) / _key(path, settings, id_column, structure_column)
    if folder.exists():
        try:
            return _load(folder, settings)
        except ValueError as error:
            log.warning("the cached graphs are damaged and are built again (%s)", error)
            shutil.rmtree(folder, ignore_errors=True)
    records = read_records(path, id_column, structure_column)
    parts: list[Built] = []
    for built in build_graphs(records, settings, workers):
        parts.append(built)
        if progress:
            progress(len(built.records) + len(built.rejected), len(records))
    for line in warning_lines(merge_warnings(part.warnings for part in parts)):
        log.warning("%s", line)
    store, rejected = _pack(parts, settings, path)
    _save(store, rejected, folder)
    return store, rejected


def _load(folder: Path, settings: GraphSettings) -> tuple[GraphStore, list[Rejected]]:
    store = GraphStore.load(folder)
    with naming(folder / REJECTED) as path:
        rejected = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rejected, list) or any(list(map(type, entry)) != [str, str] for entry in rejected):
            raise ValueError("expected pairs of an id and a reason")
    with naming(folder / "meta.json"):
        if store.settings != settings:
            raise ValueError(f"holds graphs of {store.settings}")
    return store, [Rejected(*entry) for entry in rejected]


def _pack(parts: Sequence[Built], settings: GraphSettings, path: Path) -> tuple[GraphStore, list[Rejected]]:
    rejected = [entry for part in parts for entry in part.rejected]
    records = [record for part in parts for record in part.records]
    if not records:
        first = f"{rejected[0].id}: {rejected[0].reason}"
        raise UserError(f"{path}: none of its {len(rejected)} structures can be used; the first, {first}")
    names = dict.fromkeys(name for record in records for name in record.columns)
    columns = {name: [record.columns.get(name) for record in records] for name in names}
    graphs = CrystalGraphs.concatenate([part.graphs for part in parts if part.graphs is not None])
    return GraphStore(graphs, [record.id for record in records], columns, settings), rejected


def _key(path: Path, settings: GraphSettings, id_column: str | None, structure_column: str | None) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(settings), id_column, structure_column]).encode())
    folder = path if path.is_dir() else path.parent
    files = source_files(path, id_column, structure_column)
    for file in files:
        with open(file, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        name = "" if len(files) == 1 else os.path.relpath(file, folder)
        digest.update(f"{name}\0{content}\0".encode())
    return f"{path.name.split('.')[0]}-{digest.hexdigest()[:16]}"


def _save(store: GraphStore, rejected: Sequence[Rejected], folder: Path) -> None:
    """Write under a temporary name, then rename: readers see the whole store or none."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    except OSError as error:
        log.warning("the graphs are not cached: %s", error)
        return
    try:
        (temporary / REJECTED).write_text(json.dumps(rejected), encoding="utf-8")
        store.save(temporary)
        temporary.rename(folder)
    except OSError as error:
        if not folder.exists():  # else another process was first, with the same content
            log.warning("the graphs are not cached: %s", error)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """Write id and reason of every rejected record."""
    write_csv(path, Rejected._fields, rejected)
