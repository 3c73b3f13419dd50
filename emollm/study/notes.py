"""What a reader must know before believing a number: said on the page in whole sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from emollm.study.found import Findings


def notes(found: Findings, *, without_author: int, labelled_given: int, refusals: Mapping[str, str]) -> Iterator[str]:
    """`labelled_given` counts the rows of --labelled, `refusals` say why a measure is not corrected."""
    yield from _of_the_corpus(found)
    yield from _of_groups(found, without_author)
    yield from _of_correction(found, labelled_given, refusals)
    yield from _of_differences(found)


def _of_the_corpus(found: Findings) -> Iterator[str]:
    layout = found.layout
    if found.about.get("definitions") is None:
        yield (
            "The output does not say with which tasks it was made (an older version, or a single file): labels and "
            "ranges are those of its columns."
        )
    if found.failed:
        share = found.failed / found.posts
        yield f"{found.failed:,} of {found.posts:,} posts have no answer ({share:.1%}) and count nowhere."
    if layout.left_out:
        yield f"{layout.left_out:,} posts lie outside --since and --until, or have no time, and are left out."
    elif layout.without_time:
        shown = f", such as {layout.unread}" if layout.unread else ""
        yield (
            f"{layout.without_time:,} posts have no time that can be read{shown}: they count in groups and not in "
            "periods."
        )
    never = [m.name for m, e in zip(found.measures, found.whole, strict=True) if m.is_share and e.value == 0]
    if never:
        yield f"Never given by the model in these posts: {', '.join(never)}. That does not mean that it is absent."


def _of_groups(found: Findings, without_author: int) -> Iterator[str]:
    layout = found.layout
    if len(layout.sizes) > len(layout.groups):
        yield (
            f"{len(layout.sizes):,} groups: the largest {len(layout.groups) - 1:,} are shown, the others are one "
            "group, (other)."
        )
    if singles := sum(n == 1 for n in layout.sizes.values()):
        yield f"{singles:,} groups have a single post: such a group has a value and no interval, and says nothing."
    if without_author:
        yield f"{without_author:,} posts have no author; each counts as an author of its own."
    if not found.config.author:
        yield (
            "No --author: posts are taken as independent. Where some authors wrote many of them, the intervals are too "
            "narrow."
        )


def _of_correction(found: Findings, labelled_given: int, refusals: Mapping[str, str]) -> Iterator[str]:
    match found.method:
        case None:
            yield (
                "No labelled rows: these are shares of what the model says. It has errors, and they may differ between "
                "groups; label 100 random posts and pass --labelled."
            )
        case "ppi":
            yield (
                f"Corrected by prediction-powered inference with {found.labelled} labelled rows: this holds if they "
                "were drawn from these posts at random. A group with fewer than 30 of its own is corrected by all of "
                "them."
            )
        case method:
            yield (
                f"Corrected by {method} with {found.labelled} labelled rows from elsewhere: this holds if posts with a "
                "label look alike here and there."
            )
            if any(not measure.is_share for measure in found.measures):
                yield "Means of numbers are not corrected: for these, label rows of this corpus (ppi)."
    if found.method and found.labelled < labelled_given:
        yield f"{labelled_given - found.labelled:,} labelled rows are not among these posts and are not used."
    for name, why in refusals.items():
        if not why.endswith("ppi does both"):
            yield f"{name} is not corrected: {why}."


def _of_differences(found: Findings) -> Iterator[str]:
    if found.differences and not found.config.audit:
        yield (
            "No --audit: nothing says whether the model treats the language of these groups alike. emollm audit "
            "measures it for names and pronouns."
        )
    if close := sorted({d.measure.name for d in found.differences if d.holds and d.within_bias}):
        yield (
            "Differences that hold, but are no larger than those that the model makes by itself between sentences that "
            f"differ in a name or pronoun alone: {', '.join(close)}. They may be the model's, not the people's."
        )
