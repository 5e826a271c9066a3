"""A question in words, read into what must, may and must not be there; and the FTS5 expressions that ask for it.

In: what a person typed. Out: values. Pure; never touches the database.

    north sea "bill of lading" -draft   →   terms north, sea · phrase "bill of lading" · excluded draft
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from msearchd.store.catalog import fold

#: FTS5 cost grows with every term, and a pasted page is no better a question than its first words.
MAX_TERMS: Final = 16
_PIECE: Final = re.compile(r'(?P<minus>(?<!\S)-)?"(?P<quoted>[^"]*)(?:"|$)|(?P<bare>[^\s"]+)')

#: Words that say nothing about which file is meant; left out where other words are left. Function words of some
#: languages that most folders speak; a word missing here costs time, not results.
STOP_WORDS: Final = frozenset(
    """
    a an and are as at be but by can did do does for from had has have how i if in into is it its me my no not
    of on or our so than that the their them then there these they this those to was we were what when where
    which who why will with would you your aber als am auch auf aus bei bin bis das dass dem den der des die
    du ein eine einem einen einer es für hat ich im ist ja mit nach nicht noch nur oder sich sie sind um und
    uns von vor war wenn wer wie wir wo zu zum zur über au aux avec ce ces cette comme dans de elle en est et
    il ils la le les leur mais même ne nous ou où par pas pour qui que sa se ses son sont sur un une vous al
    con del el esta este las lo los más para pero por sin su sus una unos y che da dei della di e gli ma nel
    non per più si sono sul aan bij dat een het hoe ik met naar niet om op te tot uit van voor wat com dos em
    na nas nos o os uma
    """.split()  # noqa: SIM905 - a list of a hundred quoted words cannot be read
)


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked. All three hold words as typed, in order, each once."""

    #: Words that may be there; the more, the better.
    terms: tuple[str, ...] = ()
    #: Sequences that must be there.
    phrases: tuple[str, ...] = ()
    #: Words or sequences that must not be there.
    excluded: tuple[str, ...] = ()
    #: The whole question as a sentence, without quotes and exclusions: what a model is asked.
    plain: str = ""

    @classmethod
    def parse(cls, text: str) -> Question:
        """Read a question: "…" is a phrase, -word excludes; at most 16 in all. Never fails; it may be empty."""
        found: dict[str, dict[str, None]] = {"terms": {}, "phrases": {}, "excluded": {}}
        plain: list[str] = []
        for piece in _PIECE.finditer(text):
            kind, words = _kind_of(piece)
            if kind != "excluded":
                plain.append(words)
            if _has_word(words) and sum(map(len, found.values())) < MAX_TERMS:
                found[kind].setdefault(words)
        terms = tuple(found["terms"])
        telling = tuple(term for term in terms if fold.fold(term) not in STOP_WORDS)
        return cls(
            terms=telling if telling or found["phrases"] else terms,
            phrases=tuple(found["phrases"]),
            excluded=tuple(found["excluded"]),
            plain=" ".join(plain),
        )

    @property
    def is_empty(self) -> bool:
        """True if nothing is asked for (exclusions alone ask for nothing)."""
        return not self.terms and not self.phrases

    @property
    def is_strict(self) -> bool:
        """True if it has conditions that every hit must satisfy."""
        return bool(self.phrases or self.excluded)

    # -- FTS5 expressions over `segment_words` ------------------------------------------------------------------------

    def as_phrase(self) -> str:
        """All terms side by side and all phrases; "" unless there are two terms."""
        if len(self.terms) < 2:
            return ""
        return self._without_excluded([_exact(" ".join(self.terms)), *map(_exact, self.phrases)])

    def all_words(self) -> str:
        """Every term and every phrase; "" for an empty question."""
        return self._without_excluded([*map(_term, self.terms), *map(_exact, self.phrases)])

    def any_word(self) -> str:
        """Every phrase and any of the terms; "" unless there are two terms."""
        if len(self.terms) < 2:
            return ""
        return self._without_excluded([f"({' OR '.join(map(_term, self.terms))})", *map(_exact, self.phrases)])

    def required(self) -> str:
        """The phrases alone, for segments that another list found; "" if there are none."""
        return " AND ".join(map(_exact, self.phrases))

    def forbidden(self) -> str:
        """What excludes a file; "" if nothing does."""
        return " OR ".join(map(_term, self.excluded))

    def _without_excluded(self, wanted: list[str]) -> str:
        if not wanted:
            return ""
        expression = " AND ".join(wanted)
        return f"({expression}) NOT ({self.forbidden()})" if self.excluded else expression


def _kind_of(piece: re.Match[str]) -> tuple[str, str]:
    if piece["quoted"] is not None:
        return ("excluded" if piece["minus"] else "phrases"), " ".join(piece["quoted"].split())
    bare = piece["bare"]
    if bare.startswith("-") and len(bare) > 1:
        return "excluded", bare[1:]
    return "terms", bare


def _has_word(text: str) -> bool:
    """True if unicode61 finds a token in it: a phrase without any would match nothing, and AND would spread that."""
    return any(character.isalnum() for character in text)


def _quote(words: str) -> str:
    # The only way a user's text enters an expression: quoted, quotes doubled. NUL would end the expression.
    return '"' + words.replace("\x00", " ").replace('"', '""') + '"'


def _exact(words: str) -> str:
    return _quote(_clean(fold.pair_unspaced(words)))


def _term(word: str) -> str:
    """One word: as it is, by the pieces of its camelCase, or (a single unspaced character) by what begins with it."""
    if len(word) == 1 and fold.has_unspaced(word):
        return f"{_quote(word)} *"
    exact = _exact(word)
    pieces = [piece for piece in fold.camel_parts(word) if piece.isalnum()]
    return f"({exact} OR {_quote(' '.join(pieces))})" if pieces else exact


def _clean(words: str) -> str:
    return words.encode("utf-8", "replace").decode("utf-8").strip()
