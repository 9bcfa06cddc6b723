"""`csgcnn report`: write an HTML report of runs, or of tables of predictions."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from csgcnn import __version__
from csgcnn.commands.finished_runs import run_folders
from csgcnn.commands.outputs import check_output
from csgcnn.commands.prepare import plain
from csgcnn.commands.report_crystals import crystals_of_files, crystals_of_run
from csgcnn.config.compose import as_argument, compose
from csgcnn.config.keys import has_effect
from csgcnn.config.upgrade import complete_leaves, read_config
from csgcnn.crystals.structure_warnings import WARNING_COLUMNS, StructureNote, summary_lines
from csgcnn.errors import ConfigError, UserError, one_line
from csgcnn.io import read_json
from csgcnn.reports.comparison import comparison_page
from csgcnn.reports.crystals import CrystalFacts
from csgcnn.reports.page import write_page
from csgcnn.reports.predicted import Predictions, read_predictions
from csgcnn.reports.result import Result, result_page
from csgcnn.reports.worst import SiteValues
from csgcnn.runs.duration import training_minutes
from csgcnn.screening.table_files import check_format
from csgcnn.training.progress import readable_time

TABLE, REPORT = "predictions.csv", "report.html"
TABLES = (".csv", ".csv.gz")
# Keys of the configuration that do not describe a model.
_NOT_COMPARED = ("hydra", "defaults")


@dataclass(frozen=True)
class Source:
    """A run, the folder of an evaluation, or a table of predictions."""

    path: Path

    @property
    def table(self) -> Path:
        """The table of predictions."""
        return self.path / TABLE if self.path.is_dir() else self.path

    @property
    def is_run(self) -> bool:
        """Whether it is a run directory."""
        return (self.path / "config.yaml").is_file()

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json; empty for a table."""
        path = self.path / "metrics.json"
        return dict(read_json(path)) if path.is_file() else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The plain configuration of a run."""
        found = read_config(self.path / "config.yaml") if self.is_run else {}
        return {key: value for key, value in found.items() if key not in _NOT_COMPARED}

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The configuration of a run by full key, without keys that do not change the result."""
        found = complete_leaves(self.config) if self.config else {}
        return {k: v for k, v in found.items() if not has_effect(k, "execution")}

    def predictions(self) -> Predictions:
        """Read the predictions.

        Raises:
            UserError: There are none.
        """
        if not self.table.is_file():
            outcome = self.metrics.get("outcome", "is not finished")
            raise UserError(f"{self.path} has no {TABLE}: the run {outcome}")
        return read_predictions(self.table, self.config.get("dataset", {}).get("labels") or {})


def report(
    *paths: str | Path,
    output: str | Path | None = None,
    structures: str | Path | None = None,
) -> Path:
    """Write an HTML report, as `csgcnn report` does.

    Args:
        *paths: Runs, folders of runs, folders that `csgcnn evaluate` wrote, and tables of
            predictions beside known values; several are compared.
        output: The file, which is replaced; by default report.html in the first folder.
        structures: The data set or structure files; by default the data set of the run.

    Returns:
        The file.

    Raises:
        UserError: There are no predictions, or the file cannot be written.
        ConfigError: The name of the output is no .html file.
    """
    if not paths:
        raise ConfigError("please give a run or a table of predictions")
    given = [Path(path).expanduser() for path in paths]
    sources = [source for path in given for source in _sources(path)]
    folder = given[0] if given[0].is_dir() else given[0].parent
    output = Path(output).expanduser() if output else folder / REPORT
    structures = str(structures) if structures else None
    check_format(output, (".html",))
    check_output(output, [], [], overwrite=True)
    results = [_result(source) for source in sources]
    if len(results) == 1:
        page = result_page(_with_details(results[0], sources[0], structures))
    else:
        differences = _differences([source.keys for source in sources])
        names = _short_names([source.path for source in sources])
        named = [replace(result, name=name) for result, name in zip(results, names, strict=True)]
        page = comparison_page(
            named, differences, lambda i: _with_details(named[i], sources[i], structures)
        )
    write_page(page, output)
    return output


def _sources(path: Path) -> Iterator[Source]:
    """Yield what a path stands for; the members of an ensemble are no runs of their own.

    Raises:
        UserError: It is no table, and no run is below it.
    """
    if path.is_file() and path.name.endswith(TABLES):
        yield Source(path)
        return
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is neither a run nor a table of predictions (.csv)")
    if (path / TABLE).is_file() or (path / "config.yaml").is_file():
        yield Source(path)
        return
    runs = list[Path]()
    for run in run_folders([path]):
        if not any(other in run.parents for other in runs) and (run / TABLE).is_file():
            runs.append(run)
    if not runs:
        raise UserError(f"{path}: no finished run and no {TABLE} in this folder or below it")
    yield from map(Source, runs)


def _result(source: Source) -> Result:
    """Return the predictions of a run, with what its folder says about the training."""
    predictions = source.predictions()
    return Result(
        name=source.path.resolve().name if source.path.is_dir() else source.path.name,
        predictions=predictions,
        crystals=CrystalFacts.unknown(len(predictions.ids), ""),
        metrics=source.metrics,
        minutes=training_minutes(source.path, source.metrics) if source.is_run else None,
    )


def _with_details(result: Result, source: Source, structures: str | None) -> Result:
    """Add what only the report of one model shows: its crystals, its training and settings."""
    if source.is_run:
        crystals = crystals_of_run(source.path, source.config, result.predictions, structures)
    else:
        crystals = crystals_of_files(result.predictions, structures)
    return replace(
        result,
        crystals=crystals,
        history=_columns(source.path / "metrics.csv"),
        warnings=_warnings(source.path / "warnings.csv", set(result.predictions.ids)),
        changes=[*_changes(source.keys)],
        facts=[*_facts(source)],
        site_values=_site_values(source.path, result.predictions),
    )


def _columns(table: Path) -> dict[str, list[float]]:
    """Return the columns of metrics.csv, with a gap between the members of an ensemble."""
    import pandas as pd

    if not table.is_file():
        return {}
    frame = pd.read_csv(table).astype(float)
    members = [own for _, own in frame.groupby("member")] if "member" in frame else [frame]
    parts = [part for own in members for part in (own, own[:0].reindex([0]))][:-1]
    return pd.concat(parts).to_dict("list")


def _site_values(folder: Path, predictions: Predictions) -> dict[str, SiteValues]:
    """Return the contributions that `csgcnn explain` wrote to a folder of the run, by target."""
    import pandas as pd

    for path in sorted(folder.glob("*/contributions.*")) if folder.is_dir() else ():
        read = pd.read_parquet if path.suffix == ".parquet" else pd.read_csv
        table = read(path).query("part == 'site'").astype({"id": str})
        found = {}
        for target in predictions.targets:
            name = re.escape(target.target.name)
            column = re.compile(rf"({name}|\w+\({name}\))( \[.*\])?")
            for own in filter(column.fullmatch, table.columns):
                found[target.target.name] = table.groupby("id")[own].apply(list).to_dict()
        return found
    return {}


def _warnings(table: Path, ids: set[str]) -> list[str]:
    """Return a summary of the warnings about the structures that were predicted."""
    import pandas as pd

    if not table.is_file():
        return []
    frame = pd.read_csv(table, dtype=str, usecols=WARNING_COLUMNS).fillna("")
    rows = frame.itertuples(index=False)
    return summary_lines(StructureNote(r.id, r.code, r.message) for r in rows if r.id in ids)


def _changes(keys: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield key, value and default of each setting of a run that differs from the default."""
    if not keys:
        return
    defaults = complete_leaves(plain(compose("train")))
    for key in dict.fromkeys([*defaults, *keys]):
        value, default = keys.get(key), defaults.get(key)
        if value != default and not has_effect(key, "execution"):
            yield key, one_line(as_argument(value)), one_line(as_argument(default))


def _differences(keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings of each run in which the runs differ; of a table there are none."""
    runs = [of_run for of_run in keys if of_run]
    every = dict.fromkeys(key for of_run in runs for key in of_run)
    differing = [key for key in every if len({str(of_run.get(key)) for of_run in runs}) > 1]
    return [
        " ".join(
            f"{key}={one_line(as_argument(of_run[key]))}" for key in differing if key in of_run
        )
        for of_run in keys
    ]


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return names of runs without the folders that all have in common."""
    resolved = [path.resolve() for path in paths]
    shared = os.path.commonpath([path.parent for path in resolved])
    return [path.relative_to(shared).as_posix() for path in resolved]


def _facts(source: Source) -> Iterator[str]:
    yield f"{source.path.resolve()}, csgcnn {__version__}"
    path = source.path / "environment.json"
    if not path.is_file():
        return
    machine = read_json(path)
    seconds = source.metrics.get("seconds")
    time = f" in {readable_time(seconds)}" if seconds else ""
    versions = machine.get("versions", {})
    yield (
        f"Trained{time} with csgcnn {versions.get('csgcnn', '?')} and torch "
        f"{versions.get('torch', '?')} on {machine.get('device', '?')}"
    )
    yield f"csgcnn {' '.join(machine.get('command', [])[1:])}"
