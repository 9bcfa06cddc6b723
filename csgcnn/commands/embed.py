"""`csgcnn embed`: write the vectors of crystals, and a map of them."""

import html
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from csgcnn.commands.counting import counted
from csgcnn.commands.prepare import plain
from csgcnn.commands.structures import (
    check_outputs,
    exit_code,
    folder_of_graphs,
    listed,
    load_model,
    structure_options,
    write_reports,
)
from csgcnn.config.paths import user_path
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.graph_builder import GraphPlan
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.data.cache import check_options, known_warnings
from csgcnn.data.given_inputs import given_values
from csgcnn.data.record_reports import RecordReports
from csgcnn.data.record_stores import stores_of
from csgcnn.data.store import open_store
from csgcnn.data.targets import Target, with_unit
from csgcnn.errors import plural
from csgcnn.evaluation.embedding_map import (
    NAMES,
    check_method,
    chemistry,
    map_coordinates,
    write_map,
)
from csgcnn.io import format_cell, replacing, write_csv
from csgcnn.predictor import Predictor
from csgcnn.runs.predictions import NEAREST_ID, NEAREST_NUMBERS, warning_lines
from csgcnn.screening.embedding import Chunk, Embedding, embed_chunks
from csgcnn.screening.table_files import write_frame

log = logging.getLogger(__name__)

FORMATS = (".npz", ".parquet")
# Ends of the names of files beside the vectors.
SITES, MAP, PAGE = ".sites.parquet", ".map.csv", ".map.html"


def embed(cfg: DictConfig) -> int:
    """Embed all usable structures and write their vectors.

    Returns:
        The exit code: 1 if nothing was embedded, or if structures were rejected and on_error is
        not skip.

    Raises:
        UserError: The checkpoints or the structures cannot be used.
        ConfigError: The output exists, or a package is not installed.
    """
    output = user_path(cfg.output)
    if cfg.map:
        check_method(cfg.map)
    others = [SITES] * (cfg.sites and output.suffix == ".parquet") + [MAP, PAGE] * bool(cfg.map)
    reports = check_outputs(cfg, output, FORMATS, [*map(output.with_suffix, others)])
    predictor = load_model(cfg)
    embedding = read_and_embed(predictor, cfg, reports)
    if not embedding.ids:
        log.error("no structure was embedded, and nothing is written")
        return 1
    _write_vectors(embedding, output, cfg.sites)
    if cfg.map:
        _write_map(embedding, predictor.targets, cfg.map, output)
    n_features = embedding.vectors.shape[1]
    n_structures = plural(len(embedding.ids), "structure")
    log.info("%s as vectors of %d numbers: %s", n_structures, n_features, output)
    return exit_code(embedding.prediction.rejected, cfg.on_error)


def read_and_embed(predictor: Predictor, cfg: DictConfig, reports: RecordReports) -> Embedding:
    """Read structures, or a folder of built graphs, and embed them; list rejected ones.

    Args:
        predictor: The model.
        cfg: Configuration of the command.
        reports: Lists of rejected structures and warnings.
    """
    with counted("embedding") as count:

        def chunks() -> Iterator[Chunk]:
            for chunk in _chunks(predictor, cfg, listed(cfg.structures)):
                yield chunk
                count((0 if chunk[0] is None else len(chunk[0])) + len(chunk[1]))

        given = given_values(plain(cfg.inputs), predictor.input_columns)
        embedding = embed_chunks(
            predictor, chunks(), cfg.batch_size, bool(cfg.get("sites")), given=given
        )
    prediction = embedding.prediction
    write_reports(prediction.rejected, prediction.warnings, warning_lines(prediction), reports)
    return embedding


def _chunks(predictor: Predictor, cfg: DictConfig, sources: list[str]) -> Iterator[Chunk]:
    options = structure_options(cfg)
    if folder := folder_of_graphs(sources):
        check_options(folder, options)
        store = open_store(folder).to(predictor.device, resident=False)
        predictor.check_settings(store)
        yield store, [], known_warnings(folder)
        return
    plan = GraphPlan(predictor.graph, cfg.workers, cfg.formula_mismatch)
    columns = list(dict.fromkeys([*predictor.inputs, *predictor.names]))
    records = iter_structures(sources, options)
    for chunk, built in stores_of(records, plan, columns, predictor.device):
        yield built, chunk.rejected, chunk.warnings


def _write_vectors(embedding: Embedding, path: Path, with_sites: bool) -> None:
    """Write the vectors of crystals, and of their sites, as arrays (.npz) or tables (.parquet)."""
    cells = embedding.prediction.domain
    names = [name for name in (NEAREST_ID, *NEAREST_NUMBERS) if name in cells]
    columns = {"id": np.array(embedding.ids), **{name: np.array(cells[name]) for name in names}}
    sizes = [len(of_crystal) for of_crystal in embedding.sites]
    of_sites: dict[str, Any] = {}
    if with_sites:
        of_sites = {
            "site_id": np.repeat(columns["id"], sizes),
            "site": np.concatenate([np.arange(size) for size in sizes]),
            "element": np.array([SYMBOLS[z] for z in np.concatenate(embedding.site_elements)]),
        }
    if path.suffix == ".npz":
        arrays = {**columns, "vectors": embedding.vectors, **of_sites}
        if with_sites:
            arrays["site_vectors"] = np.concatenate(embedding.sites)
        with replacing(path) as file:
            np.savez_compressed(file, **arrays)
        return
    _write_parquet(path, columns, embedding.vectors)
    if with_sites:
        of_sites = {"id": of_sites.pop("site_id"), **of_sites}
        _write_parquet(path.with_suffix(SITES), of_sites, np.concatenate(embedding.sites))


def _write_parquet(path: Path, columns: dict[str, Any], vectors: np.ndarray) -> None:
    import pandas as pd

    features = {f"v{i}": vectors[:, i] for i in range(vectors.shape[1])}
    write_frame(path, pd.DataFrame({**columns, **features}))


def _write_map(embedding: Embedding, targets: list[Target], method: str, output: Path) -> None:
    """Write coordinates, predictions, known values and chemistry, and the page that shows them."""
    if len(embedding.ids) < 3:
        log.warning("no map: it needs at least 3 structures, and there are %d", len(embedding.ids))
        return
    xy = map_coordinates(embedding.standardized, method)
    colorings = _colorings(embedding, targets)
    rows = zip(embedding.ids, *xy.T.tolist(), *colorings.values(), strict=True)
    header = ["id", "x", "y", *colorings]
    path, page = output.with_suffix(MAP), output.with_suffix(PAGE)
    write_csv(path, header, rows)
    texts = [
        "<br>".join(
            [html.escape(id_), *(f"{html.escape(k)}: {format_cell(v)}" for k, v in of_row.items())]
        )
        for id_, *values in zip(embedding.ids, *colorings.values(), strict=True)
        for of_row in [dict(zip(colorings, values, strict=True))]
    ]
    # NaN and "" are unknown.
    known = {
        k: values for k, values in colorings.items() if any(v == v and v != "" for v in values)
    }
    title = f"{NAMES[method]} of {plural(len(embedding.ids), 'crystal')}"
    write_map(page, xy, texts, known, title)
    log.info("map: %s, coordinates: %s", page, path)


def _colorings(embedding: Embedding, targets: list[Target]) -> dict[str, list[Any]]:
    """Return known value, prediction and error of each target, and the chemistry."""
    found: dict[str, list[Any]] = {}
    first = 0
    for target in (target for target in targets if not target.grid):
        known, name = embedding.known[target.name], target.name
        values = embedding.prediction.values[:, first : first + target.n_outputs]
        first += target.n_outputs
        if target.classes:
            found[name] = ["" if value is None else str(value) for value in known]
            predicted = [target.classes[i] for i in values.argmax(1)]
            found[f"{name}_prediction"] = predicted
            pairs = zip(found[name], predicted, strict=True)
            found[f"{name}_error"] = ["" if not a else str(a != b).lower() for a, b in pairs]
        else:
            numbers = np.array([v if isinstance(v, int | float) else np.nan for v in known])
            found[with_unit(name, target.unit)] = numbers.tolist()
            found[with_unit(f"{name}_prediction", target.unit)] = values[:, 0].tolist()
            errors = (values[:, 0] - numbers).tolist()
            found[with_unit(f"{name}_error", target.unit)] = errors
    return found | {"chemistry": chemistry(embedding.elements)}
