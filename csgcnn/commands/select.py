"""`csgcnn select`: choose the structures to compute or measure next."""

import logging

from omegaconf import DictConfig

from csgcnn.commands.embed import read_and_embed
from csgcnn.commands.structures import check_outputs, exit_code, load_model
from csgcnn.config.paths import user_path
from csgcnn.errors import plural
from csgcnn.io import write_csv
from csgcnn.runs.predictions import IN_TRAINING, TRUE
from csgcnn.screening.acquisition import Rule, check_rule, choose, selected_table

log = logging.getLogger(__name__)


def select(cfg: DictConfig) -> int:
    """Choose structures and write them with their ranks and reasons.

    Returns:
        The exit code: 1 if nothing was chosen, or if structures were rejected and on_error is not
        skip.

    Raises:
        UserError: The checkpoints or the structures cannot be used.
        ConfigError: The rule needs another value, or the output exists.
    """
    rule = Rule(cfg.by, cfg.goal, cfg.best, cfg.beta, cfg.target)
    output = user_path(cfg.output)
    reports = check_outputs(cfg, output, (".csv",))
    predictor = load_model(cfg)
    check_rule(rule, predictor)
    embedding = read_and_embed(predictor, cfg, reports)
    chosen = choose(predictor, embedding, cfg.n, rule) if embedding.ids else []
    known = embedding.prediction.domain.get(IN_TRAINING, []).count(TRUE)
    if known:
        log.info("%s of the training set left out", plural(known, "crystal"))
    if not chosen:
        log.error("no structure was chosen, and no table is written")
        return 1
    header, rows = selected_table(predictor, embedding, chosen, rule)
    write_csv(output, header, rows)
    n_candidates = len(embedding.ids) - known
    log.info("%d of %s chosen: %s", len(chosen), plural(n_candidates, "structure"), output)
    return exit_code(embedding.prediction.rejected, cfg.on_error)
