"""The bookkeeping of attempts, deaths and errors."""

from __future__ import annotations

import re

from emollm.annotation.ledger import MAX_DEATHS, MIN_POSTS, Instructions, Ledger, Portion
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.score import ledger_options
from emollm.core.options import ClusterConfig


def ledger(rate: float = 0.5) -> Ledger:
    return Ledger(max_error_rate=rate, num_workers=1)


def test_a_post_that_always_kills_its_actor_is_isolated_and_set_aside() -> None:
    book, killer, deaths = ledger(), 37, 0
    while True:
        instructions = book.start_block("b")
        low, high = instructions.suspect_range or (100, 100)
        portions = [(i, i + 1) if low <= i < high else (i, i + 10) for i in range(0, 100, 10) if not low <= i < high]
        portions = sorted([*portions, *((i, i + 1) for i in range(low, high))])
        for first, stop in portions:
            book.start_portion("b", first, stop)
            if first <= killer < stop and killer not in instructions.set_aside:
                deaths += 1
                break
            book.finish_portion("b", Portion(posts=stop - first))
        else:
            break
    book.finish_block("b")
    assert deaths == 3 and instructions.set_aside == {killer}
    totals = book.totals()
    assert (totals.posts, totals.deaths, totals.set_aside) == (100, 3, 1)
    assert totals.lost == 30 + 37 + 37  # what each dead attempt had scored


def test_one_death_with_a_single_post_in_flight_does_not_set_it_aside() -> None:
    book = ledger()
    for flight in ((0, 4), (2, 3), (0, 1)):
        book.start_block("b")
        book.start_portion("b", *flight)
    assert book.start_block("b") == Instructions(attempt=3, suspect_range=(0, 4))


def test_repeated_actor_deaths_end_the_run() -> None:
    book = ledger()
    for _ in range(MAX_DEATHS):
        book.start_block("rows 0 to 9 (10)")
        book.start_portion("rows 0 to 9 (10)", 0, 10)
        assert book.stop is None
    book.start_block("rows 0 to 9 (10)")
    assert book.stop is not None and "rows 0 to 9" in book.stop and "--batch-size" in book.stop


def test_actors_that_never_load_their_model_end_the_run() -> None:
    book = ledger()
    assert [book.loading() is None for _ in range(7)] == [True] * 6 + [False]
    book = ledger()
    book.loading()
    book.loaded()
    assert all(book.loading() is None for _ in range(20))


def test_the_limit_of_deaths_while_loading_follows_the_largest_pool() -> None:
    config = AnnotateConfig(input="i", out="o", max_workers=8, cluster=ClusterConfig(num_workers=1))
    book = Ledger(**ledger_options(config, good_before=0))
    assert [book.loading() is None for _ in range(28)] == [True] * 27 + [False]


def test_rows_that_earlier_runs_did_well_count_in_the_share_of_errors() -> None:
    config = AnnotateConfig(input="i", out="o")
    for good_before, stops in ((0, True), (299, True), (300, False)):
        book = Ledger(**ledger_options(config, good_before=good_before))
        book.start_block("b")
        assert (book.finish_portion("b", Portion(posts=300, errors={"empty_text": 300})) is not None) == stops
        assert book.totals().posts == 300


def test_too_many_errors_stop_the_run_with_examples() -> None:
    book = ledger(0.1)
    book.start_block("b")
    few = Portion(posts=MIN_POSTS - 1, errors={"empty_text": 50}, examples=("a '': empty_text",))
    assert book.finish_portion("b", few) is None
    stop = book.finish_portion("b", Portion(posts=1))
    assert stop and re.search(r"50 of the first 200 posts.*50 empty_text.*--max-error-rate 0\.1.*a ''", stop)
    assert book.start_portion("b", 0, 1) == stop  # every actor hears it
    calm = ledger(0.25)
    calm.start_block("b")
    assert calm.finish_portion("b", Portion(posts=200, errors={"empty_text": 50})) is None


def test_rescoring_a_finished_block_is_not_a_death() -> None:
    book = ledger()
    book.start_block("b")
    book.finish_portion("b", Portion(posts=3))
    book.finish_block("b")
    assert book.start_block("b") == Instructions(attempt=0)
