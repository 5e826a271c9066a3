"""Hints in bounded memory: fewer, and never one too few."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.asset import Root, RootId
from msearchd.watch import hints, paths
from msearchd.watch.backlog import HintBacklog
from msearchd.watch.disk import RootContext
from msearchd.watch.hints import Hint
from msearchd.watch.scan import ScanJob

ONE = RootId(1)
NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
PATHS = st.lists(NAMES, max_size=3).map(b"/".join)
HINTS = st.builds(
    Hint,
    root=st.sampled_from([ONE, RootId(2)]),
    path=PATHS,
    is_recursive=st.booleans(),
    flags=st.sampled_from([hints.CREATED, hints.CLOSED, hints.GONE, hints.DIR | hints.CREATED, hints.DIR | hints.LOST]),
)


def speaks_for(taken, hint):
    if taken.root != hint.root:
        return False
    if taken.is_recursive and paths.is_below(hint.path, taken.path):
        return True
    if taken.path == hint.path and (taken.is_recursive or not hint.is_recursive):
        return True
    is_file = not hint.is_recursive and not hint.flags & hints.DIR
    return is_file and bool(taken.flags & hints.DIR) and taken.path == paths.parent(hint.path)


@given(st.lists(HINTS, max_size=60), st.integers(2, 8))
def test_whatever_the_bound_every_hint_is_spoken_for(stream, bound):
    backlog = HintBacklog(max_hints=bound)
    for hint in stream:
        backlog.put(hint)
        assert len(backlog) <= 2 * bound
    taken = backlog.take()
    assert [hint for hint in stream if not any(speaks_for(one, hint) for one in taken)] == []
    assert backlog.take() == []


def test_the_files_of_a_burst_become_one_hint_on_their_folder():
    backlog = HintBacklog(max_hints=1000)
    for n in range(200_000):
        backlog.put(Hint(ONE, b"copy/%d" % n, flags=hints.CLOSED))
    assert len(backlog) <= 1000
    assert all(hint.path == b"copy" for hint in backlog.take() if hint.flags & hints.DIR)


def test_what_a_writer_closed_stays_closed_when_its_times_are_set_afterwards():
    backlog = HintBacklog(max_hints=2)
    for flags in (hints.CREATED, hints.CLOSED, hints.ATTRIB):
        backlog.put(Hint(ONE, b"a", flags=flags))
    assert backlog.take()[0].flags & hints.CLOSED


async def test_a_walk_asked_to_begin_at_thousands_of_new_folders_begins_above_them():
    job = ScanJob(RootContext(Root(ONE, b"/r"), None, None, 1), path=b"x/0", folders=(b"x/0",), kind="live")
    for n in range(200):
        job.add(tuple(b"x/y%d/z%d" % (n, m) for m in range(100)))
        assert len(job.folders) <= 5100
    assert (job.folders[0], job.kind) == (b"x", "repair")
    await asyncio.sleep(0)
