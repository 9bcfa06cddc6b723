"""`csgcnn build`: build the graphs of a data set in a folder, to train on or to predict."""

import logging
from dataclasses import replace

from omegaconf import DictConfig

from csgcnn.commands.counting import counted
from csgcnn.commands.outputs import check_parent
from csgcnn.commands.prepare import dataset_settings, plain, read_options
from csgcnn.commands.site_features import pin_site_features
from csgcnn.commands.structures import exit_code, write_reports
from csgcnn.config.paths import data_path, user_path
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.data.cache import build_or_wait, check_options, content_key, store_plan
from csgcnn.data.record_reports import RecordReports
from csgcnn.errors import UserError
from csgcnn.io import writing

log = logging.getLogger(__name__)


def build(cfg: DictConfig) -> int:
    """Build the graphs, or resume building them.

    Returns:
        The exit code: 1 if records were rejected and dataset.on_error is not skip.

    Raises:
        UserError: The output exists, or cannot be written.
    """
    pin_site_features(cfg)
    output, settings = user_path(cfg.output), GraphSettings(**plain(cfg.graph))
    if output.exists():
        raise UserError(f"output={output} exists; choose another folder, or remove it")
    check_parent(output)
    path = data_path(cfg.dataset.path, cfg.dataset.hint)
    options = read_options(dataset_settings(cfg))
    check_options(path, options, "dataset.")
    # The name identifies data and settings, so that an interrupted build is resumed only for them.
    unfinished = output.with_name(f".{output.name}.{content_key(path, settings, options)}")
    with counted("building graphs") as count, writing(output):
        plan = store_plan(path, settings, options, workers=cfg.workers)
        store, rejected, warnings = build_or_wait(replace(plan, progress=count), unfinished)
        unfinished.rename(output)
    log.info("%d crystals, %.3g MB of graphs: %s", len(store), store.n_bytes / 1e6, output)
    write_reports(rejected, warnings, (), RecordReports.beside(output), "record")
    return exit_code(rejected, cfg.dataset.on_error)
