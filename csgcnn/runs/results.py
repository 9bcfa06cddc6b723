"""Results of a finished training: predictions.csv, metrics.json and figures."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csgcnn import distributed
from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.composition_model import composition_features, elements_in
from csgcnn.data.dataset import Dataset
from csgcnn.data.domain import Domain
from csgcnn.data.split_files import CALIBRATION, PARTS
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import plural
from csgcnn.evaluation import plots
from csgcnn.evaluation.baselines import baseline_metrics, simple_metrics, trained_baseline
from csgcnn.evaluation.benchmark_summary import Fold
from csgcnn.evaluation.calibration import calibration_labels, coverage, format_coverage
from csgcnn.evaluation.conformal import interval_lines
from csgcnn.evaluation.figure_files import draw
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.evaluation.metrics import TASKS, Metrics, format_metrics, task_of
from csgcnn.evaluation.reported_metrics import (
    fidelity_entries,
    format_domain_metrics,
    format_fidelities,
    metrics_with_domain,
)
from csgcnn.io import read_csv, read_json, write_csv
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.runs.directory import RunDirectory
from csgcnn.runs.duration import training_minutes
from csgcnn.runs.predictions import OUT_OF_DOMAIN, domain_cells
from csgcnn.runs.tables import compared_columns, compared_rows, write_vectors

log = logging.getLogger(__name__)

UNTESTED = ("train", CALIBRATION)


def write_results(
    run: RunDirectory,
    models: Mapping[str, CrystalGraphNetwork | Ensemble],
    store: GraphStore,
    dataset: Dataset,
    split: Split,
    batch_size: int,
    facts: Mapping[str, Any],
    plot: PlotSettings | None,
) -> None:
    """Evaluate the rows that are not trained on and write the results, the figures last.

    Args:
        run: Directory of the run, to which rank 0 writes; every rank must call this function.
        models: The trained models that predict val and test; without a refit they are the same.
        store: Graphs of the data set, on the device of the models.
        dataset: Targets and their values.
        split: Rows of train, val and test, and in_distribution if there are such rows.
        batch_size: Crystals per batch.
        facts: Further entries of metrics.json.
        plot: Settings of the figures; None: no figures.
    """
    models = {p: models["val" if p == "val" else "test"] for p in split if p not in UNTESTED}
    tested = {part: model for part, model in models.items() if len(split[part])}
    predicted = {p: predict_with_std(m, store, split[p], batch_size) for p, m in tested.items()}
    if distributed.rank():
        return
    targets, values = dataset.targets, {part: dataset.values[rows] for part, rows in split.items()}
    prediction = {part: of_part.cpu() for part, (of_part, _) in predicted.items()}
    std = {part: of_part.cpu() for part, (_, of_part) in predicted.items() if of_part is not None}
    model, domains = models["test"], _domains(models, store, split)
    outside = {part: domain_cells(domains[part], store, split[part]) for part in models}
    entries: dict[str, Any] = {"not_measured": [p for p in PARTS[1:] if p not in prediction]}
    for part in entries["not_measured"]:
        prediction[part] = torch.empty(0, sum(target.n_outputs for target in targets))
        std |= {part: prediction[part]} if model.has_std else {}
    header = ["id", "split", *compared_columns(targets, bool(std)), *outside["test"]]
    rows = _prediction_rows(prediction, std, outside, store, dataset, split)
    write_csv(run.folder / "predictions.csv", header, rows)
    write_vectors(run.folder / "predictions.npz", dataset, prediction, split)
    metrics = {
        part: metrics_with_domain(of_part, values[part], targets, outside[part][OUT_OF_DOMAIN])
        for part, of_part in prediction.items()
    }
    features = composition_features(dataset.store)
    baselines = _baselines(features, dataset, split)
    covered = coverage(prediction["test"], std["test"], values["test"], targets) if std else {}
    scales = _scale_entries(model, targets, covered, values["val"]) if std else {}
    entries |= fidelity_entries(dataset, prediction, split)
    for part, of_part in baselines.items():
        for name, found in of_part.items():
            entries |= baseline_entries(found, targets, part, name)
    run.write_json("metrics.json", {**metrics, **entries, **scales, **facts})
    _log_test(metrics, targets, baselines, covered, entries)
    _log_facts(facts)
    if plot and len(test := split["test"]):
        ids, has_element = [store.ids[row] for row in test.tolist()], elements_in(features)[test]
        shown = plots.Predicted(prediction["test"], std.get("test"), values["test"], ids)
        draw(lambda: plots.plot_test(shown, has_element, targets, run.folder, plot))


def draw_learning_curve(
    folder: Path, dataset: Dataset, split: Split, best_epoch: int, plot: PlotSettings
) -> None:
    """Draw the learning curve of a run; a warning says why it cannot be drawn.

    Args:
        folder: Folder of the run, with metrics.csv.
        dataset: Targets and their values.
        split: Rows of train and val.
        best_epoch: Epoch that was kept.
        plot: Settings of the figure.
    """
    table, path, targets = folder / "metrics.csv", folder / "learning_curve", dataset.targets
    constant = trained_baseline(dataset.values, split, targets)
    draw(lambda: plots.plot_learning_curve(table, targets, path, plot, best_epoch, constant))


def _domains(models: Mapping[str, Any], store: GraphStore, split: Split) -> dict[str, Domain]:
    """Return the domain of the model that predicts each part."""
    domain = tested = Domain.of(store, split["train"])
    if models["val"] is not models["test"]:
        tested = Domain.of(store, torch.cat([split["train"], split["val"]]))
    return {part: domain if part == "val" else tested for part in models}


def _baselines(
    features: Tensor, dataset: Dataset, split: Split
) -> dict[str, dict[str, dict[str, Metrics]]]:
    """Return the metrics of simple models on each tested part, by their names in metrics.json."""
    targets, values, known = dataset.targets, dataset.values, dataset.values[split["train"]]
    tested = {p: split[p] for p in split if p not in (*UNTESTED, "val")}
    return {
        part: {
            "baseline": baseline_metrics(known, values[rows], targets),
            **simple_metrics(features, values, split | {"test": rows}, targets),
        }
        for part, rows in tested.items()
    }


def _scale_entries(
    model: CrystalGraphNetwork | Ensemble,
    targets: Sequence[Target],
    covered: Mapping[str, Any],
    val_values: Tensor,
) -> dict[str, Any]:
    columns = [target for target in targets for _ in target.outputs]
    scales = zip(columns, model.std_scale.tolist(), strict=True)
    return {
        "calibration": covered,
        "std_scale": {target.name: scale for target, scale in scales if not target.classes},
        "calibration_labels": calibration_labels(val_values, targets),
    }


def _log_test(
    metrics: Mapping[str, Mapping[str, Metrics]],
    targets: Sequence[Target],
    baselines: Mapping[str, Mapping[str, Mapping[str, Metrics]]],
    covered: Mapping[str, Mapping[str, float]],
    entries: Mapping[str, Any],
) -> None:
    if "test" in entries["not_measured"]:
        log.info("test errors: not measured, there are no test rows")
        return
    for target in targets:
        tested = metrics["test"][target.name]
        simple = (of_model[target.name] for of_model in baselines["test"].values())
        log.info("test %s", format_metrics(target, tested, *simple))
        if target.name in covered and tested["n"]:
            log.info("test %s", format_coverage(covered[target.name], target.name))
        if line := format_domain_metrics(target, tested, "test"):
            log.info("%s", line)
        if inside := metrics.get("in_distribution"):
            simple = (of[target.name] for of in baselines["in_distribution"].values())
            log.info("in distribution: %s", format_metrics(target, inside[target.name], *simple))
    for line in format_fidelities(entries.get("fidelities", {}).get("test", {}), targets, "test"):
        log.info("%s", line)


def _log_facts(facts: Mapping[str, Any]) -> None:
    for line in interval_lines(facts):
        log.info("test: %s", line)
    leaks = []
    if n_pairs := facts.get("duplicates_across_splits", 0):
        pairs = f"{plural(n_pairs, 'pair')} of identical structures"
        leaks.append(f"{pairs} in different parts of the split")
    if n_shared := facts.get("shared_compositions", {}).get("test", 0):
        n_test = facts["n_rows"]["test"]
        verb = "has" if n_shared == 1 else "have"
        shared = f"{n_shared} of {n_test} test crystals {verb}"
        leaks.append(f"{shared} a composition of the training set")
    if leaks:
        log.info("leakage: %s", "; ".join(leaks))


def _prediction_rows(
    prediction: Mapping[str, Tensor],
    std: Mapping[str, Tensor],
    outside: Mapping[str, Mapping[str, Sequence[str]]],
    store: GraphStore,
    dataset: Dataset,
    split: Split,
) -> Iterator[list[Any]]:
    for part, of_part in prediction.items():
        values = dataset.values[split[part]]
        cells = compared_rows(of_part, values, dataset.targets, std.get(part))
        rows = split[part].tolist()
        for row, of_row, *texts in zip(rows, cells, *outside[part].values(), strict=True):
            yield [store.ids[row], part, *of_row, *texts]


def baseline_entries(
    baseline: Mapping[str, Metrics],
    targets: Sequence[Target],
    part: str = "test",
    prefix: str = "baseline",
) -> dict[str, dict[str, float]]:
    """Return the entries of metrics.json about a baseline: one for each task.

    Args:
        baseline: Metrics of the baseline by target.
        targets: The targets.
        part: What was predicted.
        prefix: Which baseline it is.
    """
    entries = dict[str, dict[str, float]]()
    for task, roles in TASKS.items():
        name = roles.baseline.name
        values = {t.name: baseline[t.name][name] for t in targets if task_of(t) == task}
        entries |= {f"{prefix}_{part}_{name}": values} if values else {}
    return entries


def read_fold(number: int, folder: Path, target: Target) -> Fold:
    """Read the results of a finished run on one fold.

    Args:
        number: Number of the fold.
        folder: Directory of the run.
        target: The target to read.
    """
    truth, predicted, *probabilities = compared_columns([target])
    outputs = probabilities if target.classes else [predicted]
    rows = [row for row in read_csv(folder / "predictions.csv") if row["split"] == "test"]
    metrics, machine = (read_json(folder / name) for name in ("metrics.json", "environment.json"))
    known = [row[truth] if target.classes else float(row[truth]) for row in rows]
    threads = machine["threads"]
    return Fold(
        number=number,
        ids=[row["id"] for row in rows],
        truth=torch.tensor([target.encode(value) for value in known]).double(),
        prediction=torch.tensor(
            [[float(row[name]) for name in outputs] for row in rows], dtype=torch.float64
        ),
        metrics=metrics["test"][target.name],
        in_distribution=metrics.get("in_distribution", {}).get(target.name),
        n_rows=metrics["n_rows"],
        best_epoch=metrics["best_epoch"],
        epochs=metrics["epochs"],
        minutes=training_minutes(folder, metrics),
        n_parameters=metrics["n_parameters"],
        machine=f"{machine['device']}, {plural(threads, 'thread')}",
    )
