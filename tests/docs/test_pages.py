import ast
import re
from pathlib import Path

import pytest
import yaml
from doc_pages import PAGES, ROOT, anchors, code_blocks, links, name_of

import csgcnn
from csgcnn.crystals.structure_warnings import KINDS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        if not re.match(r"https?://|mailto:", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        children = entry.values() if isinstance(entry, dict) else entry
        return [page for child in children for page in pages(child)]  # type: ignore[attr-defined]

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    found = sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
    assert sorted(pages(site["nav"])) == found


def test_the_readme_has_at_most_120_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_code_imports_public_names(page: Path) -> None:
    for code in code_blocks(page.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "csgcnn":
                assert {alias.name for alias in node.names} <= set(csgcnn.__all__)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "csgcnn":
                assert node.attr in csgcnn.__all__


def test_the_citation_names_the_present_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    assert citation["version"] == csgcnn.__version__
    assert all({"name", "family-names"} & author.keys() for author in citation["authors"])


def test_the_changelog_begins_with_the_present_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == csgcnn.__version__


def test_the_table_of_warnings_lists_every_kind() -> None:
    page = (ROOT / "docs" / "reference" / "file-formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (serious|minor) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(code, *kind) for code, kind in KINDS.items()]
