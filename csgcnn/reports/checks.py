"""What to know before trusting the errors of a model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from csgcnn.errors import plural
from csgcnn.evaluation.calibration import ONE_STD
from csgcnn.reports.page import Check
from csgcnn.reports.predicted import Predictions
from csgcnn.runs.predictions import OUT_OF_DOMAIN

# Difference of the observed and the nominal coverage that is worth a warning.
TOLERANCE = 0.1
# Fraction of crystals outside the domain that is worth a warning.
FEW = 0.05


def checks_of(
    predictions: Predictions, metrics: Mapping[str, Any], warnings: Sequence[str]
) -> Iterator[Check]:
    """Yield what was checked, as far as it is known.

    Args:
        predictions: The predictions.
        metrics: Content of metrics.json; empty for a table alone.
        warnings: Summary of the warnings about structures.
    """
    yield from _composition(predictions, metrics)
    yield from _leakage(predictions, metrics)
    yield from _calibration(predictions, metrics)
    yield from _domain(predictions)
    if metrics:
        status, text = ("warn", "; ".join(warnings)) if warnings else ("good", "No warnings.")
        yield Check(status, "Structures", text)
    if 0 < metrics.get("epochs", 0) == metrics.get("best_epoch"):
        text = f"The last of {metrics['epochs']} epochs is the best one: more epochs may help."
        yield Check("warn", "Training", text)


def _composition(predictions: Predictions, metrics: Mapping[str, Any]) -> Iterator[Check]:
    for target in predictions.targets:
        entry = f"composition_{predictions.part}_{target.metric.name}"
        simple = metrics.get(entry, {}).get(target.target.name)
        if simple is None or not len(target.rows):
            continue
        own, other = float(target.loss.mean()), target.metric.error(simple)
        name = f"{target.target.title}: " if len(predictions.targets) > 1 else ""
        if own < other:
            text = f"{name}{1 - own / other:.0%} lower error than from the composition alone."
            yield Check("good", "Baseline", text)
        else:
            text = f"{name}no better than a model of the composition alone."
            yield Check("warn", "Baseline", text)


def _leakage(predictions: Predictions, metrics: Mapping[str, Any]) -> Iterator[Check]:
    n_rows = len(predictions.ids)
    if n_known := metrics.get("n_in_training", 0):
        text = f"{n_known:,} of these crystals trained the model: the errors are optimistic."
        yield Check("warn", "Leakage", text)
    if "duplicates_across_splits" not in metrics:
        return
    n_pairs = metrics["duplicates_across_splits"]
    n_shared = metrics.get("shared_compositions", {}).get(predictions.part, 0)
    pairs = f"{plural(n_pairs, 'pair')} of identical structures in different parts"
    shared = f"{n_shared:,} of {n_rows:,} test crystals have a composition of the training set"
    if n_pairs:
        yield Check("warn", "Leakage", f"{pairs}; {shared}.")
    elif n_shared:
        yield Check("info", "Leakage", f"No identical structures in different parts; {shared}.")
    else:
        yield Check("good", "Leakage", "No crystal or composition is in two parts of the split.")


def _calibration(predictions: Predictions, metrics: Mapping[str, Any]) -> Iterator[Check]:
    numbers = [target for target in predictions.targets if not target.target.classes]
    found = dict(metrics.get("calibration", {}))
    within = {
        target.target.name: float((target.loss <= target.std).mean())
        for target in numbers
        if target.std is not None and len(target.rows)
    }
    within |= {name: of_target[f"{ONE_STD:.4g}"] for name, of_target in found.items()}
    for name, part in within.items():
        is_good = part is not None and abs(part - ONE_STD) <= TOLERANCE
        text = f"{part:.0%} of the errors of {name} are within one standard deviation (68 %)."
        yield Check("good" if is_good else "warn", "Uncertainty", text)
    if numbers and not within:
        text = "The model predicts no standard deviations; ensemble=5 or loss=gaussian adds them."
        yield Check("info", "Uncertainty", text)


def _domain(predictions: Predictions) -> Iterator[Check]:
    if OUT_OF_DOMAIN not in predictions.texts:
        return
    outside = np.array([text != "" for text in predictions.texts[OUT_OF_DOMAIN]], dtype=bool)
    n_rows, n_outside = len(outside), int(outside.sum())
    if not n_outside:
        yield Check("good", "Domain", "All crystals are in the domain of the training set.")
        return
    texts = [f"{n_outside:,} of {n_rows:,} crystals are outside the domain of the training set"]
    for target in predictions.targets:
        is_outside = outside[target.rows]
        if is_outside.any() and not is_outside.all():
            worse, usual = (target.loss[rows].mean() for rows in (is_outside, ~is_outside))
            unit = f" {target.unit}" if target.unit else ""
            name = target.metric.error_label
            name = f"{name} of {target.target.title}" if len(predictions.targets) > 1 else name
            texts.append(f"their {name} is {worse:.3g}{unit}, that of the others {usual:.3g}{unit}")
    status = "warn" if n_outside > FEW * n_rows else "info"
    yield Check(status, "Domain", "; ".join(texts) + ".")
