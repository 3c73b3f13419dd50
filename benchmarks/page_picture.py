"""The picture of the page in docs/serving.md, from a running endpoint, in a headless Chromium:

emollm serve --port 8123
python -m benchmarks.page_picture http://127.0.0.1:8123 docs/serving.png
"""

from __future__ import annotations

import argparse

from playwright.sync_api import sync_playwright

from tests.browser import find_chromium

POSTS = (
    "Finally got the keys to our first flat, sitting on the floor eating chips and grinning like fools",
    "the train is late AGAIN and nobody tells us anything. third time this week!!",
    "Dad's scan is tomorrow and I can't stop checking the clock",
)
_WIDTH = 1080


def main() -> None:
    parser = argparse.ArgumentParser(description="Picture the page of a running endpoint.")
    parser.add_argument("url", help="address of the endpoint")
    parser.add_argument("out", help="PNG file to write")
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _WIDTH, "height": 900})
        page.goto(args.url)
        page.wait_for_selector("input[name=task]")
        page.fill("#posts", "\n".join(POSTS))
        page.click("#go")
        page.wait_for_selector("#table tbody tr")
        page.wait_for_selector("#go:enabled")
        page.mouse.move(0, 0)
        # The results have taken the focus; the picture is the page down to the model's card.
        page.evaluate("() => { document.activeElement.blur(); window.scrollTo({top: 0, behavior: 'instant'}); }")
        bottom = page.locator("#results").bounding_box()
        assert bottom is not None
        clip = {"x": 0, "y": 0, "width": _WIDTH, "height": bottom["y"] + bottom["height"] + 24}
        page.screenshot(path=args.out, full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    main()
