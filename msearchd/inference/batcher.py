"""Gather samples of many files into windows, so that a worker's batches hold samples of like cost.

In: calls with some samples each, all of one kind. Out: their vectors in the order of the call. Calls are gathered while the worker
computes; an idle worker gets a lone call at once, there is no timer. At most two windows are in flight.
A worker that dies costs nobody a failure but the sample that kills it: what was at work is sent again, first to another copy
of the model where one lives, then halved.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from msearchd import errors
from msearchd.aio.child import LinkLost, Reply
from msearchd.domain.sample import Sample
from msearchd.domain.space import Vectors
from msearchd.inference import parcel, windows
from msearchd.inference.gathered import Form, each_item
from msearchd.inference.passages import Call, Passage, Window, poison, while_group
from msearchd.inference.worker_process import StartFailed

log = structlog.get_logger(__name__)

#: Sends one request to the worker and yields the frames of its answer.
Send = Callable[[Mapping[str, Any], bytes], AsyncGenerator[Reply, None]]


class Batcher:
    """Owned by one resident; all state is touched on the loop alone.

    *batch_cost* is the rough cost of a full batch of a kind; *restart* ends the worker (the next request starts a fresh
    one); *forgive* lets a dead one start again without back-off; *on_killed* hears of a worker that was killed; *elsewhere* is
    the batcher of another copy of the model whose worker lives, or None.
    """

    def __init__(
        self,
        send: Send,
        *,
        batch_cost: Callable[[str], int],
        restart: Callable[[], Awaitable[None]],
        forgive: Callable[[], Awaitable[None]],
        on_killed: Callable[[], None],
        elsewhere: Callable[[], Batcher | None] = lambda: None,
    ) -> None:
        self._send = send
        self._cost_of_batch = batch_cost
        self.is_paused = False
        self._restart = restart
        self._forgive = forgive
        self._on_killed = on_killed
        self._elsewhere = elsewhere
        self._waiting: collections.deque[Passage] = collections.deque()
        self._waiting_cost = 0
        self._isolated: collections.deque[Window] = collections.deque()
        self._in_flight: dict[asyncio.Task[None], Window] = {}  # oldest first
        self._pump_is_due = False
        self.passages = 0

    @property
    def waiting(self) -> int:
        """Passages not yet sent."""
        return len(self._waiting) + sum(len(window.passages) for window in self._isolated)

    @property
    def in_flight(self) -> int:
        """Passages sent and not yet answered."""
        return sum(len(window.passages) - len(window.answered) for window in self._in_flight.values())

    @property
    def is_busy(self) -> bool:
        """True while anything waits or is at work."""
        return bool(self._in_flight or self._waiting or self._isolated)

    @property
    def waiting_cost(self) -> int:
        """Rough cost of what was not yet sent."""
        return self._waiting_cost

    def pause(self) -> None:
        """Send nothing more until `resume`. What is in flight waits again: the worker ends its batch at work, no more."""
        self.is_paused = True
        for task, window in reversed(self._in_flight.items()):
            if window.is_suspect:  # the search for who ended the worker goes on
                continue
            self._wait_again(window.open_passages())
            window.passages, window.answered = [], set()
            task.cancel()

    def resume(self) -> None:
        """Go on."""
        self.is_paused = False
        self._pump_soon()

    async def embed(self, samples: Sequence[Sample], *, role: str) -> Vectors:
        """Vectors of *samples*, in order; at least one, all of one group. Cancelled here, what was not sent is dropped.

        Raises BadAsset that names the sample that cannot be embedded, or what loading the model raises.
        """
        group = parcel.group_of(samples[0], role=role)
        call = Call(group, len(samples), asyncio.get_running_loop().create_future(), len(samples))
        for index, sample in enumerate(samples):
            cost = parcel.cost_of(sample)
            self._waiting.append(Passage(call, index, sample, cost, parcel.size_bytes(sample)))
            self._waiting_cost += cost
        self._pump_soon()
        return await call.done  # cancelled: the future is, and passages of a done call are dropped when met

    def take_over(self, found: Sequence[Window]) -> None:
        """Send *found* next, each alone: another copy's worker died at them."""
        self._isolated.extend(found)
        self._pump_soon()

    async def close(self) -> None:
        """End windows in flight; all callers hear RetryLater."""
        stopped = errors.RetryLater("the model is being stopped")
        in_flight = [passage for window in self._in_flight.values() for passage in window.open_passages()]
        isolated = [passage for window in self._isolated for passage in window.passages]
        for passage in [*in_flight, *isolated, *self._waiting]:
            passage.call.fail(stopped)
        self._waiting.clear()
        self._isolated.clear()
        self._waiting_cost = 0
        tasks = list(self._in_flight)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- sending -------------------------------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        # Not at once: callers that are ready in this tick of the loop share the first window.
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        while not self.is_paused and (window := self._next_window()) is not None:
            task = asyncio.create_task(self._run(window), name="embed-window")
            self._in_flight[task] = window
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.pop(task, None)
        self._pump_soon()

    def _next_window(self) -> Window | None:
        # Suspects of a crash travel alone: no neighbour may die with them.
        while self._isolated:
            if self._in_flight:
                return None
            window = self._isolated.popleft()
            window.passages = [passage for passage in window.passages if not passage.call.done.done()]
            if window.passages:
                return window
        while True:
            self._drop_abandoned()
            if not self._waiting or not windows.may_send(
                self._waiting_cost, in_flight=len(self._in_flight), batch_cost=self._batch_cost()
            ):
                return None
            if passages := [passage for passage in self._take() if not passage.call.done.done()]:
                return Window(passages)

    def _take(self) -> list[Passage]:
        first = self._waiting[0].call.group
        sizes = ((passage.cost, passage.size_bytes) for passage in while_group(self._waiting, first))
        taken = [self._waiting.popleft() for _ in range(windows.take_count(sizes, batch_cost=self._batch_cost()))]
        self._waiting_cost -= sum(passage.cost for passage in taken)
        return taken

    def _batch_cost(self) -> int:
        return self._cost_of_batch(self._waiting[0].call.group.kind)

    def _drop_abandoned(self) -> None:
        while self._waiting and self._waiting[0].call.done.done():
            self._waiting_cost -= self._waiting.popleft().cost

    # -- one window ----------------------------------------------------------------------------------------------------

    async def _run(self, window: Window) -> None:
        try:
            if window.wants_fresh_worker:
                await self._restart()
            if window.is_suspect:
                await self._forgive()
            role = window.passages[0].call.group.role
            args, body = parcel.pack([passage.sample for passage in window.passages], role=role)
            async with contextlib.aclosing(self._send(args, body)) as replies:
                async for reply in replies:
                    self._take_frame(window, reply)
        except LinkLost as error:
            self._after_crash(window, error)
        except errors.MsearchError as error:
            # A worker that cannot be started now is no fault of theirs either.
            if isinstance(error, StartFailed) and not window.was_moved and self._move([window.rest()]):
                return
            for passage in window.open_passages():
                passage.call.fail(error)
        except Exception as error:
            for passage in window.open_passages():
                passage.call.fail(errors.Bug(f"{type(error).__name__}: {error}"))
            raise

    def _take_frame(self, window: Window, reply: Reply) -> None:
        if "plan" in reply.args:
            window.plan, window.form = reply.args["plan"], Form.told(reply.args)
        rows: list[int] = reply.args.get("rows", [])
        window.answered.update(rows)
        reason = str(reply.args.get("reason", ""))
        match reply.args.get("failed"):
            case None if rows:
                for index, item_rows, count, cost in each_item(reply):
                    passage = window.passages[index]
                    passage.call.place(passage.index, item_rows, count=count, cost=cost, form=window.form)
                self.passages += len(rows)
            case "memory":
                for index in rows:
                    self._after_shortage(window.passages[index], reason)
            case "poison":
                for index in rows:
                    window.passages[index].call.fail(poison(window.passages[index], reason))

    def _after_shortage(self, passage: Passage, reason: str) -> None:
        """One text alone did not fit: once more in a fresh worker, then later (not the file is bad)."""
        passage.shortages += 1
        if passage.shortages == 1:
            self._isolated.append(Window([passage], wants_fresh_worker=True))
            return
        passage.call.fail(
            errors.RetryLater(
                f"not enough memory to embed one passage: {reason}",
                after_s=30.0,
                hint="free memory, or choose a smaller model",
            )
        )

    def _after_crash(self, window: Window, error: LinkLost) -> None:
        others = [other for other in self._in_flight.values() if other is not window]
        if window.is_innocent or any(self._is_older(other, window) for other in others):
            self._wait_again(window.open_passages())
            return
        for other in others:
            other.is_innocent = True
        suspects = windows.at_work(window.plan, answered=window.answered, size=len(window.passages))
        blamed = set(suspects)
        self._wait_again(
            [
                passage
                for index, passage in enumerate(window.passages)
                if index not in blamed and index not in window.answered
            ]
        )
        if not suspects:
            return
        for index in suspects:
            window.passages[index].crashes += 1
        crashes = max(window.passages[index].crashes for index in suspects)
        was_killed = "SIGKILL" in str(error)
        if was_killed:
            self._on_killed()
        step = windows.after_crash(suspects, crashes=crashes, was_killed=was_killed)
        log.warning("worker died at work", suspects=len(suspects), crashes=crashes, reason=str(error))
        if step.is_poison:
            passage = window.passages[suspects[0]]
            passage.call.fail(poison(passage, f"it ended its model's process twice ({error})"))
        again = [Window([window.passages[index] for index in group], is_suspect=True) for group in step.again]
        # The first crash may be the worker's own (its device, the kernel): a copy that lives need not wait for a restart.
        # The second one is the batch's, and its halves search for the culprit at one place: nobody else dies for it.
        if crashes > 1 or not self._move(again):
            self._isolated.extend(again)

    def _move(self, found: Sequence[Window]) -> bool:
        """Hand *found* to another copy of the model; False where none lives. Their calls stay the callers' own."""
        other = self._elsewhere()
        if other is None or not found:
            return False
        for window in found:
            window.was_moved = True
        other.take_over(found)
        return True

    def _is_older(self, one: Window, other: Window) -> bool:
        order = list(self._in_flight.values())
        return order.index(one) < order.index(other)

    def _wait_again(self, passages: list[Passage]) -> None:
        self._waiting.extendleft(reversed(passages))
        self._waiting_cost += sum(passage.cost for passage in passages)
