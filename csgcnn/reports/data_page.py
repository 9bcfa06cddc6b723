"""The report of a data set: what it holds, and what to check before training."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from csgcnn.crystals.elements import SYMBOLS, atomic_number
from csgcnn.crystals.structure_warnings import summary_lines
from csgcnn.data.targets import with_unit
from csgcnn.errors import plural
from csgcnn.evaluation.data_report import DataReport, Distribution, TargetReport
from csgcnn.reports import figures
from csgcnn.reports.page import Chart, Check, Figure, Headline, Page, Section, Table

N_ROWS = 100  # of a table; output=findings.csv has all


def data_page(report: DataReport) -> Page:
    """Return the report of a data set as a page."""
    n_rejected = len(report.rejected)
    details = [
        plural(report.n_compositions, "composition"),
        plural(len(report.elements), "element"),
        *([f"{n_rejected:,} of {report.n_records:,} records rejected"] if n_rejected else []),
    ]
    headline = Headline("", "usable crystals", f"{report.n_usable:,}", "", ", ".join(details))
    targets = [section for target in report.targets for section in _target(target)]
    return Page(
        title=report.source.rpartition("/")[2],
        subtitle="Data report",
        headlines=[headline],
        checks=[*_checks(report)],
        sections=[*targets, _crystals(report), *_findings(report)],
        facts=[report.source],
    )


def _checks(report: DataReport) -> Iterator[Check]:
    for line in summary_lines(report.warnings):
        yield Check("warn", "Structures", line)
    if not report.warnings:
        yield Check("good", "Structures", "No warnings.")
    if report.rejected:
        reason = "; ".join(f"{id_}: {text}" for id_, text in report.rejected[:1])
        yield Check(
            "warn", "Rejected", f"{plural(len(report.rejected), 'record')}, such as {reason}"
        )
    n_equal, n_conflicts = sum(map(len, report.duplicates)), len(report.conflicts)
    text = f"{n_equal:,} rows are equal crystals; {plural(len(report.similar), 'similar pair')}."
    yield Check("info" if n_equal else "good", "Duplicates", text)
    limit = f"differ by more than {report.max_difference:g} standard deviations."
    text = f"{plural(n_conflicts, 'pair')} of such crystals {limit}"
    yield Check("warn" if n_conflicts else "good", "Labels", text)
    split = report.split
    if split.problem:
        yield Check("warn", "Split", split.problem)
        return
    shared = (split.shared_compositions or {}).get("test", 0)
    text = (
        f"{split.method}: {plural(split.duplicates_across_splits, 'pair')} of equal crystals in "
        f"different parts; {plural(shared, 'test row')} with the composition of a training row."
    )
    yield Check("warn" if split.duplicates_across_splits else "info", "Split", text)


def _target(target: TargetReport) -> Iterator[Section]:
    title, charts = with_unit(target.name, target.unit), list[Chart | Table]()
    missing = f"{target.n_missing:,} crystals have no value. " if target.n_missing else ""
    if target.distribution:
        found = target.distribution
        caption = f"{missing}Mean {found.mean:.4g}, standard deviation {found.std:.4g}."
        charts.append(Chart(_histogram(found, title), caption, "Values"))
    elif target.classes:
        trace = {"type": "bar", "x": [*map(figures.text, target.classes)],
                 "y": [*target.classes.values()], "marker": {"color": figures.ACCENT}}  # fmt: skip
        axis = {"type": "category"}
        chart = figures.figure([trace], target.name, "crystals", xaxis=axis)
        charts.append(Chart(chart, missing, "Classes"))
    text = ""
    if fit := target.composition:
        text = (
            f"Predicted from the compositions of the other rows: MAE {fit.mae:.4g} {target.unit}, "
        )
        text += f"R² {fit.r2:.2f}."
    of_fit = target.composition.outliers if target.composition else []
    rows = [
        (o.id, f"{o.value:.4g}", f"{o.expected:.4g}", f"{o.z:.1f}", kind)
        for kind, found in (("median", target.outliers), ("composition", of_fit))
        for o in found[:N_ROWS]
    ]
    if rows:
        header = ("id", "value", "expected", "z", "expected from")
        name = f"{plural(len(rows), 'value')} far from the expected one"
        charts.append(Table(header, rows, title=name, is_folded=True))
    yield Section(title, charts, text)


def _histogram(found: Distribution, label: str) -> Figure:
    edges = np.linspace(found.quartiles[0], found.quartiles[-1], len(found.histogram) + 1)
    trace = figures.bars_between(edges, np.array(found.histogram))
    return figures.figure([trace], label, "crystals", bargap=0)


def _crystals(report: DataReport) -> Section:
    count = np.zeros(len(SYMBOLS), int)
    for element in report.elements:
        count[atomic_number(element.symbol)] = element.n_crystals
    table = figures.element_table(count.astype(float), count, "crystals")
    charts = [Chart(table, "Number of crystals that hold an element.", "Elements", is_wide=True)]
    charts += [Chart(_histogram(found, name), "", name) for name, found in report.cells.items()]
    return Section("Crystals", charts)


def _findings(report: DataReport) -> Iterator[Section]:
    """Yield tables of the records to look at; of many the first ones."""
    tables: list[tuple[str, Sequence[str], list[tuple[Any, ...]]]] = [
        ("rejected records", ("id", "reason"), [*map(tuple, report.rejected)]),
        ("warnings about structures", ("id", "code", "message"), [*map(tuple, report.warnings)]),
        (
            "pairs of equal or similar crystals with different labels",
            ("id", "other id", "target", "value", "other value", "kind"),
            [(*c.ids, c.target, *map(_value, c.values), c.kind) for c in report.conflicts],
        ),
        ("groups of equal crystals", ("ids",), [(" = ".join(ids),) for ids in report.duplicates]),
    ]
    found = [
        Table(header, rows[:N_ROWS], title=f"{len(rows):,} {name}", is_folded=True,
              caption="The first 100; output=findings.csv lists all." * (len(rows) > N_ROWS))
        for name, header, rows in tables
        if rows
    ]  # fmt: skip
    if found:
        yield Section("What to check", found)


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
