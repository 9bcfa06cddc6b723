"""The crystals that a report lists and draws, and the structures of those with large errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.reports.crystals import CrystalFacts, formula
from csgcnn.reports.figures import numbers
from csgcnn.reports.page import CrystalTable
from csgcnn.reports.predicted import PredictedTarget, Predictions
from csgcnn.reports.structure_view import structure_traces
from csgcnn.runs.predictions import OUT_OF_DOMAIN

Array = NDArray[Any]
# Contributions of the sites by id.
SiteValues = Mapping[str, Sequence[float]]

# Crystals of a page that are drawn and can be searched, and of each target those with the largest
# errors.
MAX_POINTS, MAX_WORST = 20_000, 2_000
N_SHOWN = 20  # rows of the table


def severity(target: PredictedTarget) -> Array:
    """Return what orders crystals: |error|, or 1 - the probability of the true class [n_known]."""
    if target.target.classes:
        rows = np.arange(len(target.truth))
        return 1 - target.prediction[rows, target.truth.astype(int)]
    return target.loss


def worst_ids(predictions: Predictions) -> list[str]:
    """Return the ids of the crystals with the largest errors of each target."""
    found: dict[str, None] = {}
    for target in predictions.targets:
        order = np.argsort(-severity(target), kind="stable")[:N_SHOWN]
        found |= dict.fromkeys(target.ids[i] for i in order)
    return list(found)


def shown_rows(target: PredictedTarget, n_points: int) -> Array:
    """Return positions among the known rows, those with the largest errors first [n_points].

    Args:
        target: A target.
        n_points: Largest number of rows.
    """
    order = np.argsort(-severity(target), kind="stable")
    if len(order) <= n_points:
        return order
    others = np.random.default_rng(0).permutation(len(order) - MAX_WORST) + MAX_WORST
    return np.concatenate([order[:MAX_WORST], order[np.sort(others[: n_points - MAX_WORST])]])


def points_of(
    target: PredictedTarget, predictions: Predictions, crystals: CrystalFacts, shown: Array
) -> dict[str, list[Any]]:
    """Return the columns of the crystals that are drawn.

    Args:
        target: A target.
        predictions: The table that holds it.
        crystals: The predicted crystals.
        shown: Positions among the known rows [n_points].
    """
    rows = target.rows[shown]
    reasons = predictions.texts.get(OUT_OF_DOMAIN, [""] * len(predictions.ids))
    points: dict[str, list[Any]] = {
        "id": [target.ids[i] for i in shown],
        "formula": [formula(crystals.atoms[row]) for row in rows],
        "note": [reasons[row] for row in rows],
        "loss": numbers(severity(target)[shown]),
    }
    if classes := target.target.classes:
        points["truth"] = [classes[int(i)] for i in target.truth[shown]]
        points["prediction"] = [classes[i] for i in target.prediction[shown].argmax(1)]
        points["error"] = numbers(target.prediction[shown].max(1))
        return points
    columns = {"truth": target.truth, "prediction": target.prediction, "error": target.error}
    return points | {name: numbers(values[shown]) for name, values in columns.items()}


def worst_crystals(
    target: PredictedTarget,
    crystals: CrystalFacts,
    points: dict[str, list[Any]],
    name: str,
    site_values: SiteValues,
) -> CrystalTable:
    """Return the table of the crystals with the largest errors, with their structures.

    Args:
        target: A target.
        crystals: The predicted crystals.
        points: What `points_of` returned.
        name: Name of the points.
        site_values: Contributions of the sites by id.
    """
    worst = [id_ for id_ in points["id"][:N_SHOWN] if id_ in crystals.structures]
    structures = {}
    for id_ in worst:
        crystal, values = crystals.structures[id_], site_values.get(id_)
        fits = values is not None and len(values) == len(crystal.atomic_number)
        structures[id_] = structure_traces(crystal, values if fits else None)
    note = crystals.note
    if site_values:
        note += " Colors of atoms are their contributions to the prediction (csgcnn explain)."
    return CrystalTable(name, points, structures, N_SHOWN, target.unit, note)
