"""Reports in a real browser: Debian's Chromium, driven by playwright, without a GPU."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure
from report_pages import some_predictions, write_table

import csgcnn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ABSENT = "Chromium is not installed: apt-get install chromium"
pytest.importorskip("playwright", reason="playwright is not installed: make browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=ABSENT),
]

# WebGL by software rendering.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
READY = "html[data-ready=true]"
N = 1200
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 1,200 crystals, drawn by WebGL; one of the two worst has a structure."""
    folder = tmp_path_factory.mktemp("browser")
    truth, prediction = some_predictions(N, 0.1)
    prediction[:2] += (3, 2)
    ids = [f"crystal-{i}" for i in range(N)]
    table = write_table(folder / "predictions.csv", ids, truth, prediction)
    (folder / "cifs").mkdir()
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
    )
    for i in (0, 1):
        salt.to(str(folder / "cifs" / f"crystal-{i}.cif"))
    return csgcnn.report(table, structures=folder / "cifs")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def opened(browser: Any, file: Path, size: str = "desktop", scheme: str = "light") -> Any:
    """Open a report without a network; its attribute `errors` holds messages of the console."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
    page.goto(f"file://{file}", wait_until="commit")
    page.wait_for_selector(READY)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_opens_without_errors(browser: Any, page_file: Path, size: str, scheme: str) -> None:
    page = opened(browser, page_file, size, scheme)
    assert page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(",")))
    assert (brightness > 380) == (scheme == "light")
    page.context.close()


def test_a_point_shows_id_and_error(browser: Any, page_file: Path) -> None:
    page = opened(browser, page_file)
    plot = page.locator(".plot[data-points]")
    plot.scroll_into_view_if_needed()
    x, y = plot.evaluate("""(plot) => {
        const { xaxis, yaxis } = plot._fullLayout, { x, y } = plot.data[1];
        const box = plot.getBoundingClientRect();
        return [
            box.x + xaxis._offset + xaxis.c2p(x[0]), box.y + yaxis._offset + yaxis.c2p(y[0])
        ];
    }""")
    page.mouse.move(x + 1, y)
    page.wait_for_selector(".hoverlayer .hovertext")
    assert "crystal-0" in page.locator(".hoverlayer .hovertext").text_content()
    page.context.close()


def test_a_box_and_a_text_filter_the_table(browser: Any, page_file: Path) -> None:
    page = opened(browser, page_file)
    status, rows = page.locator(".status"), page.locator(".crystals tbody tr")
    assert status.text_content().startswith("1,200 crystals in total")
    assert rows.count() == 20
    page.fill("input[type=search]", "crystal-11")
    assert status.text_content().startswith("111 crystals found")
    page.fill("input[type=search]", "")
    plot = page.locator(".plot[data-points]")
    plot.scroll_into_view_if_needed()
    drag = plot.locator(".nsewdrag").bounding_box()
    page.mouse.move(drag["x"] + 5, drag["y"] + 5)
    page.mouse.down()
    page.mouse.move(drag["x"] + drag["width"] * 0.6, drag["y"] + drag["height"] * 0.6, steps=8)
    page.mouse.up()
    page.wait_for_function("document.querySelector('.status').textContent.includes('found')")
    assert 0 < int(status.text_content().split()[0]) < N
    page.click("button.clear")
    assert status.text_content().startswith("1,200 crystals in total")
    page.context.close()


def test_a_structure_is_chosen_and_rotated_by_mouse_and_keys(browser: Any, page_file: Path) -> None:
    page = opened(browser, page_file)
    page.click("text=crystal-1 >> nth=0")
    assert page.locator(".viewer .name").text_content() == "NaCl (crystal-1)"
    view = page.locator(".view")
    view.scroll_into_view_if_needed()
    eye = "document.querySelector('.view')._fullLayout.scene._scene.getCamera().eye"
    first = page.evaluate(eye)
    view.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"Math.abs({eye}.y - {first['y']}) > 0.05")
    second, box = page.evaluate(eye), view.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    for step in range(10):
        # the camera follows the mouse once per frame
        page.mouse.move(box["x"] + 100 + 10 * step, box["y"] + 100 + 3 * step)
        page.wait_for_timeout(100)
    page.mouse.up()
    page.wait_for_function(f"Math.abs({eye}.y - {second['y']}) > 0.05")
    assert page.errors == []
    page.context.close()
