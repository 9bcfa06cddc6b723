"""What the folds of a benchmark amount to: the error of each, their mean and deviation beside published models."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from torch import Tensor

from csgcnn.data.targets import Target, with_unit
from csgcnn.evaluation.metrics import Metrics

MEAN, COMPOSITION = "predicting the mean", "composition alone"
FACTS = ("n_rows", "best_epoch", "epochs", "minutes", "n_parameters", "machine")  # of a fold
TITLES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC-AUC",
}


@dataclass(frozen=True, slots=True)
class Fold:
    """A finished run on one fold: its test rows, how well it predicts them, and what that took."""

    number: int
    ids: list[str]  # of the test rows
    truth: Tensor  # [n_test], of a class its position
    prediction: Tensor  # [n_test, n_outputs]
    metrics: Metrics
    n_rows: dict[str, int]  # of each part
    best_epoch: int
    epochs: int
    minutes: float
    n_parameters: int
    machine: str


def score_names(target: Target) -> tuple[str, str]:
    """The metric that ranks models, and another that is told.

    Matbench ranks classifiers by the ROC-AUC of labels, not of probabilities, which is their balanced accuracy.
    """
    return ("balanced_accuracy", "roc_auc") if target.classes else ("mae", "rmse")


def summarize(
    facts: Mapping[str, Any],
    target: Target,
    folds: Sequence[Fold],
    baselines: Mapping[str, Sequence[Metrics]],
    published: Mapping[str, float],
    shortfall: str,
) -> dict[str, Any]:
    """All that summary.json says.

    `facts` of the benchmark come first; `baselines`: metrics per fold, of all folds; `shortfall`: why the folds have no
    mean that may be set beside the `published` ones, if so.
    """
    names = score_names(target)
    ranked = {} if shortfall else _mean(names, [fold.metrics for fold in folds])
    return {
        **facts,
        "target": target.name,
        "unit": target.unit,
        "metric": names[0],
        "shortfall": shortfall or None,
        "score": ranked or None,
        "folds": [
            {
                "fold": fold.number,
                **{name: fold.metrics[name] for name in names},
                **{name: getattr(fold, name) for name in FACTS},
            }
            for fold in folds
        ],
        "baselines": {
            name: {
                "score": _mean(names, metrics),
                "folds": [{key: of_fold[key] for key in names} for of_fold in metrics],
            }
            for name, metrics in baselines.items()
        },
        "published": dict(published),
    }


def _mean(names: Sequence[str], metrics: Sequence[Metrics]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over folds, of the folds themselves (divided by n) as Matbench has it."""
    columns = {name: [of_fold[name] for of_fold in metrics] for name in names}
    return {
        name: {"mean": fmean(values), "std": pstdev(values)} for name, values in columns.items()
    }


def markdown(summary: Mapping[str, Any]) -> str:
    """The same for people."""
    task, metric, unit = (summary[key] for key in ("task", "metric", "unit"))
    words = f", with {' '.join(summary['words'])}" if summary["words"] else ""
    lines = [
        f"# {task}: {with_unit(summary['target'], unit)}",
        "",
        f"csgcnn {summary['csgcnn']}, recipe {summary['recipe']}{words}; seed {summary['seed']}, validation rows by "
        f"seed {summary['split_seed']}.",
        "",
        f"**{summary['shortfall']}**"
        if summary["shortfall"]
        else f"**{TITLES[metric]} {_told(summary['score'][metric])}{f' {unit}' if unit else ''}**, mean ± standard "
        f"deviation over the {len(summary['folds'])} folds",
        "",
        *_fold_table(summary),
        "",
        *(
            f"Trained on {machine}."
            for machine in sorted({fold["machine"] for fold in summary["folds"]})
        ),
        "",
        *_ranking(summary),
    ]
    return "\n".join(lines) + "\n"


def _fold_table(summary: Mapping[str, Any]) -> list[str]:
    metric, other = list(summary["baselines"][MEAN]["score"])
    shown = [
        TITLES[metric],
        TITLES[other],
        MEAN,
        COMPOSITION,
        "rows (train, val, test)",
        "best epoch",
        "minutes",
    ]
    lines = [_row("fold", *shown), _row(*["---"] * (len(shown) + 1))]
    of_fold = {fold["fold"]: fold for fold in summary["folds"]}
    baselines = [summary["baselines"][name] for name in (MEAN, COMPOSITION)]
    for number, simple in enumerate(
        zip(*(baseline["folds"] for baseline in baselines), strict=True)
    ):
        cells = [f"{metrics[metric]:.4f}" for metrics in simple]
        if fold := of_fold.get(number):
            sizes = ", ".join(map(str, fold["n_rows"].values()))
            errors = [f"{fold[name]:.4f}" for name in (metric, other)]
            epoch = f"{fold['best_epoch']} of {fold['epochs']}"
            lines.append(_row(number, *errors, *cells, sizes, epoch, f"{fold['minutes']:.1f}"))
        else:
            lines.append(_row(number, "", "", *cells, "", "", ""))
    if summary["score"]:
        scores = [_told(summary["score"][name]) for name in (metric, other)]
        lines.append(
            _row(
                "mean ± std",
                *scores,
                *(_told(line["score"][metric]) for line in baselines),
                "",
                "",
                "",
            )
        )
    return lines


def _ranking(summary: Mapping[str, Any]) -> list[str]:
    """The published models, the best first, with ours and the baselines at their places if there is a mean."""
    if not summary["published"]:
        return []
    metric = summary["metric"]
    rows = [(value, name, f"{value:.4f}") for name, value in summary["published"].items()]
    if summary["score"]:
        words = " and the words above" if summary["words"] else ""
        ours = {f"csgcnn, recipe {summary['recipe']}{words}": summary["score"]}
        ours |= {
            f"{name}, here": baseline["score"] for name, baseline in summary["baselines"].items()
        }
        rows += [
            (score[metric]["mean"], f"**{name}**", f"**{_told(score[metric])}**")
            for name, score in ours.items()
        ]
    rows.sort(
        reverse=metric != "mae", key=lambda row: row[0] if math.isfinite(row[0]) else math.inf
    )
    title = f"{TITLES[metric]}, mean over the folds"
    return [
        _row("model", title),
        _row("---", "---"),
        *(_row(name, value) for _, name, value in rows),
        "",
        *([f"Published: {summary['source']}."] if summary["source"] else []),
    ]


def _told(score: Mapping[str, float]) -> str:
    return f"{score['mean']:.4f} ± {score['std']:.4f}"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
