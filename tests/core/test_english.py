"""The language check: what is English passes, what is not is flagged, and what cannot be told passes."""

from __future__ import annotations

import json

import pytest

from emollm.core.english import looks_english
from emollm.data.aaid import SAMPLES


@pytest.mark.parametrize(
    "text",
    [
        "Der Zug hat schon wieder Verspätung, ich bin so müde",
        "on a encore perdu le match et personne ne dit rien",
        "qué día tan bonito para salir con los amigos",
        "non ci credo che domani si torna al lavoro",
        "de trein is alweer te laat en ik ben het zat",
        "bugün hava çok güzel ve herkes mutlu",
        "dzisiaj jest piękny dzień i nie ma co narzekać",
        "сегодня опять опоздал поезд",
        "電車がまた遅れている",
        "الطقس جميل اليوم",
        "आज मौसम बहुत अच्छा है",
        "@friend kesho tutakwenda sokoni mapema sana pamoja #asubuhi",
    ],
)
def test_other_languages_are_flagged(text: str) -> None:
    assert not looks_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "🎉🎉🎉",
        "lol",
        "Zürich!!",
        "¡Olé!",
        "naïve café owners are the best people",
        "@josé I can’t believe it https://example.org/die/der/das",
        "OMG best day EVER #schadenfreude",
        "I do not know what to say",
        "Microsoft beats Google",
    ],
)
def test_english_and_what_cannot_be_told_pass(text: str) -> None:
    assert looks_english(text)


def test_next_to_none_of_the_english_samples_is_flagged() -> None:
    texts = [json.loads(line)["text"] for line in (SAMPLES / "posts.jsonl").read_text(encoding="utf-8").splitlines()]
    flagged = [text for text in texts if not looks_english(text)]
    assert len(flagged) <= 0.02 * len(texts), flagged
