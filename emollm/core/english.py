"""Whether a post looks like English: the models learnt from English alone, so other posts are flagged, never dropped.

A few microseconds a post, no model of languages. Flagged is a post in another script; one of four words or more with
few of the common English words and a sign of another language, a common word of one or a letter outside of a to z;
and one of six words or more without any common English word. On 35 languages and on English corpora: LOG.md, "a
language check".
"""

from __future__ import annotations

import re

LEAST_WORDS = 4
"""Shorter posts are not judged by their words: names, exclamations and hashtags are no language."""
SURE_WORDS = 6
"""So many words without one common English word are a sign by themselves."""
COMMON_SHARE = 0.25
"""English posts have at least this share of common words."""

_LEFT_OUT = re.compile(r"https?://\S+|[@#]\w+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_APOSTROPHES = str.maketrans("", "", "'’")

_COMMON_TEXT = """
a about after again all also always am an and any anyone anything are around as at back be because been before being
best better but by can cant could day did didnt do does doesnt doing done dont down each else even ever every everyone
everything feel feeling first for from get getting give go going gonna good got great had happy has hate have haven
having he hell her here him his hope how i id if ill im in into is isnt it its ive just keep know last least let life
like little live look lol long lot love made make man many may maybe me mean might more most much must my need never
new next night no not nothing now of off oh ok on once one only or other our out over own people please put really
right same say see seen she should show sleep so some someone something sorry still stop such take tell than thank
thanks that thats the their them then there theres these they theyre thing things think this those though thought
through time to today tomorrow too tonight try trying u until up ur us use very wait want was wasnt watch way we week
well went were what when where which while who whole why will with wish without wont work world would year yes yet you
youre your
"""
_OTHER_TEXT = """
ako al ale att auf aber av bir bu che com con da dan das de dei del della dem den der des det dhe di die dla du een ei
ein eine el en er es est et fra fur ha het hogy hoi ikke il ili imamo ini inte ja je jest jo jsou juga ka kan kao
katika ke khong kwa la las le les lo los mae med mit nao ne nel nga ni nicht nie nu o og ol om op os ou para per plus
po por pour pro que qui sa se sem si som su sur te til tu un una und une untuk van ve vi voor w ya yang z za zu zum
"""
_COMMON = frozenset(_COMMON_TEXT.split())
_OTHER = frozenset(_OTHER_TEXT.split()) - _COMMON


def looks_english(text: str) -> bool:
    """False where a post gives reason to think that it is in another language; True of what is too short to tell."""
    text = _LEFT_OUT.sub(" ", text)
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum(letter < "\u0250" for letter in letters)
    if len(letters) >= 3 and 2 * latin < len(letters):
        return False
    words = [word.translate(_APOSTROPHES).lower() for word in _WORD.findall(text)]
    common = sum(word in _COMMON for word in words)
    if len(words) < LEAST_WORDS or common >= COMMON_SHARE * len(words):
        return True
    has_sign = any(word in _OTHER or not word.isascii() for word in words)
    return not has_sign and (common > 0 or len(words) < SURE_WORDS)
