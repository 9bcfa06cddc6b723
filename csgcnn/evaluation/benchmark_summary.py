"""Summary of a benchmark: the errors of its folds, their mean, and published models."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from torch import Tensor

from csgcnn.data.targets import Target, with_unit
from csgcnn.evaluation.metrics import TASKS, Metric, Metrics, metric_named, task_of

MEAN, COMPOSITION = "predicting the mean", "composition alone"
FACTS = ("n_rows", "best_epoch", "epochs", "minutes", "n_parameters", "machine")


@dataclass(frozen=True, slots=True)
class Fold:
    """Describe a finished run on one fold.

    Attributes:
        number: Number of the fold.
        ids: Ids of the test rows.
        truth: Values, or positions of the true classes [n_test].
        prediction: Values or probabilities [n_test, n_outputs].
        metrics: Metrics on the test rows.
        in_distribution: Metrics on rows in the distribution of the training rows, if there are any.
        n_rows: Rows of each part.
        best_epoch: The epoch with the lowest validation score.
        epochs: Trained epochs.
        minutes: Training time.
        n_parameters: Parameters of the model.
        machine: Device and threads.
    """

    number: int
    ids: list[str]
    truth: Tensor
    prediction: Tensor
    metrics: Metrics
    in_distribution: Metrics | None
    n_rows: dict[str, int]
    best_epoch: int
    epochs: int
    minutes: float
    n_parameters: int
    machine: str


def summarize(
    facts: Mapping[str, Any],
    target: Target,
    folds: Sequence[Fold],
    baselines: Mapping[str, Sequence[Metrics]],
    published: Mapping[str, float],
    shortfall: str,
    in_distribution: Mapping[str, Sequence[Metrics]],
) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        facts: First entries, about the benchmark.
        target: The target.
        folds: Finished folds.
        baselines: Metrics of each fold, of each baseline.
        published: Scores of published models.
        shortfall: Why the mean over the folds does not compare with published scores, or nothing.
        in_distribution: Like baselines, on rows in the distribution of the training rows.
    """
    roles = TASKS[task_of(target)]
    names = (roles.ranking.name, roles.secondary.name)
    inside = [fold.in_distribution for fold in folds if fold.in_distribution]
    return {
        **facts,
        "target": target.name,
        "unit": target.unit,
        "metric": names[0],
        "shortfall": shortfall or None,
        "score": None if shortfall else _statistics(names, [fold.metrics for fold in folds]),
        "folds": [
            {
                "fold": fold.number,
                **{name: fold.metrics[name] for name in names},
                **{name: getattr(fold, name) for name in FACTS},
            }
            for fold in folds
        ],
        "baselines": _by_baseline(names, baselines),
        "in_distribution": {
            "score": None if shortfall else _statistics(names, inside),
            "folds": [{name: of_fold[name] for name in names} for of_fold in inside],
            "baselines": _by_baseline(names, in_distribution),
        }
        if in_distribution
        else None,
        "published": dict(published),
    }


def _by_baseline(
    names: Sequence[str], baselines: Mapping[str, Sequence[Metrics]]
) -> dict[str, Any]:
    return {
        name: {
            "score": _statistics(names, metrics),
            "folds": [{key: of_fold[key] for key in names} for of_fold in metrics],
        }
        for name, metrics in baselines.items()
    }


def _statistics(names: Sequence[str], metrics: Sequence[Metrics]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation (divided by n, as in Matbench) over the folds."""
    columns = {name: [of_fold[name] for of_fold in metrics] for name in names}
    return {
        name: {"mean": fmean(values), "std": pstdev(values)} for name, values in columns.items()
    }


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the content of summary.md from that of summary.json."""
    metric = metric_named(summary["metric"])
    overrides = f", with {' '.join(summary['overrides'])}" if summary["overrides"] else ""
    score = summary["shortfall"]
    if not score:
        unit = f" {summary['unit']}" if summary["unit"] and metric.has_unit else ""
        score = f"{metric.label} {_mean_and_std(summary['score'][metric.name])}{unit}"
    detail = f", mean ± standard deviation over the {len(summary['folds'])} folds"
    if summary.get("repeats", 1) > 1:
        detail += f" of {summary['repeats']} repeats"
    data = f" of {summary['dataset']}" if "dataset" in summary else ""
    machines = sorted({fold["machine"] for fold in summary["folds"]})
    lines = [
        f"# {summary['task']}{data}: {with_unit(summary['target'], summary['unit'])}",
        "",
        f"csgcnn {summary['csgcnn']}, recipe {summary['recipe']}{overrides}; "
        f"seed {summary['seed']}, validation rows by seed {summary['split_seed']}.",
        "",
        f"**{score}**{'' if summary['shortfall'] else detail}",
        "",
        *_fold_table(summary),
        "",
        *_extrapolation(summary, metric),
        *(f"Trained on {machine}." for machine in machines),
        "",
        *_ranking(summary, metric),
    ]
    return "\n".join(lines) + "\n"


def _fold_table(summary: Mapping[str, Any]) -> list[str]:
    names = list(summary["baselines"][MEAN]["score"])
    labels = [metric_named(name).label for name in names]
    parts, finished = "train, val, test", {fold["fold"]: fold for fold in summary["folds"]}
    cells = {number: [f"{fold[name]:.4f}" for name in names] for number, fold in finished.items()}
    if inside := summary["in_distribution"]:
        parts += ", in distribution"
        labels.insert(1, f"{labels[0]} in distribution")
        for own, of_fold in zip(cells.values(), inside["folds"], strict=True):
            own.insert(1, f"{of_fold[names[0]]:.4f}")
    header = [*labels, MEAN, COMPOSITION, f"rows ({parts})", "best epoch", "minutes"]
    lines = [_row("fold", *header), _row(*["---"] * (len(header) + 1))]
    baselines = [summary["baselines"][name] for name in (MEAN, COMPOSITION)]
    by_fold = zip(*(baseline["folds"] for baseline in baselines), strict=True)
    for number, metrics in enumerate(by_fold):
        simple = [f"{of_baseline[names[0]]:.4f}" for of_baseline in metrics]
        own = cells.get(number, [""] * len(labels))
        lines.append(_row(number, *own, *simple, *_training_cells(finished.get(number))))
    if summary["score"]:
        scores = [_mean_and_std(summary["score"][name]) for name in names]
        if inside:
            scores.insert(1, _mean_and_std(inside["score"][names[0]]))
        scores += [_mean_and_std(baseline["score"][names[0]]) for baseline in baselines]
        lines.append(_row("mean ± std", *scores, "", "", ""))
    return lines


def _extrapolation(summary: Mapping[str, Any], metric: Metric) -> list[str]:
    """Return the table of errors out of and in the distribution of the training rows."""
    inside = summary["in_distribution"]
    if not (inside and summary["score"]):
        return []
    both = {f"csgcnn, recipe {summary['recipe']}": (summary["score"], inside["score"])}
    both |= {
        name: (baseline["score"], inside["baselines"][name]["score"])
        for name, baseline in summary["baselines"].items()
    }
    return [
        _row(metric.label, "out of distribution (test)", "in distribution"),
        _row("---", "---", "---"),
        *(
            _row(name, *(_mean_and_std(s[metric.name]) for s in scores))
            for name, scores in both.items()
        ),
        "",
    ]


def _training_cells(fold: Mapping[str, Any] | None) -> list[str]:
    if fold is None:
        return ["", "", ""]
    sizes = ", ".join(map(str, fold["n_rows"].values()))
    return [sizes, f"{fold['best_epoch']} of {fold['epochs']}", f"{fold['minutes']:.1f}"]


def _ranking(summary: Mapping[str, Any], metric: Metric) -> list[str]:
    """Return the table of published models, the best first, with ours where there is a mean."""
    if not summary["published"]:
        return []
    rows = [(value, name, f"{value:.4f}") for name, value in summary["published"].items()]
    if summary["score"]:
        changed = " with the overrides above" if summary["overrides"] else ""
        ours = {f"csgcnn, recipe {summary['recipe']}{changed}": summary["score"]}
        ours |= {
            f"{name}, here": baseline["score"] for name, baseline in summary["baselines"].items()
        }
        rows += [
            (score[metric.name]["mean"], f"**{name}**", f"**{_mean_and_std(score[metric.name])}**")
            for name, score in ours.items()
        ]
    rows.sort(key=lambda row: metric.sort_key(row[0] if math.isfinite(row[0]) else math.nan))
    return [
        _row("model", f"{metric.label}, mean over the folds"),
        _row("---", "---"),
        *(_row(name, value) for _, name, value in rows),
        "",
        *([f"Published: {summary['source']}."] if summary["source"] else []),
    ]


def _mean_and_std(score: Mapping[str, float]) -> str:
    return f"{score['mean']:.4f} ± {score['std']:.4f}"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
