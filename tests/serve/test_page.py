"""The page in a real headless Chromium, on a real endpoint."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from emollm.serve.auth import add_key
from tests.browser import chromium
from tests.serve.conftest import Deploy

pytestmark = pytest.mark.ray

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> &amp; "quoted"'
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    return file, add_key(file, "tests")


@pytest.fixture(scope="module")
def client(deploy: Deploy) -> httpx.Client:
    return deploy()


@pytest.fixture
def open_page(browser: Any, client: httpx.Client) -> Iterator[Open]:
    """Opens the page; at the end there were no errors in its console, and it asked nobody but its own server."""
    said: list[str] = []
    asked: list[str] = []
    contexts: list[Any] = []

    def open_with(path: str = "/", **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(180_000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{str(client.base_url).rstrip('/')}{path}")
        if path == "/":
            page.wait_for_selector("input[name=task]")
        return page

    yield open_with
    for context in contexts:
        context.close()
    # Chromium itself logs each answer that is not 200; the tests of errors cause them.
    wrong = [line for line in said if not line.startswith("log") and "Failed to load resource" not in line]
    assert wrong == []
    own = (str(client.base_url), "blob:")
    assert [url for url in asked if not url.startswith(own)] == []


def read(page: Any, *posts: str) -> None:
    page.fill("#posts", "\n".join(posts))
    page.click("#go")
    until(page, "!document.querySelector('#go').disabled")


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript. Playwright's own way evaluates strings in the page: its CSP forbids that."""
    deadline = time.monotonic() + 180
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def test_a_post_is_read_and_shown_with_the_numbers_of_the_api(open_page: Open, client: httpx.Client) -> None:
    page = open_page()
    read(page, "what a day :)")
    assert page.inner_text("#status") == "1 post read"
    assert page.inner_text("blockquote") == "what a day :)"
    sent = {"texts": ["what a day :)"], "tasks": ["EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"]}
    result = client.post("/v1/annotate", json=sent).json()["results"][0]
    answers = {(a["task"], a["emotion"]): a for a in result["answers"]}
    rows = page.query_selector_all(".bars li")
    assert [row.query_selector(".name").inner_text() for row in rows] == ["anger", "fear", "joy", "sadness"]
    for row in rows:
        answer = answers["EI-reg", row.query_selector(".name").inner_text()]
        assert row.query_selector(".number").inner_text() == f"{answer['value']:.2f} ± {answer['std']:.2f}"
        assert row.query_selector(".class").inner_text().endswith("sure")
    valence = answers["V-reg", None]
    label = page.get_attribute(".gauge svg", "aria-label")
    assert label == f"Valence {valence['value']:.2f} ± {valence['std']:.2f}, on a scale from 0 to 1"
    chosen = page.query_selector_all(".chip.chosen")
    labels = answers["E-c", None]["value"]
    assert sorted(chip.inner_text().split()[0] for chip in chosen) == sorted(labels)
    assert len(page.query_selector_all(".chip")) == 11
    assert not page.is_visible("#many")


def test_the_words_that_moved_an_answer_are_marked(open_page: Open) -> None:
    page = open_page()
    read(page, "glad 😢 <b>sad</b>")
    assert page.query_selector(".words") is None
    page.check("#explain")
    read(page, "glad 😢 <b>sad</b>")
    assert page.inner_text(".words .highlighted") == "glad 😢 <b>sad</b>"
    marked = [mark.inner_text() for mark in page.query_selector_all(".words mark")]
    assert set(marked) & {"glad", "sad", "b", "😢"} and page.query_selector(".words mark b") is None
    names = [option.inner_text() for option in page.query_selector_all("#words-of option")]
    assert names[0] == "EI-reg anger" and any(name.startswith("E-c: ") for name in names)
    page.select_option("#words-of", label=next(name for name in names if name.startswith("E-c: ")))
    assert "second answer" in page.inner_text(".words") and "not the writer" in page.inner_text(".words")


def test_labels_of_ones_own_are_answered_and_say_how(open_page: Open) -> None:
    page = open_page()
    page.click("#own summary")
    page.fill("#own-labels", "relief, <b>dread</b>")
    page.fill("#context", "How was it?")
    page.fill("#target", "the exam")
    read(page, "It is over!")
    panel = page.query_selector_all("#picture .panel")[-1].inner_text()
    assert "Your labels" in panel and "<b>dread</b>" in panel and "constrained by" in panel
    assert "The post does not name the target." in page.inner_text("#picture")


def test_text_is_never_taken_for_html(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    read(page, HOSTILE, "another one")
    assert page.inner_text("blockquote") == HOSTILE
    assert HOSTILE[:50] in page.inner_text("#table")
    assert page.query_selector("#results img, #results script") is None
    hostile_file = tmp_path / "<img src=x onerror=window.hacked=1>.csv"
    hostile_file.write_text(f'{HOSTILE.replace(chr(34), chr(39))},text\n1,"a post"\n')
    page.set_input_files("#file", hostile_file)
    page.wait_for_selector("#file-line", state="visible")
    assert page.query_selector("#ask img") is None
    assert page.evaluate("window.hacked") is None


def test_everything_can_be_done_with_the_keyboard(open_page: Open) -> None:
    page = open_page()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "posts":
            break
    page.keyboard.type("first\nsecond")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#results", state="visible")
    assert page.evaluate("document.activeElement.id") == "results-title"
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.className || document.activeElement.id"))
        if page.evaluate("document.activeElement.innerText") == "second":
            page.keyboard.press("Enter")
            break
    assert "download" in page.evaluate("[...document.querySelectorAll('button')].map((b) => b.id)")
    assert page.inner_text("blockquote") == "second"


ROWS = [
    {"id": "1", "when": "2026-01-01", "text": "plain words"},
    {"id": "2", "when": "2026-01-02", "text": '=HYPERLINK("http://x","y")'},
    {"id": "3", "when": "2026-01-03", "text": "two\nlines, and a comma"},
    {"id": "+4", "when": "2026-01-04", "text": "@SUM(1+1)*cmd|' /C calc'!A0"},
    {"id": "5", "when": "2026-01-05", "text": ""},
    *({"id": str(n), "when": "", "text": f"post number {n} 🙂"} for n in range(6, 131)),
]


def test_a_csv_becomes_a_sortable_table_and_a_download_without_formulas(
    open_page: Open, tmp_path: Path, client: httpx.Client
) -> None:
    page = open_page(accept_downloads=True)
    file = tmp_path / "posts.csv"
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, ["id", "when", "text"])
        writer.writeheader()
        writer.writerows(ROWS)
    page.set_input_files("#file", file)
    page.wait_for_selector("#file-line", state="visible")
    assert page.inner_text("#file-name") == "posts.csv, 130 posts"
    assert page.eval_on_selector("#column", "(select) => select.selectedOptions[0].text") == "text"
    for task in ("EI-reg", "EI-oc", "V-oc"):
        page.uncheck(f"input[value={task}]")
    page.click("#go")
    page.wait_for_selector("#many", state="visible")
    assert page.inner_text("#page-line") == "page 1 of 2"
    page.click("#after")
    assert len(page.query_selector_all("#table tbody tr")) == 30

    heading = page.locator("#table thead button", has_text="V-reg")
    heading.click()
    assert page.get_attribute("#table thead th:nth-child(2)", "aria-sort") == "ascending"
    ascending = column(page, 2)
    assert ascending == sorted(ascending)
    heading.click()
    assert page.get_attribute("#table thead th:nth-child(2)", "aria-sort") == "descending"
    assert column(page, 2) == sorted(column(page, 2), reverse=True)
    page.click("#after")
    assert page.locator("#table tbody tr").last.locator("td").first.inner_text() == "–"  # no text, no answer: last

    with page.expect_download() as download:
        page.click("#download")
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 130
    assert [row["text"].removeprefix("'") for row in rows] == [row["text"] for row in ROWS]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in "=+@\t\r" and cell]
    assert (rows[1]["text"][:2], rows[3]["text"][:2], rows[3]["id"]) == ("'=", "'@", "'+4")
    assert rows[4]["error"] == "empty_text"
    sent = {"texts": ["plain words"], "tasks": ["V-reg", "E-c"]}
    valence, emotions = client.post("/v1/annotate", json=sent).json()["results"][0]["answers"]
    assert float(rows[0]["v_reg"]) == pytest.approx(valence["value"], abs=1e-3)
    assert float(rows[0]["v_reg_std"]) == pytest.approx(valence["std"], abs=1e-3)
    assert rows[0]["e_c"] == ", ".join(emotions["value"])


def column(page: Any, number: int) -> list[float]:
    cells = page.query_selector_all(f"#table tbody tr > :nth-child({number})")
    return [float(cell.inner_text().replace("\u2212", "-")) for cell in cells if cell.inner_text() != "–"]


def test_a_file_may_have_more_rows_than_a_call_has_arguments(open_page: Open) -> None:
    table = """async () => {
        const { asTable } = await import("/page/csv.js");
        const { rows, columns } = asTable([["text"], ...Array.from({ length: 200000 }, (_, i) => [`${i}`, "b"])]);
        return [rows.length, columns.length];
    }"""
    assert open_page().evaluate(table) == [200_000, 2]


def test_a_file_can_be_dropped_and_taken_out_again(open_page: Open) -> None:
    page = open_page()
    drop(page, "notes.txt", "first line\n\nsecond line\n")
    page.wait_for_selector("#file-line", state="visible")
    assert page.inner_text("#file-name") == "notes.txt, 2 posts"
    page.click("#file-remove")
    assert not page.is_visible("#file-line")
    read(page, "typed after all")
    assert page.inner_text("blockquote") == "typed after all"


def drop(page: Any, name: str, text: str) -> None:
    data = page.evaluate_handle(
        "([name, text]) => { const data = new DataTransfer(); data.items.add(new File([text], name)); return data; }",
        [name, text],
    )
    page.dispatch_event("#ask", "drop", {"dataTransfer": data})


def test_mistakes_are_told_in_words(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.click("#go")
    assert page.inner_text("#error") == "Write a post, or choose a file."
    for box in page.query_selector_all("input[name=task]"):
        box.uncheck()
    read(page, "a post")
    assert page.inner_text("#error") == "Choose at least one thing to read."
    for name, content, said in (
        ("empty.csv", b"", "it has no rows"),
        ("head.csv", b"id,text\n", "a header and no posts"),
        ("picture.csv", bytes(range(256)), "not a text file"),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        page.set_input_files("#file", file)
        until(page, f"document.querySelector('#error').innerText.includes({said!r})")
        assert not page.is_visible("#file-line")
    page.check("input[value=E-c]")
    read(page, "a" * 20_001)
    assert "at most 20000 characters" in page.inner_text("#error")
    read(page, "a post")
    assert not page.is_visible("#error")
    page.context.set_offline(True)
    read(page, "a post")
    assert page.inner_text("#error") == "The endpoint does not answer. Is it running?"


def test_a_full_queue_is_waited_for(open_page: Open) -> None:
    page = open_page()
    refused: list[str] = []

    def refuse_once(route: Any) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        error = '{"error": {"code": "queue_full", "message": "full", "fields": [], "request_id": "1"}}'
        route.fulfill(status=429, headers={"retry-after": "1"}, content_type="application/json", body=error)

    page.route("**/v1/annotate/stream", refuse_once)
    read(page, "a post")
    assert len(refused) == 1
    assert page.inner_text("#status") == "1 post read"


def test_reading_can_be_stopped(open_page: Open) -> None:
    page = open_page()
    # Over a slow line: the answers take half a minute to come, however fast this machine reads.
    slow = {"offline": False, "latency": 0, "downloadThroughput": 10_000, "uploadThroughput": -1}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.fill("#posts", "\n".join(f"post {n}" for n in range(300)))
    page.click("#go")
    until(page, "document.querySelector('#progress').value > 1 && document.querySelector('#progress').max > 1")
    page.click("#stop")
    page.wait_for_selector("#many", state="visible")
    said = re.fullmatch(r"(\d+) posts read, (\d+) not", page.inner_text("#status"))
    assert said is not None, page.inner_text("#status")
    read, unread = map(int, said.groups())
    assert read + unread == 300
    assert len(page.query_selector_all("#many tbody tr")) == min(read, 100)


def axe(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:150]} {one['nodes'][0]['failureSummary']}" for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_screen_reader_in_light_and_dark(open_page: Open, scheme: str) -> None:
    for width in (360, 1200):
        page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800})
        read(page, "a first post that is longer than the others, because it has to be " * 3, "second", "x" * 300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert axe(page) == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) is (scheme == "dark")
        page.context.close()


def test_the_api_is_described_without_asking_anybody_else(open_page: Open) -> None:
    page = open_page("/docs")
    page.wait_for_selector(".operation")
    text = page.inner_text("main")
    assert "POST /v1/annotate" in text
    assert "curl -s http://127.0.0.1" in text
    assert "429" in page.text_content("main")
    assert axe(page) == []


def test_the_key_is_asked_for_and_kept_in_the_tab(browser: Any, deploy: Deploy, key: tuple[Path, str]) -> None:
    file, secret = key
    url = str(deploy(keys=str(file)).base_url)
    page = browser.new_page()
    page.set_default_timeout(180_000)
    page.goto(url)
    page.wait_for_selector("#key-form", state="visible")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#error", state="visible")
    assert "is not known" in page.inner_text("#error")
    page.fill("#key", secret)
    page.keyboard.press("Enter")
    page.wait_for_selector("input[name=task]")
    assert not page.is_visible("#key-form")
    read(page, "a post")
    page.reload()
    page.wait_for_selector("input[name=task]")
    assert not page.is_visible("#key-form")
    assert secret not in page.evaluate("document.cookie + JSON.stringify(localStorage) + location.href")
    page.close()
