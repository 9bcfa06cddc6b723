"""A data report as text for a terminal of 100 columns."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from csgcnn.crystals.structure_warnings import summary_lines
from csgcnn.data.targets import with_unit
from csgcnn.errors import one_line, plural
from csgcnn.evaluation.data_report import DataReport, Distribution, SplitReport, TargetReport

WIDTH = 100
# Entries that are listed of each kind; the output file has all.
SHOWN = 5
ELEMENTS_PER_LINE = 4
BAR = 50


def format_report(report: DataReport) -> str:
    """Return the report as text."""
    sections = (
        _overview(report),
        _elements(report),
        _numbers(report),
        *map(_target, report.targets),
        _duplicates(report),
        _split(report.split),
    )
    return "\n\n".join("\n".join(map(_wrapped, lines)) for lines in map(list, sections) if lines)


def _overview(report: DataReport) -> Iterator[str]:
    facts = [plural(report.n_records, "record"), f"{report.n_usable} usable"]
    if report.rejected:
        facts.append(f"{len(report.rejected)} rejected")
    if warned := len({note.id for note in report.warnings}):
        facts.append(f"{warned} with warnings")
    yield f"{report.source}: {', '.join(facts)}"
    yield f"columns: {', '.join(report.columns) or 'none'}"
    for reason, ids in _kinds(report.rejected):
        some = ", ".join([*ids[:3], *["…"] * (len(ids) > 3)])
        yield f"rejected: {plural(len(ids), 'record')} ({some}): {one_line(reason)}"
    for line in summary_lines(report.warnings):
        yield f"warning: {line}"


def _elements(report: DataReport) -> Iterator[str]:
    compositions = plural(report.n_compositions, "composition")
    yield f"{plural(len(report.elements), 'element')}, {compositions}; crystals, share of atoms"
    cells = [f"{e.symbol:<3}{e.n_crystals:>8} {e.share_of_atoms:>7.2%}" for e in report.elements]
    n_lines = -(-len(cells) // ELEMENTS_PER_LINE)
    for line in range(n_lines):
        yield "  " + "      ".join(cells[line::n_lines])


def _numbers(report: DataReport) -> Iterator[str]:
    named = dict(report.cells)
    for target in report.targets:
        if target.distribution:
            named[with_unit(target.name, target.unit)] = target.distribution
    heads = ("n", "mean", "std", "min", "25 %", "median", "75 %", "max")
    width = min(max(map(len, named), default=0), 36)
    yield " " * width + "".join(f"{head:>8}" for head in heads)
    for name, found in named.items():
        numbers = (found.mean, found.std, *found.quartiles)
        cells = [f"{found.n:>8}", *(f"{_short(number):>8}" for number in numbers)]
        yield f"{name[:width]:<{width}}{''.join(cells)}"


def _target(target: TargetReport) -> Iterator[str]:
    missing = f" ({target.n_missing} without a value)" if target.n_missing else ""
    yield with_unit(target.name, target.unit) + missing
    largest = max(target.classes.values(), default=0)
    for name, n in target.classes.items():
        yield f"  {name:>24} {n:>8}  {_bar(n, largest)}"
    if target.distribution:
        yield from _histogram(target.distribution)
        if target.outliers:
            yield f"  {plural(len(target.outliers), 'value')} far from the median:"
        yield from (f"    {o.id}: {o.value:.4g} (z = {o.z:.1f})" for o in target.outliers[:SHOWN])
    if fit := target.composition:
        unit = f" {target.unit}" if target.unit else ""
        is_sample = target.distribution and fit.n < target.distribution.n
        others = f"{fit.n} random rows" if is_sample else "the other rows"
        errors = f"MAE {fit.mae:.4g}{unit}, R² {fit.r2:.2f}"
        yield f"  predicted from the compositions of {others}: {errors}"
        if fit.outliers:
            yield f"  {plural(len(fit.outliers), 'value')} far from these predictions:"
        for o in fit.outliers[:SHOWN]:
            yield f"    {o.id}: {o.value:.4g}, predicted {o.expected:.4g} (z = {o.z:.1f})"


def _histogram(found: Distribution) -> Iterator[str]:
    low, high = found.quartiles[0], found.quartiles[-1]
    width, largest = (high - low) / len(found.histogram), max(found.histogram)
    if not width:
        return
    for number, n in enumerate(found.histogram):
        start, end = low + number * width, low + (number + 1) * width
        yield f"  {start:>10.4g} to {end:>10.4g} {n:>8}  {_bar(n, largest)}".rstrip()


def _duplicates(report: DataReport) -> Iterator[str]:
    n_rows = sum(map(len, report.duplicates))
    if report.duplicates:
        yield f"{plural(len(report.duplicates), 'group')} of equal crystals, {n_rows} rows:"
    else:
        yield "no equal crystals"
    yield from (f"  {_cut(' = '.join(group))}" for group in report.duplicates[:SHOWN])
    yield f"{plural(len(report.similar), 'pair')} of similar crystals of the same composition"
    if report.conflicts:
        limit = f"differ by more than {report.max_difference:g} standard deviations"
        yield f"{plural(len(report.conflicts), 'pair')} whose labels {limit}:"
    for conflict in report.conflicts[:SHOWN]:
        values = (v if isinstance(v, str) else f"{v:.4g}" for v in conflict.values)
        ids = " and ".join(conflict.ids)
        yield f"  {ids} ({conflict.kind}): {conflict.target} {' and '.join(values)}"


def _split(split: SplitReport) -> Iterator[str]:
    if split.problem:
        yield f"split ({split.method}): {split.problem}"
        return
    sizes = ", ".join(f"{n} {part}" for part, n in split.sizes.items())
    yield f"split ({split.method}): {sizes}"
    shared = split.shared_compositions or {}
    rows = " and ".join(f"{n} {part}" for part, n in shared.items())
    yield f"  rows with the composition of a training row: {rows}"
    advice = "; dataset.split.duplicates=together avoids them" * (
        split.duplicates_across_splits > 0
    )
    yield f"  pairs of equal crystals in different parts: {split.duplicates_across_splits}{advice}"


def _kinds(rejected: Iterable[Sequence[str]]) -> list[tuple[str, list[str]]]:
    """Group reasons that differ in numbers only: the first one and all ids, frequent ones first."""
    kinds: dict[str, tuple[str, list[str]]] = {}
    for id_, reason in rejected:
        kind = re.sub(r"\d+(\.\d+)?", "#", reason)
        kinds.setdefault(kind, (reason, []))[1].append(id_)
    return sorted(kinds.values(), key=lambda kind: -len(kind[1]))[:SHOWN]


def _bar(n: int, largest: int) -> str:
    return "█" * round(BAR * n / largest)


def _short(number: float) -> str:
    """Return a number with about four digits in at most seven characters."""
    if 1e4 <= abs(number) < 1e6:
        return f"{number:.0f}"
    texts = (f"{number:.{digits}g}" for digits in (4, 3, 2, 1))
    return next((text for text in texts if len(text) < 8), f"{number:.0e}")


def _wrapped(line: str) -> str:
    if len(line) <= WIDTH:
        return line
    return textwrap.fill(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _cut(text: str) -> str:
    return text if len(text) < WIDTH else f"{text[: WIDTH - 4]}…"
