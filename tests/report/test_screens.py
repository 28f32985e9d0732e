"""Every kind of page in a browser: nothing overflows on a desk, on a phone, or on paper."""

import os
import shutil

import pytest
from PIL import Image

from lth_jax import store
from lth_jax.report import read_run, write_report
from lth_jax.report.atlas import write_atlas
from lth_jax.report.literature import write_literature
from lth_jax.report.sweep_page import write_sweep_report
from tests.report import measured_run, synthetic
from tests.report.test_atlas import chapter
from tests.report.test_literature import trained as recipe

pytestmark = pytest.mark.slow

LONG = {f"a.field_with_the_long_name_{i}": f"a_value_with_a_long_name_{i}" for i in range(4)}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
KINDS = ("run", "empty run", "sweep", "atlas", "atlas of controls", "literature")
OVERFLOW = """
(inBoxes) => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > width) found.push("the page");
  for (const one of document.querySelectorAll("main *")) {
    const box = one.getBoundingClientRect(), scroll = one.parentElement.closest(".scroll, pre");
    if (["TABLE", "svg"].includes(one.tagName) && !scroll) found.push("outside: " + one.tagName);
    if (one.ownerSVGElement || (inBoxes && scroll)) continue;
    if (box.left < -1 || box.right > width + 1) found.push(one.outerHTML.slice(0, 120));
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    shelf, info = measured_run.write(root)
    cells = [{"setting": {"a.learning_rate": rate, **LONG}, "run": info.run}
             for rate in (0.1, 0.01)]  # fmt: skip
    cells[1]["run"] = synthetic.write(root, config={"dataset": "other"}).run
    sweep = store.open_sweep(root, name="a_sweep_with_a_long_name", config={"cells": cells})
    both = ("discovery", "replication")
    chapters = [
        one._replace(protocol=one.protocol | {"claim": f"X{i}", "title": f"A longer title {i}"})
        for i, one in enumerate([chapter(), *(chapter(both) for _ in range(4))])
    ]
    controls = [chapter(primaries=[], secondary=[], gate=None)._replace(figure=None)]
    return {
        "run": write_report(shelf, info),
        "empty run": write_report(shelf, synthetic.write(root, nodes=[], config={"empty": 1})),
        "sweep": write_sweep_report(shelf, sweep.path),
        "atlas": write_atlas(root / "atlas" / "laptop", "laptop", chapters),
        "literature": write_literature(root / "recipe", recipe(read_run(shelf, info.path))),
        "atlas of controls": write_atlas(root / "atlas" / "smoke", "smoke", controls),
    }


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium found; set `CHROMIUM` to its path")
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.parametrize(("width", "media"), [(1400, "screen"), (390, "screen"), (720, "print")])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_overflows_and_nothing_fails(browser, pages, kind, width, media, tmp_path):
    shown, errors = browser.new_page(viewport={"width": width, "height": 900}), []
    shown.on("console", lambda message: errors.append(message.text))
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.emulate_media(media=media)
    shown.goto(pages[kind].as_uri())
    for details in shown.locator("details").all():
        details.evaluate("one => one.open = true")
    assert shown.evaluate(OVERFLOW, media == "screen") == []
    shown.screenshot(path=tmp_path / "page.png", full_page=True)
    assert errors == []
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.width == width and len(picture.convert("L").getcolors()) > 10
    shown.close()


def test_claims_are_read_on_a_phone(browser, pages):
    shown = browser.new_page(viewport={"width": 390, "height": 900})
    shown.goto(pages["atlas"].as_uri())
    box = shown.locator("td.says .soft").first.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] > 10
    shown.close()
