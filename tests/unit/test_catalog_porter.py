import contextlib
import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from msearchd.store.catalog.porter import stem

SUFFIXES = [
    "s",
    "es",
    "ies",
    "sses",
    "ss",
    "ed",
    "eed",
    "ing",
    "at",
    "bl",
    "iz",
    "y",
    "ational",
    "tional",
    "enci",
    "anci",
    "izer",
    "logi",
    "bli",
    "alli",
    "entli",
    "eli",
    "ousli",
    "ization",
    "ation",
    "ator",
    "alism",
    "iveness",
    "fulness",
    "ousness",
    "aliti",
    "iviti",
    "biliti",
    "ical",
    "ness",
    "icate",
    "iciti",
    "ful",
    "ative",
    "alize",
    "al",
    "ance",
    "ence",
    "er",
    "ic",
    "able",
    "ible",
    "ant",
    "ement",
    "ment",
    "ent",
    "ion",
    "sion",
    "tion",
    "ou",
    "ism",
    "ate",
    "iti",
    "ous",
    "ive",
    "ize",
    "e",
    "ll",
    "tt",
    "ee",
]
words = st.builds(
    lambda head, tails: head + "".join(tails),
    st.text(alphabet="abceilmnorstuwxyz", min_size=1, max_size=6),
    st.lists(st.sampled_from(SUFFIXES), max_size=3),
)


def stems_of_fts5(asked):
    with contextlib.closing(sqlite3.connect(":memory:")) as c:
        c.execute("CREATE VIRTUAL TABLE t USING fts5 (text, tokenize='porter unicode61 remove_diacritics 2')")
        c.execute("CREATE VIRTUAL TABLE v USING fts5vocab (t, instance)")
        c.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", enumerate(asked))
        return dict(c.execute("SELECT doc, term FROM v").fetchall())


@given(st.lists(words, min_size=1, max_size=50))
def test_stems_are_those_of_the_index(asked):
    assert dict(enumerate(map(stem, asked))) == stems_of_fts5(asked)


def test_words_of_a_text_have_the_stems_of_the_index():
    asked = [
        "ferries",
        "ferry",
        "invoices",
        "relational",
        "hopping",
        "hoping",
        "agreed",
        "feed",
        "skies",
        "sky",
        "conditional",
        "generalizations",
        "résumé",
    ]
    asked = [word for word in asked if word.isascii()]
    assert dict(enumerate(map(stem, asked))) == stems_of_fts5(asked)


@given(st.text(max_size=80))
def test_a_stem_is_found_for_anything(text):
    assert isinstance(stem(text), str)
