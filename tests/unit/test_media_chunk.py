import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.media.chunk import CHUNKING_VERSION, ChunkRules, split_text
from msearchd.media.registry import Structure

_WORDISH = st.text(
    alphabet=st.one_of(
        st.sampled_from(" \n\t.!?,;#ab def class\r\u0301。、京é"), st.characters(exclude_categories=("Cs",))
    ),
    max_size=600,
)
_RULES = st.builds(ChunkRules, st.integers(8, 120), st.integers(0, 150))


def page_starts(text, cuts):
    return [(place, page) for page, place in enumerate(sorted({cut % (len(text) + 1) for cut in cuts}), 1)]


@given(_WORDISH, _RULES, st.sampled_from(Structure), st.lists(st.integers(0, 600), max_size=5))
def test_every_visible_character_lies_in_a_passage_and_offsets_are_exact(text, rules, structure, cuts):
    pages = page_starts(text, cuts)
    passages = list(split_text(text, rules=rules, structure=structure, page_starts=pages))
    covered = set()
    for part in passages:
        body = text[part.start : part.end]
        assert 0 < len(body) <= rules.max_chars
        assert not body[0].isspace()
        assert not body[-1].isspace()
        covered.update(range(part.start, part.end))
    assert all(text[place].isspace() for place in set(range(len(text))) - covered)


@given(_WORDISH, _RULES, st.sampled_from(Structure), st.lists(st.integers(0, 600), max_size=5))
def test_a_passage_never_crosses_a_page_and_names_its_own(text, rules, structure, cuts):
    pages = page_starts(text, cuts)
    for part in split_text(text, rules=rules, structure=structure, page_starts=pages):
        begun = [page for place, page in pages if place <= part.start]
        assert part.page == (begun[-1] if begun else None)
        assert not any(part.start < place < part.end for place, _ in pages)


@given(_WORDISH, _RULES, st.sampled_from(Structure))
def test_neighbours_never_share_more_than_the_overlap_and_always_move_on(text, rules, structure):
    passages = list(split_text(text, rules=rules, structure=structure))
    for before, after in pairwise(passages):
        assert after.start > before.start
        assert after.end > before.end
        assert before.end - after.start <= rules.overlap


def test_paragraphs_stay_whole_where_they_fit():
    paragraphs = ["The ferry leaves at nine. " * 8, "The storm took the jetty. " * 8, "We kept the lamp burning. " * 8]
    text = "\n\n".join(item.strip() for item in paragraphs)
    bodies = [text[part.start : part.end] for part in split_text(text, rules=ChunkRules(300, 50))]
    assert bodies == [item.strip() for item in paragraphs]


def test_a_long_paragraph_is_cut_after_a_sentence_and_repeats_a_little():
    text = " ".join(f"Sentence number {n} tells of the sea." for n in range(40))
    passages = list(split_text(text, rules=ChunkRules(300, 60)))
    assert all(text[part.end - 1] == "." for part in passages)
    assert all(text[part.start :].startswith("Sentence") for part in passages)
    assert all(after.start < before.end for before, after in pairwise(passages))


def test_markdown_begins_passages_at_headings():
    text = "\n".join(f"# Chapter {n}\n\n" + "Words of this chapter go on. " * 9 for n in range(6))
    starts = [
        text[part.start : part.start + 9]
        for part in split_text(text, rules=ChunkRules(400, 50), structure=Structure.MARKDOWN)
    ]
    assert starts == ["# Chapter" for _ in range(6)]


def test_code_begins_passages_at_definitions():
    text = "\n\n".join(f"def function_{n}(x):\n    y = x + {n}\n\n    return y * y  # {'long ' * 20}" for n in range(8))
    starts = [
        text[part.start : part.start + 4]
        for part in split_text(text, rules=ChunkRules(250, 50), structure=Structure.CODE)
    ]
    assert set(starts) == {"def "}


def test_no_crumb_is_left_at_the_end():
    text = "word " * 181  # 905 characters: one passage and a bit
    lengths = [part.end - part.start for part in split_text(text, rules=ChunkRules(800, 0))]
    assert len(lengths) == 2
    assert min(lengths) > 250


def test_a_combining_mark_stays_with_its_letter():
    text = "e\u0301" * 300
    assert all(text[part.start] == "e" for part in split_text(text, rules=ChunkRules(101, 0)))


def test_the_fingerprint_tells_version_and_lengths():
    assert ChunkRules(800, 100).fingerprint() == f"{CHUNKING_VERSION}:800:100"
    assert ChunkRules(100, 5000).fingerprint() == f"{CHUNKING_VERSION}:100:50"


@pytest.mark.parametrize("text", ["x" * 400_000, "\n" * 400_000, " \n" * 200_000, "a. " * 130_000, "a\n\n" * 130_000])
def test_time_is_linear_in_strange_texts(text):
    begun = time.process_time()
    count = sum(1 for _ in split_text(text, rules=ChunkRules(), structure=Structure.MARKDOWN))
    assert count <= len(text) // 200 + 1
    assert time.process_time() - begun < 3.0
