"""Children: whatever one of them does, the parent hears of it in time and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msearchd import errors
from msearchd.aio import wire
from msearchd.aio.child import Child, ChildSpec, DeadlineExpired, KeptChild, Limits, LinkLost

TESTS = Path(__file__).resolve().parent.parent
OTHER_PYTHON = TESTS.parent / ".venv-infinity/bin/python"

#: Stands for the interpreter: boots as the real one does, but finds the tests' child module.
WRAPPER = """#!{python}
import runpy, sys
sys.path.append({tests!r})
sys.argv = sys.argv[2:]  # it was called with -I first
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def interpreter(tmp_path: Path, python: str = sys.executable) -> str:
    path = tmp_path / "python"
    path.write_text(WRAPPER.format(python=python, tests=str(TESTS)))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def spec(tmp_path):
    def make(**changes) -> ChildSpec:
        fields = {"name": "test", "module": "aio_child_side", "python": interpreter(tmp_path), "ready_deadline_s": 20}
        return ChildSpec(**{**fields, **changes})

    return make


@pytest.fixture
async def child(spec):
    child = await Child.start(spec())
    yield child
    await child.stop(grace_s=0)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while is_running(pid):
            await asyncio.sleep(0.01)


async def test_args_and_body_come_back_as_they_went_also_names_that_are_no_text(child):
    args = {"a": 1, "b": [None, 2.5, b"\xff\x00"], "path": "caf\udce9"}
    body = os.urandom(3_000_000)
    reply = await child.link.call("echo", args, body, deadline_s=10)
    assert dict(reply.args) == args
    assert reply.body == body


async def test_many_requests_at_once_get_each_their_own_answer(child):
    replies = await asyncio.gather(*(child.link.call("echo", {"n": n}, deadline_s=10) for n in range(200)))
    assert [reply.args["n"] for reply in replies] == list(range(200))
    assert child.in_flight == 0


async def test_an_error_of_ours_crosses_the_wire_as_itself(child):
    with pytest.raises(errors.BadAsset, match="not a picture") as caught:
        await child.link.call("fail", deadline_s=10)
    assert caught.value.hint == "look at it"


async def test_a_bug_in_a_handler_is_told_and_the_child_lives_on(child):
    with pytest.raises(errors.Bug, match="IndexError"):
        await child.link.call("bug", deadline_s=10)
    with pytest.raises(errors.Bug, match="no operation 'nonsense'"):
        await child.link.call("nonsense", deadline_s=10)
    assert (await child.link.call("echo", {"n": 1}, deadline_s=10)).args == {"n": 1}


@pytest.mark.parametrize(("how", "reason"), [("exit", "exit status 7"), ("segfault", "SIGSEGV")])
async def test_a_crash_is_told_to_every_waiter_with_its_reason_and_last_words(child, how, reason):
    crashing = [child.link.call("crash", {"how": how}, deadline_s=30), child.link.call("echo", deadline_s=30)]
    for result in await asyncio.gather(*crashing, return_exceptions=True):
        assert isinstance(result, LinkLost)
        assert reason in str(result)
        assert "about to fall over" in str(result)
    assert not child.is_alive
    with pytest.raises(LinkLost):
        await child.link.call("echo", deadline_s=1)


async def test_a_segfault_names_its_line(child):
    with pytest.raises(LinkLost, match=r"aio_child_side\.py"):
        await child.link.call("crash", {"how": "segfault"}, deadline_s=30)


async def test_a_hang_ends_at_its_deadline(child):
    started = time.monotonic()
    with pytest.raises(DeadlineExpired, match=r"within 0\.2 s"):
        await child.link.call("sleep", {"s": 60}, deadline_s=0.2)
    assert time.monotonic() - started < 2


async def test_a_frozen_child_that_takes_no_more_bytes_runs_into_the_deadline_too(child):
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineExpired):
        await child.link.call("echo", {}, bytes(64_000_000), deadline_s=0.3)


async def test_a_stream_yields_every_part_in_order(child):
    numbers = [r.args["number"] async for r in child.link.stream("count", {"n": 50}, deadline_s=10) if r.more]
    assert numbers == list(range(50))


async def test_leaving_a_stream_cancels_it_in_the_child(child):
    async with contextlib.aclosing(
        child.link.stream("count", {"n": 10_000, "pause_s": 0.01}, deadline_s=60)
    ) as replies:
        async for reply in replies:
            if reply.args["number"] == 3:
                break
    state = (await child.link.call("state", deadline_s=10)).args
    assert 3 < state["stopped_at"] < 1000


async def test_a_cancelled_request_that_still_waits_is_never_run(child):
    busy = asyncio.create_task(child.link.call("sleep", {"s": 0.2}, deadline_s=10))
    await asyncio.sleep(0.05)
    doomed = asyncio.create_task(child.link.call("crash", deadline_s=10))
    await asyncio.sleep(0.05)
    doomed.cancel()
    await asyncio.gather(doomed, return_exceptions=True)
    await busy
    assert (await child.link.call("echo", {"n": 1}, deadline_s=10)).args == {"n": 1}


async def test_interactive_requests_overtake_bulk_ones(child):
    order: list[str] = []

    async def call(name: str, op: str, args: dict, lane: int) -> None:
        await child.link.call(op, args, deadline_s=20, lane=lane)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(call("first bulk", "sleep", {"s": 0.2}, wire.LANE_BULK))
        await asyncio.sleep(0.05)
        group.create_task(call("second bulk", "sleep", {"s": 0.05}, wire.LANE_BULK))
        await asyncio.sleep(0.05)
        group.create_task(call("search", "echo", {}, wire.LANE_INTERACTIVE))
    assert order == ["first bulk", "search", "second bulk"]


async def test_long_bulk_work_lets_a_search_pass_between_its_batches(child):
    bulk = asyncio.create_task(child.link.call("batches", {"n": 100}, deadline_s=20))
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await child.link.call("echo", deadline_s=10, lane=wire.LANE_INTERACTIVE)
    assert time.monotonic() - started < 1
    assert (await bulk).args["passed"] == 1


async def test_a_ping_is_answered_while_a_handler_computes(child):
    busy = asyncio.create_task(child.link.call("sleep", {"s": 0.5}, deadline_s=10))
    await asyncio.sleep(0.05)
    await child.link.call("ping", deadline_s=0.3)
    await busy


async def test_a_memory_limit_hurts_only_the_request(spec):
    child = await Child.start(spec(limits=Limits(memory_bytes=600 * 2**20)))
    try:
        with pytest.raises(errors.BadAsset, match="memory"):
            await child.link.call("eat", {"bytes": 2 * 2**30}, deadline_s=10)
        assert (await child.link.call("eat", {"bytes": 1000}, deadline_s=10)).args == {"bytes": 1000}
    finally:
        await child.stop()


async def test_a_child_is_nicer_and_the_first_to_go_when_memory_runs_out(spec):
    child = await Child.start(spec(limits=Limits(nice=5, oom_score_adj=700)))
    found = (await child.link.call("limits", deadline_s=10)).args
    await child.stop()
    assert found == {"nice": os.nice(0) + 5, "oom": "700"}


async def test_a_child_sees_little_of_our_environment_and_the_daemon_package_alone(spec, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    child = await Child.start(spec(env={"WANTED": "y"}))
    found = (await child.link.call("environment", deadline_s=10)).args
    await child.stop()
    assert "SECRET_TOKEN" not in found["env"]
    assert "WANTED" in found["env"]
    assert "asyncio" not in found["modules"]  # a child pays for what it uses


@pytest.mark.skipif(not OTHER_PYTHON.exists(), reason="made by `make infinity`")
async def test_another_interpreter_serves_as_well(tmp_path, spec):
    child = await Child.start(spec(python=interpreter(tmp_path, str(OTHER_PYTHON))))
    found = (await child.link.call("environment", deadline_s=10)).args
    await child.stop()
    assert not [name for name in found["modules"] if name.startswith(("structlog", "aiosqlite"))]


async def test_an_interpreter_that_is_not_there_is_told_with_its_path(spec):
    with pytest.raises(errors.Misconfigured, match="/nowhere/python"):
        await Child.start(spec(python="/nowhere/python"))


async def test_what_a_start_reports_is_raised_as_itself(spec):
    with pytest.raises(errors.Misconfigured, match="no weights") as caught:
        await Child.start(spec(start={"misconfigured": True}))
    assert caught.value.key == "model:x"
    with pytest.raises(errors.Bug, match="ZeroDivisionError"):
        await Child.start(spec(start={"raise_at_start": True}))


async def test_a_child_that_dies_at_start_says_its_last_words(spec):
    with pytest.raises(LinkLost, match=r"exit status 3; last words: cannot go on"):
        await Child.start(spec(start={"die_at_start": True}))


async def test_a_start_that_takes_too_long_leaves_no_process(spec):
    before = set(children())
    with pytest.raises(DeadlineExpired, match="not ready"):
        await Child.start(spec(start={"ready_after_s": 60}, ready_deadline_s=0.5))
    assert set(children()) <= before


async def test_a_cancelled_start_leaves_no_process(spec):
    before = set(children())
    starting = asyncio.create_task(Child.start(spec(start={"ready_after_s": 60})))
    await asyncio.sleep(0.3)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert set(children()) <= before


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(spec):
    child = await Child.start(spec(start={"ignore_term": True}))
    started = time.monotonic()
    await child.stop(grace_s=0.3)
    assert 0.3 <= time.monotonic() - started < 3
    assert not is_running(child.pid)


@pytest.mark.parametrize("end", ["stop", "crash"])
async def test_what_a_child_started_goes_with_it(child, end):
    pid = (await child.link.call("grandchild", deadline_s=10)).args["pid"]
    assert is_running(pid)
    if end == "stop":
        await child.stop()
    else:
        with pytest.raises(LinkLost):
            await child.link.call("crash", deadline_s=10)
    await until_gone(pid)


PARENT = """
import asyncio, sys
from msearchd.aio.child import Child, ChildSpec
async def main():
    child = await Child.start(ChildSpec(name="x", module="aio_child_side", python=sys.argv[1]))
    busy = asyncio.create_task(child.link.call("sleep", {"s": 600}, deadline_s=600))
    await asyncio.sleep(0.1)
    print(child.pid, flush=True)
    await busy
asyncio.run(main())
"""


async def test_a_child_dies_with_a_killed_parent_even_in_the_middle_of_work(tmp_path):
    with subprocess.Popen([sys.executable, "-c", PARENT, interpreter(tmp_path)], stdout=subprocess.PIPE) as parent:
        pid = int(next(line for line in parent.stdout if line.strip().isdigit()))  # the rest is its log
        assert is_running(pid)
        parent.kill()
    await until_gone(pid)


# -- KeptChild -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def kept(spec):
    kept = KeptChild(spec(), forgive_every_s=60)
    yield kept
    await kept.stop()


async def crash(kept: KeptChild) -> None:
    with pytest.raises(LinkLost):
        await kept.call("crash", deadline_s=20)


async def test_a_kept_child_starts_at_its_first_use_and_once_for_all(kept):
    assert kept.child is None
    pids = {
        reply.args["pid"]
        for reply in await asyncio.gather(*(kept.call("sleep", {"s": 0}, deadline_s=20) for _ in range(5)))
    }
    assert len(pids) == 1
    assert kept.restarts == 0


async def test_after_one_crash_it_is_back_at_once_after_more_it_waits(kept):
    await crash(kept)
    assert (await kept.call("echo", {"n": 1}, deadline_s=20)).args == {"n": 1}
    await crash(kept)
    with pytest.raises(errors.RetryLater, match="restarts in") as caught:
        await kept.call("echo", deadline_s=20)
    assert 0 < caught.value.after_s < 1
    await asyncio.sleep(caught.value.after_s)
    assert (await kept.call("echo", {"n": 2}, deadline_s=20)).args == {"n": 2}
    assert kept.restarts == 2


async def test_each_healthy_time_forgives_one_crash(spec):
    kept = KeptChild(spec(), forgive_every_s=0.1)
    for _ in range(3):
        await kept.ready()
        await asyncio.sleep(0.15)
        await crash(kept)
    assert (await kept.call("echo", {"n": 1}, deadline_s=20)).args == {"n": 1}
    await kept.stop()


async def test_a_child_that_never_starts_backs_off_as_well(spec):
    kept = KeptChild(spec(start={"die_at_start": True}))
    for _ in range(2):
        with pytest.raises(LinkLost):
            await kept.ready()
    with pytest.raises(errors.RetryLater, match="restarts in"):
        await kept.ready()
    await kept.stop()


async def test_a_misconfigured_child_may_be_tried_again_at_once(spec):
    kept = KeptChild(spec(start={"misconfigured": True}))
    for _ in range(3):
        with pytest.raises(errors.Misconfigured):
            await kept.ready()
    await kept.stop()


async def test_a_kept_child_that_hangs_is_replaced(kept):
    first = await kept.ready()
    with pytest.raises(DeadlineExpired):
        await kept.call("sleep", {"s": 600}, deadline_s=0.2)
    assert (await kept.call("echo", {"n": 1}, deadline_s=20)).args == {"n": 1}
    assert (await kept.ready()).pid != first.pid


async def test_a_released_child_gives_its_memory_back_and_comes_back_without_a_wait(kept):
    first = await kept.ready()
    assert first.resident_bytes() > 5_000_000
    await kept.release()
    assert not is_running(first.pid)
    assert (await kept.call("echo", {"n": 1}, deadline_s=20)).args == {"n": 1}
    assert kept.restarts == 0


async def test_a_stopped_one_stays_stopped(kept):
    await kept.ready()
    await kept.stop()
    with pytest.raises(errors.RetryLater, match="stopped"):
        await kept.call("echo", deadline_s=20)
