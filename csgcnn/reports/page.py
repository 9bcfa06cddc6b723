"""The parts of a report, and the HTML file with all of them and the library that draws charts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from csgcnn.io import write_text

TEMPLATES = Path(__file__).with_name("templates")

Figure = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        figure: `data` and `layout` of plotly.js. A text that begins with -- is the name of a color
            of the page, which is light or dark.
        is_wide: Whether it takes the whole width of the page.
        points: Name of the points that it shows, which a selection in it filters.
    """

    kind = "chart"
    figure: Figure
    caption: str = ""
    title: str = ""
    is_wide: bool = False
    points: str = ""


@dataclass(frozen=True)
class Table:
    """A table, in which numbers are aligned to the right.

    Attributes:
        is_folded: Whether it is shown on demand.
    """

    kind = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    title: str = ""
    is_folded: bool = False


@dataclass(frozen=True)
class CrystalTable:
    """The crystals of a target, those with the largest errors first, with their structures.

    Attributes:
        name: Name of the points.
        points: Columns of equal length: id, formula, truth, prediction, error, loss, note.
        structures: Traces of structures by id.
        n_shown: Number of rows of the table.
        unit: Unit of the errors.
        note: Where the structures are from, or why there are none.
    """

    kind = "crystals"
    name: str
    points: dict[str, list[Any]]
    structures: dict[str, list[Figure]]
    n_shown: int
    unit: str
    note: str


@dataclass(frozen=True)
class Section:
    """A section of the page, with a paragraph below its title."""

    title: str
    blocks: Sequence[Chart | Table | CrystalTable]
    text: str = ""


@dataclass(frozen=True)
class Headline:
    """The answer for one target.

    Attributes:
        detail: Interval and further metrics.
        bars: Name, value as text, and relative length of this model and of the baselines.
    """

    target: str
    metric: str
    value: str
    unit: str
    detail: str
    bars: Sequence[tuple[str, str, float]] = ()


@dataclass(frozen=True)
class Check:
    """Something to know before trusting the numbers.

    Attributes:
        status: good, warn or info.
    """

    status: str
    title: str
    text: str


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        headlines: The answers, shown first.
        checks: What to know before trusting them.
        facts: Lines at the end: versions, paths, commands.
    """

    title: str
    subtitle: str
    headlines: Sequence[Headline] = ()
    checks: Sequence[Check] = ()
    sections: Sequence[Section] = ()
    facts: Sequence[str] = ()


def write_page(page: Page, path: Path) -> None:
    """Write a report as one HTML file that loads nothing.

    Args:
        page: The report.
        path: The file, which is replaced.

    Raises:
        UserError: The file cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["embedded"] = embedded
    text = environment.get_template("report.html").render(
        page=page,
        plotly=get_plotlyjs(),
        plotly_version=get_plotlyjs_version(),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    write_text(path, text)


def embedded(value: Any) -> str:
    """Return a value as JSON that cannot end the script element that holds it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
