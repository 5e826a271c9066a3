"""Word stems as FTS5's porter tokenizer makes them, to mark in a text what the index matched.

In: a folded word. Out: its stem. Pure and cached. M. F. Porter, "An algorithm for suffix stripping", Program 14 (1980),
in SQLite's reading (ext/fts5/fts5_tokenize.c: bytes, no word under three or over 64 of them); a test holds both equal.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final

_VOWELS: Final = frozenset(b"aeiou")
_Y: Final = ord("y")
_SHORTEST, _LONGEST = 3, 64

#: Suffix and what takes its place; the first that fits decides. In Porter's order, by the letter before the last.
_STEP_2: Final = (
    (b"ational", b"ate"), (b"tional", b"tion"), (b"enci", b"ence"), (b"anci", b"ance"), (b"izer", b"ize"),
    (b"logi", b"log"), (b"bli", b"ble"), (b"alli", b"al"), (b"entli", b"ent"), (b"eli", b"e"), (b"ousli", b"ous"),
    (b"ization", b"ize"), (b"ation", b"ate"), (b"ator", b"ate"), (b"alism", b"al"), (b"iveness", b"ive"),
    (b"fulness", b"ful"), (b"ousness", b"ous"), (b"aliti", b"al"), (b"iviti", b"ive"), (b"biliti", b"ble"),
)  # fmt: skip
_STEP_3: Final = (
    (b"ical", b"ic"), (b"ness", b""), (b"icate", b"ic"), (b"iciti", b"ic"), (b"ful", b""), (b"ative", b""), (b"alize", b"al"),
)  # fmt: skip
_STEP_4: Final = (
    b"al", b"ance", b"ence", b"er", b"ic", b"able", b"ible", b"ant", b"ement", b"ment", b"ent", b"ion", b"ou", b"ism",
    b"ate", b"iti", b"ous", b"ive", b"ize",
)  # fmt: skip


@lru_cache(maxsize=32_768)
def stem(word: str) -> str:
    """The stem of a word that is lower case and without accents already."""
    raw = word.encode("utf-8", "replace")
    if not _SHORTEST <= len(raw) <= _LONGEST:
        return word
    return _step_5(_step_4(_step_3(_step_2(_step_1(raw))))).decode("utf-8", "replace")


def _step_1(word: bytes) -> bytes:
    """Plurals, -ed, -ing, and y for i."""
    if word.endswith((b"sses", b"ies")) and len(word) > 3:
        word = word[:-2] if not word.endswith(b"sses") or len(word) > 4 else word[:-1]
    elif word.endswith(b"s") and not word.endswith(b"ss"):
        word = word[:-1]
    word = _step_1b(word)
    if word.endswith(b"y") and _has_vowel(word[:-1]):
        word = word[:-1] + b"i"
    return word


def _step_1b(word: bytes) -> bytes:
    if word.endswith(b"eed") and len(word) > 3:
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in (b"ed", b"ing"):
        if word.endswith(suffix) and len(word) > len(suffix) and _has_vowel(word[: -len(suffix)]):
            return _mend(word[: -len(suffix)])
    return word


def _mend(word: bytes) -> bytes:
    """What is left of "hoping", "hopping", "conflated" without its ending becomes a word again."""
    if word.endswith((b"at", b"bl", b"iz")) and len(word) > 2:
        return word + b"e"
    last = word[-1]
    if len(word) > 1 and last == word[-2] and last not in _VOWELS and last not in b"lsz":
        return word[:-1]
    return word + b"e" if _measure(word) == 1 and _ends_cvc(word) else word


def _step_2(word: bytes) -> bytes:
    for old, new in _STEP_2:
        if word.endswith(old) and len(word) > len(old):
            return word[: -len(old)] + new if _measure(word[: -len(old)]) > 0 else word
    return word


def _step_3(word: bytes) -> bytes:
    for old, new in _STEP_3:
        if word.endswith(old) and len(word) > len(old):
            return word[: -len(old)] + new if _measure(word[: -len(old)]) > 0 else word
    return word


def _step_4(word: bytes) -> bytes:
    for old in _STEP_4:
        if word.endswith(old) and len(word) > len(old):
            left = word[: -len(old)]
            may_go = _measure(left) > 1 and (old != b"ion" or left.endswith((b"s", b"t")))
            return left if may_go else word
    return word


def _step_5(word: bytes) -> bytes:
    if word.endswith(b"e"):
        m = _measure(word[:-1])
        if m > 1 or (m == 1 and not _ends_cvc(word[:-1])):
            word = word[:-1]
    if len(word) > 1 and word.endswith(b"ll") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word


def _consonants(word: bytes) -> list[bool]:
    """Whether each letter is a consonant; y is one at the start and after a vowel."""
    found: list[bool] = []
    before = False
    for letter in word:
        before = not (letter in _VOWELS or (letter == _Y and before))
        found.append(before)
    return found


def _measure(word: bytes) -> int:
    """Porter's m: how often a vowel is followed by a consonant."""
    kinds = _consonants(word)
    return sum(1 for a, b in pairwise(kinds) if b and not a)


def _has_vowel(word: bytes) -> bool:
    return any(letter in _VOWELS or (letter == _Y and at > 0) for at, letter in enumerate(word))


def _ends_cvc(word: bytes) -> bool:
    """Consonant, vowel, consonant, and the last is none of w, x, y."""
    return not word.endswith((b"w", b"x", b"y")) and _consonants(word)[-3:] == [True, False, True]
