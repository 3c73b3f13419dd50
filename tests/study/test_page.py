"""The report's page in a real headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from emollm.study.options import ReportConfig
from emollm.study.report import report
from tests.browser import chromium
from tests.study.annotated import corpus, drawn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    count = 600
    days = np.datetime64("2026-01-29") + rng.choice([0, 1, 2, 3, 6, 7, 20], count).astype("timedelta64[D]")
    names = ["en", "a-very-long-name-without-a-single-blank-in-it-" * 3, "<i>pt</i>"]
    held = drawn(rng, (0.2, 0.5, 0.1), count)
    held[:, 2] |= rng.random(count) < 0.4 * (np.arange(count) % 3 == 0)
    path = corpus(
        folder / "a.parquet", held, numbers=rng.random(count).tolist(), lang=[names[i % 3] for i in range(count)],
        day=days.astype(str), texts=["unbroken" * 60 + " <script>window.hacked=1</script> so glad"] * count,
    )  # fmt: skip
    report(ReportConfig(output=str(path), by=("lang",), over="day", period="day", resamples=100))
    return f"file://{folder}/a.report/report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_and_is_readable_at_any_width_in_light_and_dark(
    browser: Any, url: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert asked == [url]  # one file, nothing fetched
    assert page.evaluate("window.hacked") is None
    wrong = [one for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    assert wrong == [], [(one["id"], one["nodes"][0]["html"][:200]) for one in wrong]
    page.close()


def test_the_keyboard_alone_opens_sections(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    closed = page.locator("details:not([open])").count()
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY" and not page.evaluate(
            "document.activeElement.parentElement.open"
        ):
            break
    page.keyboard.press("Enter")
    assert page.locator("details:not([open])").count() == closed - 1
    page.close()


def test_charts_show_gaps_and_all_days(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    assert page.locator("#calendar + .panel svg rect").count() == 21
    assert page.locator("#calendar + .panel svg rect.empty").count() == 14
    # Days 0 to 3, 6 and 7, and 20: three lines.
    first = page.locator("#time + .grid .panel, #time ~ .grid .panel").first
    assert first.locator("polyline").count() == 3
    page.close()
