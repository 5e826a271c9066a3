"""What status says of watching."""

from msearchd.control.replies import WatchReply
from msearchd.orchestrator.status import watch_reply
from msearchd.watch.hints import SourceHealth
from msearchd.watch.report import status_of

QUIET = SourceHealth("inotify")
LOST = SourceHealth(
    "inotify", overflows=1, last_loss=(2000, "the kernel's queue overflowed: everything was compared once more")
)


def told(health, doubt=(0, "")):
    return watch_reply(status_of([], health, last_event_ms=0, pending=3, last_doubt=doubt))


def test_a_watcher_that_never_doubted_says_nothing_of_it():
    assert told(QUIET) == WatchReply(backend="inotify", health="ok", pending=3)


def test_the_later_of_lost_events_and_a_set_clock_is_what_last_cast_doubt():
    slept = (1000, "the machine slept: folders are compared once more")
    assert (told(LOST, slept).last_doubt_ms, told(LOST, slept).last_doubt[:18]) == (2000, "the kernel's queue")
    assert told(QUIET, slept).last_doubt == slept[1]
    assert told(LOST, (3000, slept[1])).last_doubt == slept[1]
