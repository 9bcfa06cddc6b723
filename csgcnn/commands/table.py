"""`csgcnn table`: compare finished runs in a leaderboard."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from csgcnn.commands.finished_runs import (
    FOLD,
    UNUSABLE,
    Config,
    Run,
    read_run,
    reason_left_out,
    run_folders,
)
from csgcnn.config.locations import CONF
from csgcnn.config.settings.dataset import FOLD_METHODS
from csgcnn.errors import UserError
from csgcnn.evaluation.metrics import TASKS, Metric
from csgcnn.io import write_csv, write_text

ERRORS = ("test", "baseline")
_data = itemgetter("dataset", "split", "target")
_options_of = itemgetter("recipe", "model", "edge_calculator", "node_features", "pooling", "head")

# One target of runs that differ only in seeds and fold, by the columns of table.csv, and `metric`:
# `test` and `baseline` are its errors.
Row = dict[str, Any]


def leaderboard(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Compare all runs below the folders, and write table.md and table.csv to the first folder.

    Args:
        folders: Runs, sweeps, or folders of these.

    Returns:
        The table in Markdown, and a line for each run that was left out.

    Raises:
        UserError: A folder does not exist or cannot be written, or there is no finished run.
    """
    groups, left_out = _groups(run_folders(folders))
    rows = [(row, runs[0].result_keys) for runs in groups for row in _rows(runs)]
    if not rows:
        places = ", ".join(map(str, folders))
        message = f"no finished run below {places}; csgcnn train makes them"
        raise UserError("\n".join([message, *left_out]))
    table = sorted(_distinguished(rows), key=itemgetter("dataset", "target", "split", "test"))
    text = _markdown(table)
    write_text(folders[0] / "table.md", text)
    _write_csv(table, folders[0] / "table.csv")
    return text, left_out


def _write_csv(table: Sequence[Row], path: Path) -> None:
    """Write a table; the columns of errors are named by the metric, such as test_mae."""
    labels = dict.fromkeys(_name(row) for row in table)
    names: list[str] = []
    for name in (name for name in table[0] if name != "metric"):
        names += [f"{name}_{of}" for of in labels] if name in ERRORS else [name]
    own = [row | {f"{name}_{_name(row)}": row[name] for name in ERRORS} for row in table]
    write_csv(path, names, ([row.get(name, "") for name in names] for row in own), exact=True)


def _name(row: Row) -> str:
    return row["metric"].error_label.lower().replace(" ", "_")


def _groups(folders: Sequence[Path]) -> tuple[list[list[Run]], list[str]]:
    """Return the runs of each row, which differ in seeds and fold, and why others are left out."""
    groups: dict[str, dict[tuple[Any, ...], Run]] = defaultdict(dict)
    left_out = []
    for folder in folders:
        try:
            run = read_run(folder)
            # raises if the run cannot be a row
            _rows([run])
            group = json.dumps([run.result_keys, sorted(run.metrics["test"])], sort_keys=True)
            # an exact repetition counts once
            groups[group][run.sample] = run
        except UNUSABLE as error:
            left_out.append(f"{folder} is left out: {reason_left_out(error)}")
    return [list(runs.values()) for runs in groups.values()], left_out


def _rows(runs: Sequence[Run]) -> list[Row]:
    config, metrics = runs[0].config, runs[0].metrics
    rows = []
    for target, test in metrics["test"].items():
        metric = next(task.baseline for task in TASKS.values() if task.baseline.name in test)
        errors, baselines = _errors(runs, target, metric)
        rows.append(
            {
                "recipe": config.get("recipe") or "",
                "model": _option(config, "model", "convolution._target_"),
                "edge_calculator": _option(config, "edge_calculator")
                + " +learnable" * config["edge_calculator.learnable"],
                "node_features": _node_features(config),
                "pooling": _option(config, "pooling") if "pooling._target_" in config else "mean",
                "head": _option(config, "head") if "head._target_" in config else "mlp",
                "dataset": Path(config["dataset.path"]).name.partition(".")[0],
                "split": _split(config, sorted({run.config[FOLD] for run in runs})),
                "target": target,
                "unit": metrics["units"].get(target, ""),
                "metric": metric,
                "test": statistics.fmean(errors),
                "spread": statistics.stdev(errors) if len(errors) > 1 else None,
                "runs": len(runs),
                "baseline": statistics.fmean(baselines),
                "parameters": metrics["n_parameters"],
                "epochs": _mean(runs, "epochs"),
                "best_epoch": _mean(runs, "best_epoch"),
                "minutes": statistics.fmean(run.minutes for run in runs),
                # keys that distinguish rows that look the same
                "also": "",
            }
        )
    return rows


def _mean(runs: Sequence[Run], name: str) -> float | None:
    """Return the mean of an entry of metrics.json; None if a run of an early version lacks it."""
    values = [run.metrics.get(name) for run in runs]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _errors(runs: Sequence[Run], target: str, metric: Metric) -> tuple[list[float], list[float]]:
    """Return test errors and those of the baseline, for each run."""
    found = [run.metrics for run in runs]
    tested = [metrics["test"][target][metric.name] for metrics in found]
    baselines = [metrics[f"baseline_test_{metric.name}"][target] for metrics in found]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in tested):
        raise UserError(f"its test error of {target} is {tested[-1]}")
    return [*map(metric.error, tested)], [*map(metric.error, baselines)]


def _option(config: Config, group: str, key: str = "_target_") -> str:
    """Return the name of the option of a group, found by its target."""
    target = config[f"{group}.{key}"]
    return _options(group, key).get(target, target.rpartition(".")[2])


@cache
def _options(group: str, key: str) -> dict[str, str]:
    # of several options with one target, the first name counts
    paths = sorted((CONF / group).glob("*.yaml"), reverse=True)
    return {OmegaConf.select(OmegaConf.load(path), key): path.stem for path in paths}


def _node_features(config: Config) -> str:
    parts = dict.fromkeys(key.split(".")[1] for key in config if key.startswith("node_features."))
    return " + ".join(
        part + "*" * bool(config.get(f"node_features.{part}.trainable")) for part in parts
    )


def _split(config: Config, folds: Sequence[int]) -> str:
    method, column = config["dataset.split.method"], config["dataset.split.column"]
    fold = f"fold {folds[0]}" if len(folds) == 1 else f"{len(folds)} folds"
    details = dict.fromkeys(FOLD_METHODS, fold) | {"group": column, "column": column}
    details["fold"] = f"{column} {folds[0]}" if len(folds) == 1 else f"{column}, {fold}"
    return f"{method} ({details[method]})" if method in details else method


def _distinguished(rows: Sequence[tuple[Row, Config]]) -> list[Row]:
    """Return the rows; `also` gives the keys in which rows with equal options differ.

    Rows of other data, splits or targets are compared, too, except in the keys of the data.
    """
    alike: dict[tuple[str, ...], list[tuple[Row, Config]]] = defaultdict(list)
    for row, config in rows:
        alike[_options_of(row)].append((row, config))
    return [
        row | {"also": _difference(row, config, same)}
        for same in alike.values()
        for row, config in same
    ]


def _difference(row: Row, config: Config, others: Sequence[tuple[Row, Config]]) -> str:
    found = []
    for key, value in config.items():
        compared = (
            other
            for of_other, other in others
            if not key.startswith("dataset.") or _data(of_other) == _data(row)
        )
        if any(other.get(key) != value for other in compared):
            is_target = key.endswith("._target_")
            shown = str(value).rpartition(".")[2] if is_target else value
            found.append(f"{key.removesuffix('._target_')}={shown}")
    return " ".join(found)


def _markdown(rows: Sequence[Row]) -> str:
    """Return a table with rounded numbers, without empty columns."""
    labels = " / ".join(dict.fromkeys(row["metric"].error_label for row in rows))
    lines = [_cells(row, labels) for row in rows]
    names = [name for name in lines[0] if any(line[name] for line in lines)]
    width = {name: max(len(name), *(len(line[name]) for line in lines)) for name in names}
    header, rule = {name: name for name in names}, {name: "-" * width[name] for name in names}
    padded = ([line[name].ljust(width[name]) for name in names] for line in [header, rule, *lines])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in padded)


def _cells(row: Row, labels: str) -> dict[str, str]:
    metric, target, unit = row["metric"], row["target"], row["unit"]
    target += "" if metric.lower_is_better else f" ({metric.error_label})"
    spread = "" if row["spread"] is None else f" ± {row['spread']:.2g}"
    epochs, best = row["epochs"], row["best_epoch"]
    return {
        "recipe": row["recipe"],
        "model": row["model"],
        "edge calculator": row["edge_calculator"],
        "node features": row["node_features"],
        "pooling": "" if row["pooling"] == "mean" else row["pooling"],
        "head": "" if row["head"] == "mlp" else row["head"],
        "data set": row["dataset"],
        "split": row["split"],
        "target": f"{target} [{unit}]" if unit else target,
        f"test {labels} (runs)": f"{row['test']:.4g}{spread} ({row['runs']})",
        f"baseline {labels}": f"{row['baseline']:.4g}",
        "parameters": f"{row['parameters']:,}",
        "epochs (run / best)": "" if None in (epochs, best) else f"{epochs:.4g} / {best:.4g}",
        "minutes": f"{row['minutes']:.1f}",
        "also": row["also"].replace("|", "\\|"),
    }
