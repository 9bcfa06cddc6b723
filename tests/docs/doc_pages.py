"""Read the Markdown pages of the documentation."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
RUN_PAGES = [*PAGES, ROOT / "examples" / "plugin" / "README.md"]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MARKED = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A block of shell commands or of Python.

    Attributes:
        language: bash or python.
        code: Its text.
        place: Page and line.
        not_run: Why the tests cannot run it, from a comment before the block; "" if they can.
    """

    language: str
    code: str
    place: str
    not_run: str


def runnable_blocks(page: str, text: str) -> list[Block]:
    """Return the shell and Python blocks of a page, but those that only include a file."""
    return [
        Block(
            match["language"],
            match["code"],
            f"{page}:{text[: match.start('code')].count(chr(10)) + 1}",
            match["reason"] or "",
        )
        for match in _MARKED.finditer(text)
        if not match["code"].startswith("--8<--")
    ]


def name_of(page: Path) -> str:
    """Return the path of a page below the root of the repository."""
    return str(page.relative_to(ROOT))


def code_blocks(text: str, *languages: str) -> list[str]:
    """Return the code blocks of a page in the given languages."""
    return [code for language, code in _FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", text)


def inline_code(text: str) -> list[str]:
    """Return what stands between single backticks."""
    return re.findall(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", prose(text))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each csgcnn command of a page, in code blocks and in the text."""
    lines = [
        line
        for code in code_blocks(text, "bash", "")
        for line in code.replace("\\\n", " ").splitlines()
    ]
    for line in [*lines, *(code.replace("\n", " ") for code in inline_code(text))]:
        match = re.match(r"(?:[A-Z_]+=\S+ )*(?:torchrun \S+ -m |python -m )?csgcnn (.+)", line)
        if match:
            yield shlex.split(match[1], comments=True)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


def links(text: str) -> list[str]:
    """Return the targets of the links of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))
