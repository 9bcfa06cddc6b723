"""`csgcnn evaluate`: measure the errors of a trained model on a data set with known targets."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from csgcnn import __version__
from csgcnn.commands.intervals import measured_intervals
from csgcnn.commands.outputs import check_folder, check_output
from csgcnn.commands.prepare import (
    dataset_settings,
    load_dataset,
    move_to_device,
    plain,
    read_options,
)
from csgcnn.commands.structures import listed, load_model
from csgcnn.config.paths import data_path, user_path
from csgcnn.config.settings.plot import PlotSettings
from csgcnn.crystals.crystal import Crystal, Unusable
from csgcnn.crystals.datasets import iter_records, mark_repeated
from csgcnn.crystals.records import Record
from csgcnn.data.composition_model import composition_features, elements_in
from csgcnn.data.dataset import Dataset
from csgcnn.data.record_reports import RecordReports
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError, UserError
from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.evaluation.calibration import coverage, format_coverage
from csgcnn.evaluation.figure_files import draw
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.evaluation.invariance import Changes, largest_changes
from csgcnn.evaluation.metrics import Metrics, format_metrics
from csgcnn.evaluation.plots import FILES, Predicted, plot_test
from csgcnn.evaluation.reported_metrics import (
    format_domain_metrics,
    format_fidelities,
    metrics_by_fidelity,
    metrics_with_domain,
    reported_metrics,
)
from csgcnn.io import write_csv, write_json, writing
from csgcnn.predictor import Predictor
from csgcnn.runs.predictions import OUT_OF_DOMAIN, Floats, domain_cells
from csgcnn.runs.results import baseline_entries
from csgcnn.runs.tables import compared_columns, compared_rows, write_vectors

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

# Ends of names that are no folders, so that a table of another format is not taken for one.
_OTHER_FORMATS = (".csv.gz", ".gz", ".parquet", ".json", ".txt", ".xlsx")
# Name of the rows without split=…
ALL = "all"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Errors of a model on a data set.

    Attributes:
        metrics: Metrics by target.
        predictions: Id, known value, prediction, error and reasons for each crystal.
        facts: Further entries of metrics.json.
    """

    metrics: dict[str, Metrics]
    predictions: "pd.DataFrame"
    facts: dict[str, Any]


def evaluate(cfg: DictConfig) -> Evaluation:
    """Predict all rows of a data set, or those of one part of its split, and log the errors.

    Raises:
        UserError: The checkpoint or the data cannot be used.
        ConfigError: The output exists.
    """
    output = user_path(cfg.output) if cfg.output else None
    is_folder = output is not None and _is_folder(output, cfg)
    predictor = load_model(cfg)
    reports = RecordReports.beside(output or Path("evaluation.csv"))
    if not output:
        reports = reports._replace(warnings=None)
    settings, targets = dataset_settings(cfg), predictor.targets
    with _new_folder(output) if output and is_folder else nullcontext():
        if output and is_folder:
            reports = RecordReports.within(output)
        inputs = [column for column in predictor.input_columns if not column.is_reference]
        dataset = load_dataset(settings, predictor.graph, reports, targets=targets, inputs=inputs)
        rows, train_rows = _rows(dataset, predictor, cfg.split)
        store = move_to_device(dataset.store, predictor.device)
        predicted = _predict(predictor, store, dataset.values, rows, cfg.batch_size)
        evaluation = _evaluate(predictor, dataset, rows, train_rows, predicted, cfg.split or ALL)
        evaluation.facts.update(measured_intervals(predictor, store, dataset, rows, cfg.batch_size))
        if output and is_folder:
            _write_folder(output, evaluation, predictor.split or {})
            part, values = cfg.split or ALL, predicted.values
            write_vectors(output / "predictions.npz", dataset, {part: values}, {part: rows})
            has_element = elements_in(composition_features(dataset.store))[rows]
            plot = PlotSettings(**plain(cfg.plot))
            draw(lambda: plot_test(predicted, has_element, targets, output, plot))
            log.info("results: %s", output)
        elif output:
            _write_table(output, evaluation.predictions)
            log.info("predictions: %s", output)
    if cfg.check_invariance:
        row_of = {dataset.store.ids[row]: row for row in rows.tolist()}
        if any(column.columns for column in inputs):
            # a record of several fidelities is compared by one of them
            row_of |= {id_.rpartition(":")[0]: row for id_, row in row_of.items()}
        path = data_path(settings.path, settings.hint)
        records = mark_repeated(iter_records(path, read_options(settings)))
        usable = (record for record in records if not isinstance(record.source, Unusable))
        described = (record for record in usable if record.id in row_of)
        targets = dataset.targets
        predict = partial(_predict_usable, predictor, dataset, row_of)
        _log_changes(largest_changes(predict, targets, described), targets)
    return evaluation


def _is_folder(output: Path, cfg: DictConfig) -> bool:
    """Check the output, and return whether it is a folder and not a table."""
    if output.name.endswith(".csv") and not output.is_dir():
        inputs = map(user_path, [*listed(cfg.ckpt), cfg.dataset.path])
        check_output(output, [], inputs, overwrite=True)
        return False
    if output.name.endswith(_OTHER_FORMATS):
        raise ConfigError(f"output={output}: expected a folder, or a table: NAME.csv")
    check_folder(output, cfg.overwrite)
    return True


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Make a folder for the block; remove it if the block fails before it writes anything."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def _predict(
    predictor: Predictor, store: GraphStore, labels: Tensor, rows: Tensor, batch_size: int
) -> Predicted:
    values, std = predict_with_std(predictor.network, store, rows, batch_size)
    ids = [store.ids[row] for row in rows.tolist()]
    return Predicted(values.cpu(), std if std is None else std.cpu(), labels[rows], ids)


def _evaluate(
    predictor: Predictor,
    dataset: Dataset,
    rows: Tensor,
    train_rows: Tensor,
    predicted: Predicted,
    part: str,
) -> Evaluation:
    import pandas as pd

    targets = dataset.targets
    prediction, std, values = predicted.values, predicted.std, predicted.labels
    outside = domain_cells(predictor.domain, dataset.store, rows)
    if predictor.domain.is_known:
        metrics = metrics_with_domain(prediction, values, targets, outside[OUT_OF_DOMAIN])
    else:
        metrics = reported_metrics(prediction, values, targets)
    known = dataset.values[train_rows] if len(train_rows) else values
    baseline = baseline_metrics(known, values, targets)
    covered = {} if std is None else coverage(prediction, std, values, targets)
    for target in targets:
        log.info(format_metrics(target, metrics[target.name], baseline[target.name]))
        if target.name in covered and metrics[target.name]["n"]:
            log.info(format_coverage(covered[target.name], target.name))
        if line := format_domain_metrics(target, metrics[target.name]):
            log.info(line)
    by_fidelity = metrics_by_fidelity(dataset, prediction, rows)
    for line in format_fidelities(by_fidelity, targets):
        log.info(line)
    columns = compared_columns(targets, std is not None)
    table = pd.DataFrame(compared_rows(prediction, values, targets, std), columns=columns)
    table = table.assign(**outside)
    table.insert(0, "id", predicted.ids)
    return Evaluation(
        metrics,
        table,
        {
            part: metrics,
            **baseline_entries(baseline, targets, part),
            **({"calibration": covered} if covered else {}),
            **({"fidelities": {part: by_fidelity}} if by_fidelity else {}),
            "units": {target.name: target.unit for target in targets},
            "n_rows": {part: len(rows)},
            "n_in_training": predictor.training_set.contains(dataset.store, rows).count(True),
            "n_rejected": len(dataset.rejected),
            "csgcnn": __version__,
        },
    )


def _write_folder(folder: Path, evaluation: Evaluation, split: Mapping[str, Sequence[str]]) -> None:
    """Write predictions.csv and metrics.json as a run does; remove figures of other predictions."""
    for path in (path for stem in FILES for path in folder.glob(f"{stem}.*")):
        path.unlink()
    part_of = {id_: part for part, ids in split.items() for id_ in ids}
    table = evaluation.predictions.copy()
    table.insert(1, "split", [part_of.get(id_, "") for id_ in table["id"]])
    _write_table(folder / "predictions.csv", table)
    write_json(folder / "metrics.json", evaluation.facts)


def _write_table(path: Path, table: "pd.DataFrame") -> None:
    write_csv(path, [*table], table.itertuples(index=False))


def _rows(dataset: Dataset, predictor: Predictor, part: str | None) -> tuple[Tensor, Tensor]:
    """Return the rows to evaluate, and those that the model was trained on."""
    row_of = {dataset.store.ids[row]: row for row in dataset.rows.tolist()}
    parts = {
        name: torch.tensor([row_of[id_] for id_ in ids if id_ in row_of], dtype=torch.long)
        for name, ids in (predictor.split or {"train": []}).items()
    }
    if part is None:
        if n_train := predictor.training_set.contains(dataset.store, dataset.rows).count(True):
            log.warning(
                "%d of these crystals were in the training set; the errors are optimistic. "
                "split=test evaluates the test set",
                n_train,
            )
        return dataset.rows, parts["train"]
    if part not in parts:
        raise UserError(f"split={part}: the checkpoint does not name these crystals; omit split")
    if not len(parts[part]):
        raise UserError(f"split={part}: this data set has no crystal of that part; omit split")
    return parts[part], parts["train"]


def _predict_usable(
    predictor: Predictor,
    dataset: Dataset,
    row_of: Mapping[str, int],
    crystals: Sequence[tuple[str, Crystal]],
) -> tuple[list[str], Floats]:
    """Return ids and predictions [n_ids, n_columns] of the crystals that can be predicted."""
    columns = {name: dataset.store.columns[name] for name in predictor.inputs}
    records = (
        Record(id_, crystal, {name: column[row_of[id_]] for name, column in columns.items()})
        for id_, crystal in crystals
    )
    found = [*predictor.stream(records, workers=1)]
    values = [np.empty((0, len(predictor.columns)), "f4"), *(chunk.values for chunk in found)]
    return [id_ for chunk in found for id_ in chunk.ids], np.concatenate(values)


def _log_changes(changes: Mapping[str, Changes], targets: Sequence[Target]) -> None:
    for transform, found in changes.items():
        for target in targets if found.largest else ():
            quantity = f"a probability of {target.name}" if target.classes else target.name
            unit = f" {target.unit}" if target.unit else ""
            largest, id_ = found.largest[target.name]
            log.info(
                "largest change of %s by %s: %.2g%s%s",
                quantity,
                transform,
                largest,
                unit,
                f" ({id_})" if largest else "",
            )
        if found.n_left_out:
            log.warning(
                "%s: %d crystals have no such description, or one that is too large",
                transform,
                found.n_left_out,
            )
