"""The Chromium that tests look at pages with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest


def find_chromium() -> str | None:
    names = (os.environ.get("EMOLLM_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def chromium() -> Iterator[Any]:
    """A headless browser, closed behind the last test that uses it."""
    if os.environ.get("EMOLLM_SKIP_BROWSER"):
        pytest.skip("the page is not tested: EMOLLM_SKIP_BROWSER is set")
    from playwright.sync_api import sync_playwright

    found = find_chromium()
    assert found, (
        "the tests of the page need Chromium: apt-get install chromium, or name one in EMOLLM_CHROMIUM, or leave them "
        "out with EMOLLM_SKIP_BROWSER=1"
    )
    with sync_playwright() as playwright:
        # No sandbox: tests run as root in containers, and the browser sees this machine's own pages alone.
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()
