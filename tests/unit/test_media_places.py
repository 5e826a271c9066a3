"""Pure parts of pictures, sound and speech: windows, passages, lists of near points, the order after comparing."""

from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.asset import AssetId
from msearchd.domain.media import Modality, Segment, SegmentKind
from msearchd.domain.query import Hit
from msearchd.domain.sample import TimedText
from msearchd.domain.space import SparseVectors, Vectors
from msearchd.media import audio, speech
from msearchd.orchestrator.samples import gapless
from msearchd.search.asker import each
from msearchd.search.examples import spread
from msearchd.search.meaning import nearest
from msearchd.search.rerank import Shown, comparable, reordered
from msearchd.store.vector_store import ScoredPoint


@given(st.integers(0, 3_000_000))
def test_windows_always_cover_the_sound_without_gaps_and_are_never_longer_than_the_model_hears(length_ms):
    windows = audio.windows_of(length_ms)
    assert bool(windows) == (length_ms >= 20)
    if windows:
        assert windows[0][0] == 0
        assert windows[-1][1] == length_ms
        assert all(before[1] == after[0] for before, after in pairwise(windows))
        assert all(0 < t1 - t0 <= audio.WINDOW_MS for t0, t1 in windows)
        assert len(windows) == 1 or windows[-1][1] - windows[-1][0] >= 2_000


@given(st.integers(1, 20_000_000), st.integers(0, 20_000_000))
def test_portions_always_cover_what_is_left_whenever_it_was_cut_off(length_ms, heard_ms):
    windows = [(0, length_ms)]
    whole = speech.portions(windows, from_ms=0)
    assert whole[-1][1] == length_ms
    done = [end for _, end in whole if end <= heard_ms]
    rest = speech.portions(windows, from_ms=done[-1] if done else 0)
    assert [*whole[: len(done)], *rest] == whole


def _pieces():
    step = st.tuples(
        st.integers(0, 4_000), st.integers(0, 8_000), st.sampled_from(["word", " two words ", "", "x" * 90])
    )
    return st.lists(step, max_size=40).map(_timed)


def _timed(steps):
    found, at = [], 0
    for pause, length, text in steps:
        found.append(TimedText(at + pause, at + pause + length, text))
        at += pause + length
    return found


@given(_pieces())
def test_every_word_that_was_said_is_in_one_passage_at_its_time(pieces):
    passages = speech.passages(pieces, first_seq=5)
    assert " ".join(p.text for p in passages) == " ".join(p.text.strip() for p in pieces if p.text.strip())
    assert [p.seq for p in passages] == list(range(5, 5 + len(passages)))
    assert all(p.kind is SegmentKind.TRANSCRIPT and p.t0_ms <= p.t1_ms for p in passages)
    assert all(a.t1_ms <= b.t0_ms for a, b in pairwise(passages))


def test_a_pause_begins_a_new_passage():
    told = [TimedText(0, 1000, "one"), TimedText(1500, 2000, "two"), TimedText(6000, 7000, "three")]
    assert [(p.text, p.t0_ms, p.t1_ms) for p in speech.passages(told)] == [("one two", 0, 2000), ("three", 6000, 7000)]


def test_windows_that_one_pass_decodes_lie_side_by_side():
    places = [
        Segment(SegmentKind.AUDIO, n, t0_ms=t0, t1_ms=t1) for n, (t0, t1) in enumerate([(0, 9), (9, 20), (30, 40)])
    ]
    assert [[s.seq for s in run] for run in gapless(places)] == [[0, 1], [2]]
    assert list(gapless([])) == []


def test_vectors_come_apart_a_sample_each():
    flat = Vectors(bytes(3 * 8), 3, 2)
    assert [one.count for one in each(flat)] == [1, 1, 1]
    multi = Vectors(bytes(range(24)), 3, 2, rows=(2, 1))
    assert [(one.count, one.rows) for one in each(multi)] == [(2, (2,)), (1, (1,))]
    assert b"".join(bytes(one.data) for one in each(multi)) == bytes(range(24))
    sparse = SparseVectors(bytes(range(24)), 3, 900, rows=(2, 0, 1))
    assert [(type(one), one.count, one.rows) for one in each(sparse)] == [(SparseVectors, n, (n,)) for n in (2, 0, 1)]
    assert b"".join(bytes(one.data) for one in each(sparse)) == bytes(range(24))


def test_a_point_that_two_examples_find_counts_with_its_best_score():
    def point(n, score):
        return ScoredPoint(UUID(int=n), SegmentKind.AUDIO, 0, score)

    found = nearest([[point(1, 0.9), point(2, 0.2)], [point(2, 0.95), point(1, 0.1)]])
    assert [(p.content.int, p.score) for p in found] == [(2, 0.95), (1, 0.9)]


@given(st.lists(st.integers(), max_size=50), st.integers(2, 10))
def test_a_spread_begins_at_the_beginning_ends_at_the_end_and_keeps_the_order(items, count):
    found = spread(list(enumerate(items)), count)
    assert len(found) == min(len(items), count)
    assert found == sorted(found)
    assert not items or (found[0][0], found[-1][0]) == (0, len(items) - 1)


def _shown(*passages):
    return [
        Shown(
            Hit(AssetId(n), b"/x", Modality.TEXT, "", "", 0, 0, 1 / (n + 1), (), None, None),
            text,
            is_exact=text == "EXACT",
        )
        for n, text in enumerate(passages)
    ]


def test_compared_passages_change_places_among_themselves_and_pictures_and_exact_names_stay():
    shown = _shown("EXACT", "worst", "", "best", "later")
    places = comparable(shown, at_most=2)
    assert places == [1, 3]
    hits = reordered(shown, {1: 0.1, 3: 0.8})
    assert [hit.asset for hit in hits] == [0, 3, 2, 1, 4]
    assert [(r.list, r.rank, r.score) for r in hits[1].ranks] == [("rerank", 1, 0.8)]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_comparing_never_loses_or_doubles_a_hit(scores):
    shown = _shown(*("text" for _ in scores), "", "")
    hits = reordered(shown, dict(enumerate(scores)))
    assert sorted(hit.asset for hit in hits) == list(range(len(shown)))
