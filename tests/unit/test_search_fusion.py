import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.search.fusion import Entry, RankedList, fuse


def ranked(name, *files, weight=1.0, strength=1.0):
    return RankedList(name, weight, [Entry(file, ("body", 0), -i, strength) for i, file in enumerate(files)])


def files(fused):
    return [one.file for one in fused]


entries = st.builds(
    Entry,
    file=st.integers(-5, 12),
    place=st.none() | st.tuples(st.sampled_from(["body", "ocr"]), st.integers(0, 3)),
    score=st.floats(-5, 5),
    strength=st.sampled_from([0.25, 0.7, 1.0, 1.5]),
)
lists_of_entries = st.lists(
    st.builds(
        RankedList, name=st.sampled_from(["words", "names", "space-a", "space-b"]), weight=st.sampled_from([0.5, 1.0, 2.0]),
        entries=st.lists(entries, max_size=12),
    ),
    max_size=4, unique_by=lambda one: one.name,
)  # fmt: skip


def test_a_file_in_two_lists_beats_the_first_of_one():
    assert files(fuse([ranked("words", 1, 2), ranked("space", 3, 2)], k=10))[0] == 2


def test_a_weight_counts_as_often_as_it_says():
    assert files(fuse([ranked("words", 1), ranked("space", 2, weight=2)], k=10)) == [2, 1]


def test_a_list_of_weight_zero_names_no_file():
    assert files(fuse([ranked("words", 1), ranked("space", 2, weight=0)], k=10)) == [1]


def test_ties_are_broken_by_file():
    assert files(fuse([ranked("space", 2), ranked("words", 1)], k=10)) == [1, 2]


def test_an_exact_name_comes_first_whatever_the_scores():
    exact = RankedList("names", 0.01, [Entry(9, None, 1.0, 1.0, is_exact=True)])
    assert files(fuse([ranked("words", 1, 2), ranked("space", 1, 2), exact], k=10))[0] == 9


def test_the_score_is_the_published_formula():
    [one] = fuse([ranked("words", 1), RankedList("space", 2.0, [Entry(7, None, 0), Entry(1, None, 0)])], k=10)[:1]
    assert one.file == 1
    assert one.score == pytest.approx(1 / 11 + 2 / 12)
    assert [(rank.list, rank.rank) for rank in one.ranks] == [("words", 1), ("space", 2)]


def test_ranks_count_files_and_not_their_places():
    book = [Entry(1, ("body", seq), 0) for seq in range(50)]
    fused = fuse([RankedList("words", 1, [*book, Entry(2, ("body", 0), 0)])], k=10)
    assert {one.file: one.ranks[0].rank for one in fused} == {1: 1, 2: 2}


def test_the_place_that_most_lists_found_is_shown():
    words = RankedList("words", 1, [Entry(1, ("body", 3), 0), Entry(1, ("body", 5), 0)])
    space = RankedList("space", 1, [Entry(1, ("body", 5), 0)])
    assert fuse([words, space], k=10)[0].place == ("body", 5)


def test_many_middling_places_add_less_than_one_better_rank():
    one_place = [Entry(1, ("body", 0), 0)]
    many = [Entry(2, ("body", seq), 0) for seq in range(1000)]
    assert files(fuse([RankedList("words", 1, [*one_place, *many])], k=1)) == [1, 2]


@given(lists_of_entries, st.randoms(use_true_random=False))
def test_the_order_of_the_lists_never_matters(lists, random):
    shuffled = list(lists)
    random.shuffle(shuffled)
    assert fuse(lists, k=10) == fuse(shuffled, k=10)


@given(lists_of_entries)
def test_every_file_is_there_once_and_scores_fall(lists):
    fused = fuse(lists, k=10)
    assert sorted(files(fused)) == sorted({entry.file for one in lists for entry in one.entries})
    assert all(a.is_exact > b.is_exact or a.score >= b.score for a, b in pairwise(fused))
    assert all(math.isfinite(one.score) for one in fused)


@given(lists_of_entries, st.data())
def test_a_better_rank_never_lowers_a_score(lists, data):
    """Moving one entry to the front of its list (one place a file) never makes its file worse."""
    lists = [
        RankedList(one.name, one.weight, list({entry.file: entry for entry in one.entries}.values())) for one in lists
    ]
    candidates = [i for i, one in enumerate(lists) if one.entries]
    if not candidates:
        return
    which = data.draw(st.sampled_from(candidates))
    at = data.draw(st.integers(0, len(lists[which].entries) - 1))
    moved = lists[which].entries[at]
    better = [moved, *lists[which].entries[:at], *lists[which].entries[at + 1 :]]
    after = [*lists[:which], RankedList(lists[which].name, lists[which].weight, better), *lists[which + 1 :]]
    score = {one.file: one.score for one in fuse(lists, k=10)}[moved.file]
    assert {one.file: one.score for one in fuse(after, k=10)}[moved.file] >= score


@given(lists_of_entries)
def test_adding_a_list_of_weight_zero_changes_nothing(lists):
    extra = RankedList("zero", 0.0, [Entry(99, None, 1.0, is_exact=True)])
    assert fuse([*lists, extra], k=10) == fuse(lists, k=10)
