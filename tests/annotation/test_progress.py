"""What a run says of itself while it goes and when it is over."""

from __future__ import annotations

import pytest

from emollm.annotation import monitor
from emollm.annotation.ledger import Totals
from emollm.annotation.monitor import Pace, left_in_words
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.report import estimate_lines, summary_lines

CONFIG = AnnotateConfig(model="m", input="i", out="o")
SUMMARY = {
    "posts": 1000, "files": 1, "bytes": 123_456, "failed": 3, "error_codes": {"empty_text": 3}, "truncated": 2,
    "not_english": 4, "scored": 600, "seconds": 125.0, "continued_from": 400, "scored_again": 50, "actors_died": 1,
    "set_aside": 1,
    "repeated": 60, "tokens": 12_000, "padding": 0.07, "actor_seconds": 100.0,
}  # fmt: skip


def test_the_bar_shows_rates_without_the_time_that_actors_took_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(monitor.time, "monotonic", lambda: now)
    pace = Pace(done=100, total=1100)
    assert (pace.first().new, pace.first().note) == (100, "starting actors")
    for second in range(50):
        now = float(second)
        assert pace.step(Totals()).new == 0
    now = 50.0
    shown = pace.step(Totals(posts=100, tokens=3000, padded=4000, errors=1))
    assert shown.new == 100
    assert shown.note == "100 posts/s, 3,000 tokens/s, 9 s left, 25% padding, 1.0% errors"
    now = 51.0
    back = pace.step(Totals(posts=80, lost=20, deaths=1))  # an actor died: the bar waits
    assert back.new == 0 and "1 actor died" in back.note
    now = 52.0
    assert pace.step(Totals(posts=130)).new == 30
    now = 60.0
    last = pace.step(Totals(posts=1000)).note
    now = 100.0
    assert pace.step(Totals(posts=1000)).note == last


def test_a_finished_run_in_a_few_lines() -> None:
    whole, run, more, next_ = summary_lines(SUMMARY, CONFIG)
    assert whole.startswith("o: 1,000 posts in 1 file (123.5 kB), 3 with an error (3 empty_text), 2 cut, ")
    assert whole.endswith(" 4 seem not to be English")
    assert run == ("600 posts scored in 2 min, 400 were done before; 50 scored again after a failure (1 actor)")
    assert more.startswith("60 answered by an equal text (10.0%); 12,000 tokens, 7% padding; 1 set aside")
    assert "verify o" in next_
    assert summary_lines({**SUMMARY, "already_done": True}, CONFIG) == [f"{whole}; already done, nothing to do"]


def test_a_dry_run_in_a_few_lines() -> None:
    more = {"total": 50_000_000, "estimated_seconds": 7200.0, "estimated_gpu_hours": 4.0, "estimated_cpu_hours": 4.0}
    summary = {**SUMMARY, **more, "estimated_bytes": 20e9, "block_posts": 1200}
    scored, whole, blocks = estimate_lines(summary, CONFIG)
    assert "10.00 posts/s per actor" in scored and "--block-posts 1200" in blocks
    assert "all 50,000,000 posts with 2 actors: about 2.0 h, 4.00 GPU-hours, 4.00 CPU-hours, 20.0 GB of output" in whole


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (600, "10 min"), (12_600, "3.5 h")])
def test_times_in_words(seconds: float, words: str) -> None:
    assert left_in_words(seconds) == words
