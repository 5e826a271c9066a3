"""What a program on the socket hears of files, folders, scans and models."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace

import msearchd
from msearchd.control.events import EVENTS, EventBus
from msearchd.domain.asset import AssetId, AssetState, RootId, RootState, StatFingerprint
from msearchd.orchestrator.news import News, Seen, ToldChanges, changes_told, differences
from msearchd.watch import changes

ROOT, OTHER = RootId(1), RootId(2)
ROOTS = {ROOT: b"/home/u/docs", OTHER: b"/media/disk"}
FINGERPRINT = StatFingerprint(1, 2, 3, 4)


def test_every_event_that_is_published_is_documented():
    published = set()
    for path in Path(msearchd.__file__).parent.rglob("*.py"):
        published |= set(re.findall(r"publish\(\s*\"([a-z ]+)\"", path.read_text()))
    assert published <= EVENTS.keys()
    assert {"folder added", "draining", "progress"} <= published


def test_changes_are_told_by_absolute_paths():
    batch = [
        changes.FileSeen(ROOT, b"new.txt", FINGERPRINT, is_live=True),
        changes.FileGone(ROOT, b"a/old.txt"),
        changes.FileMoved(ROOT, b"here.txt", OTHER, b"there.txt", FINGERPRINT),
        changes.TreeGone(ROOT, b"a"),
        changes.TreeGone(ROOT, b"c"),
        changes.TreeMoved(ROOT, b"b", ROOT, b"c"),
        changes.RootWent(OTHER, RootState.OFFLINE, "unplugged"),
        changes.RootWent(OTHER, RootState.ONLINE, ""),
        changes.FileGone(RootId(9), b"of a folder that was removed"),
    ]
    told = list(changes_told(batch, ROOTS))
    assert told == [
        ("file removed", {"path": "/home/u/docs/a/old.txt"}),
        ("file moved", {"path": "/home/u/docs/here.txt", "to": "/media/disk/there.txt"}),
        ("folder gone", {"path": "/home/u/docs/a"}),
        ("folder moved", {"path": "/home/u/docs/b", "to": "/home/u/docs/c"}),
        ("folder offline", {"path": "/media/disk", "reason": "unplugged"}),
        ("folder online", {"path": "/media/disk"}),
    ]
    assert {event for event, _ in told} <= EVENTS.keys()


def test_differences_of_two_looks_are_events():
    before = Seen(
        {b"/d": "start", b"/e": ""}, {"m": ("loading", "", ""), "n": ("loaded", "cpu", ""), "o": ("unloaded", "", "")}
    )
    now = Seen(
        {b"/d": "", b"/e": "live"},
        {"m": ("loaded", "cpu", ""), "n": ("unloaded", "", ""), "o": ("unusable", "", "gone")},
    )
    told = list(differences(before, now))
    assert told == [
        ("scan finished", {"path": "/d"}),
        ("scan started", {"path": "/e"}),
        ("model loaded", {"model": "m", "device": "cpu"}),
        ("model unloaded", {"model": "n"}),
        ("model unusable", {"model": "o", "reason": "gone"}),
    ]
    assert {event for event, _ in told} <= EVENTS.keys()
    assert list(differences(now, now)) == []


class Sink:
    def __init__(self):
        self.batches = []

    async def apply(self, batch):
        self.batches.append(batch)


async def test_what_nobody_hears_is_counted_as_missed():
    bus, sink = EventBus(first_id=1), Sink()
    told = ToldChanges(sink, None, bus)  # the catalog is not even asked
    seen = bus.publish("progress")
    await told.apply([changes.FileGone(ROOT, b"a"), changes.FileGone(ROOT, b"b")])
    assert len(sink.batches) == 1
    stream = bus.stream(seen)
    found = await asyncio.wait_for(anext(stream), 1)
    assert (found.event, found.data) == ("lost", {"missed": 2})
    await stream.aclose()


async def test_who_left_a_moment_ago_may_resume_without_loss():
    bus = EventBus(first_id=1)
    assert not bus.is_heard
    stream = bus.stream()
    listening = asyncio.create_task(anext(stream))
    await asyncio.wait_for(bus.listened(), 1)
    last = bus.publish("paused")
    assert (await listening).id == last
    await stream.aclose()
    assert (bus.has_listener, bus.is_heard) == (False, True)
    bus.publish("resumed")
    again = bus.stream(last)
    assert (await asyncio.wait_for(anext(again), 1)).event == "resumed"
    await again.aclose()


class Queue:
    def __init__(self):
        self.changes = 0

    def changes_seen(self):
        return self.changes

    async def wait_change(self, number):
        while self.changes <= number:
            await asyncio.sleep(0.001)


class Files:
    """A catalog of one file: its state at each look, the last one from then on."""

    def __init__(self, *states):
        self.states = list(states)
        self.looks = 0

    async def asset(self, asset):
        self.looks += 1
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return SimpleNamespace(is_gone=False, state=state, path=b"/d/a.txt", type_label="txt", reason="")


async def told_of(files):
    """Events of a file that was noted before its transaction ended, and how often it was looked up."""
    bus, queue = EventBus(first_id=1), Queue()
    news = News(bus=bus, catalog=files, queue=queue, look=lambda: Seen({}, {}))
    stream = bus.stream()
    listening = asyncio.create_task(anext(stream))
    await bus.listened()
    news.note(AssetId(7))
    running = asyncio.create_task(news.run())
    for _ in range(3):
        await asyncio.sleep(0.25)
        queue.changes += 1
    found = listening.result() if listening.done() else None
    for task in (running, listening):
        task.cancel()
    await asyncio.gather(running, listening, return_exceptions=True)
    await stream.aclose()
    return found


async def test_a_file_whose_transaction_was_not_over_at_the_first_look_is_told_at_the_next():
    files = Files(AssetState.PENDING, AssetState.INDEXED)
    found = await told_of(files)
    assert (found.event, found.data) == ("file indexed", {"path": "/d/a.txt", "type": "txt"})
    assert files.looks == 2


async def test_a_file_that_is_at_work_again_is_looked_up_no_third_time():
    files = Files(AssetState.PENDING)
    assert await told_of(files) is None
    assert files.looks == 2
