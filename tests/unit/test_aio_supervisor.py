"""Services fall, come back, are given up, and stop in order. Virtual time."""

from __future__ import annotations

import asyncio

import pytest

from msearchd import errors
from msearchd.aio.supervisor import Service, ServiceState, Supervisor

pytestmark = pytest.mark.looptime


class Falling:
    """Falls at the times given (seconds after its start), then runs for ever."""

    def __init__(self, *after_s: float, error: Exception | None = None) -> None:
        self.after_s = list(after_s)
        self.error = error or OSError("gone")
        self.starts = 0

    async def __call__(self) -> None:
        self.starts += 1
        if self.after_s:
            await asyncio.sleep(self.after_s.pop(0))
            raise self.error
        await asyncio.Event().wait()


async def forever() -> None:
    await asyncio.Event().wait()


async def running(supervisor: Supervisor, for_s: float) -> asyncio.Task[None]:
    task = asyncio.create_task(supervisor.run())
    await asyncio.wait({task}, timeout=for_s)
    return task


async def test_a_service_that_falls_is_restarted_and_its_neighbours_never_notice():
    falling, neighbour = Falling(1.0), Falling()
    supervisor = Supervisor([Service("a", falling, is_critical=True), Service("b", neighbour)])
    task = await running(supervisor, 30)
    assert (falling.starts, neighbour.starts) == (2, 1)
    first, _ = supervisor.snapshot()
    assert (first.state, first.restarts, first.error) == (ServiceState.RUNNING, 1, "OSError('gone')")
    supervisor.stop()
    await task


async def test_waits_between_restarts_grow():
    falling = Falling(*[0.0] * 5)
    supervisor = Supervisor([Service("a", falling)], base_s=1.0)
    task = await running(supervisor, 3)
    early = falling.starts
    await asyncio.sleep(60)
    assert early <= 3
    assert falling.starts == 6
    supervisor.stop()
    await task


async def test_a_service_told_to_come_later_is_not_restarted_before():
    falling = Falling(0.0, error=errors.RetryLater("busy", after_s=50))
    supervisor = Supervisor([Service("a", falling)])
    task = await running(supervisor, 49)
    assert falling.starts == 1
    assert supervisor.snapshot()[0].state is ServiceState.WAITING
    await asyncio.sleep(2)
    assert falling.starts == 2
    supervisor.stop()
    await task


async def test_a_healthy_time_between_forgives_earlier_falls():
    falling = Falling(*[100.0] * 5)
    supervisor = Supervisor([Service("a", falling, is_critical=True)], healthy_after_s=60, max_falls=3)
    task = await running(supervisor, 1000)
    assert not task.done()
    assert falling.starts == 6
    supervisor.stop()
    await task


async def test_a_critical_service_that_keeps_falling_ends_the_daemon_after_the_others_stopped():
    stopped = []

    async def other() -> None:
        try:
            await forever()
        finally:
            stopped.append("other")

    supervisor = Supervisor(
        [Service("other", other), Service("a", Falling(*[0.0] * 99), is_critical=True)], max_falls=3
    )
    with pytest.raises(errors.Bug, match="the service a is lost") as caught:
        await supervisor.run()
    assert isinstance(caught.value.__cause__, OSError)
    assert stopped == ["other"]
    assert supervisor.snapshot()[1].state is ServiceState.LOST


async def test_losing_another_service_leaves_the_daemon_running_and_says_so():
    supervisor = Supervisor([Service("a", Falling(*[0.0] * 99)), Service("b", forever, is_critical=True)], max_falls=3)
    task = await running(supervisor, 1000)
    assert not task.done()
    assert [status.state for status in supervisor.snapshot()] == [ServiceState.LOST, ServiceState.RUNNING]
    supervisor.stop()
    await task


async def test_misconfigured_is_not_tried_again():
    falling = Falling(0.0, error=errors.Misconfigured("no folder", hint="make it"))
    with pytest.raises(errors.Misconfigured, match="no folder"):
        await Supervisor([Service("a", falling, is_critical=True)]).run()
    assert falling.starts == 1


async def test_a_critical_service_that_just_returns_is_a_bug():
    async def returns() -> None:
        await asyncio.sleep(1)

    with pytest.raises(errors.Bug, match="ended by itself"):
        await Supervisor([Service("a", returns, is_critical=True)]).run()


async def test_a_task_that_ends_is_not_restarted_where_the_daemon_can_do_without():
    async def returns() -> None:
        await asyncio.sleep(1)

    supervisor = Supervisor([Service("once", returns)])
    task = await running(supervisor, 10)
    assert supervisor.snapshot()[0].state is ServiceState.ENDED
    supervisor.stop()
    await task


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_services_stop_in_reverse_order_each_after_the_next_has_ended(how):
    ended: list[tuple[str, float]] = []

    def slow(name: str, takes_s: float):
        async def run() -> None:
            try:
                await forever()
            finally:
                await asyncio.sleep(takes_s)
                ended.append((name, asyncio.get_running_loop().time()))

        return Service(name, run)

    supervisor = Supervisor([slow("store", 1), slow("workers", 2), slow("api", 3)])
    task = await running(supervisor, 10)
    supervisor.stop() if how == "stop" else task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [name for name, _ in ended] == ["api", "workers", "store"]
    assert [round(at) for _, at in ended] == [13, 15, 16]


async def test_a_service_that_will_not_stop_holds_up_the_others_for_its_grace_alone():
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    supervisor = Supervisor([Service("a", forever), Service("b", stubborn, stop_grace_s=5)])
    task = await running(supervisor, 1)
    supervisor.stop()
    await task
    assert asyncio.get_running_loop().time() == pytest.approx(6, abs=0.1)
    release.set()
    await asyncio.sleep(0)


async def test_a_service_stopped_while_it_waits_for_its_restart_is_not_started_again():
    falling = Falling(0.0, 0.0)
    supervisor = Supervisor([Service("a", falling)], base_s=100.0)
    task = await running(supervisor, 1)
    supervisor.stop()
    await task
    await asyncio.sleep(1000)
    assert falling.starts == 1
