"""`csgcnn explain`: write what sites, elements and edges contribute to predictions."""

import logging
from itertools import chain

from omegaconf import DictConfig

from csgcnn.commands.explanations import domain_lines, explain_records
from csgcnn.commands.outputs import check_folder
from csgcnn.commands.prepare import plain
from csgcnn.commands.structures import (
    exit_code,
    listed,
    load_model,
    structure_options,
    write_reports,
)
from csgcnn.config.paths import user_path
from csgcnn.crystals.site_values import write_extxyz
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.data.given_inputs import given_values
from csgcnn.data.record_reports import RecordReports
from csgcnn.data.store_files import is_store
from csgcnn.errors import ConfigError, plural
from csgcnn.io import writing
from csgcnn.runs.explanations import Explanations
from csgcnn.screening.table_files import check_format, write_frame

log = logging.getLogger(__name__)

TABLES = ("contributions", "elements", "edges")
STRUCTURES = "structures.extxyz"
FORMATS = ("csv", "parquet")
FILES = (*(f"{table}.{format_}" for table in TABLES for format_ in FORMATS), STRUCTURES)
# Crystals whose sums are logged.
N_SHOWN = 5


def explain(cfg: DictConfig) -> int:
    """Explain the predictions for all usable structures, and write tables and an xyz file.

    Returns:
        The exit code: 1 if nothing was explained, or if structures were rejected and on_error is
        not skip.

    Raises:
        UserError: The checkpoints or the structures cannot be used.
        ConfigError: The output exists, or parquet needs a package.
    """
    output = user_path(cfg.output)
    paths = [output / f"{table}.{cfg.format}" for table in TABLES]
    check_format(paths[0])
    check_folder(output, cfg.overwrite, FILES)
    sources = listed(cfg.structures)
    if stores := [source for source in sources if is_store(user_path(source))]:
        raise ConfigError(
            f"structures={stores[0]} holds built graphs, which have no atoms to show; give the "
            "structures that they were built from"
        )
    predictor = load_model(cfg)
    records = iter_structures(sources, structure_options(cfg))
    given = given_values(plain(cfg.inputs), predictor.input_columns)
    chunks = list(explain_records(predictor, records, given, cfg.batch_size, cfg.formula_mismatch))
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (output / name).unlink(missing_ok=True)
    rejected = [entry for chunk in chunks for entry in chunk.rejected]
    notes = [note for chunk in chunks for note in chunk.warnings]
    write_reports(rejected, notes, domain_lines(chunks), RecordReports.within(output))
    found = [one for chunk in chunks for one in chunk.explanations]
    if not found:
        log.error("no prediction was explained")
        return 1
    tables = Explanations.of(found, predictor.targets)
    for table, path in zip(TABLES, paths, strict=True):
        write_frame(path, getattr(tables, table))
    write_extxyz(output / STRUCTURES, tables.atoms)
    for line in chain.from_iterable(one.lines(predictor.targets) for one in found[:N_SHOWN]):
        log.info("%s", line)
    log.info("%s explained: %s", plural(len(found), "structure"), output)
    return exit_code(rejected, cfg.on_error)
