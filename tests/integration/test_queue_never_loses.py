"""No file is lost, none is worked on twice at once: any order of changes, work, trouble, kills and clock jumps.

The machine drives the real queue on a real file. Its model says per (asset, step, target) what is owed and since when;
after each rule the table must hold exactly that.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetId
from msearchd.domain.job import JobState, Outcome, Owed, Priority, Step
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings

LONG = bool(os.environ.get("MSEARCHD_LONG"))
ASSETS = st.integers(1, 3).map(AssetId)
STEPS = st.sampled_from([(Step.IDENTIFY, ""), (Step.EXTRACT, ""), (Step.EMBED, "m1"), (Step.EMBED, "m2")])
PRIORITIES = st.sampled_from(list(Priority))
EXTRACTING, EMBEDDING = [(Step.IDENTIFY, None), (Step.EXTRACT, None)], [(Step.EMBED, "m1"), (Step.EMBED, "m2")]
LANES = [EXTRACTING, EMBEDDING, [*EXTRACTING, (Step.EMBED, None)]]
CAUSES = st.sampled_from(["x", "y"])
EVERYTHING = [(step, None) for step in Step]
SETTINGS = QueueSettings(max_attempts=3, retry_base_s=1, retry_cap_s=60, history_rows=20)


class QueueNeverLosesAFile(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="queue-"))
        self.now = 1_700_000_000_000
        self.version: dict[tuple[AssetId, Step, str], int] = {}  # owed keys and the version of their bytes
        self.in_hand: list[tuple[object, int]] = []  # (job, version when claimed)
        self.failed: set[tuple[AssetId, Step, str]] = set()
        self.serial = 0
        self.run(self._open())

    def run(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 20))

    async def _open(self):
        self.database = await Database.open(self.folder / "db")
        self.queue = JobQueue(self.database, SETTINGS, now_ms=lambda: self.now)
        for key in await self.queue.open():
            self.failed.add(key)

    def key(self, job):
        return (job.asset, job.step, job.target)

    def _owe(self, key):
        self.serial += 1
        self.version[key] = self.serial
        self.failed.discard(key)

    # -- rules: few and broad, so that a run goes deep instead of wide -------------------------------------------------

    def _some_key(self, data):
        """Any key; half of the time one that is in work, where the hard cases are."""
        if self.in_hand and data.draw(st.booleans(), label="in work"):
            return self.key(data.draw(st.sampled_from(self.in_hand))[0])
        return (data.draw(ASSETS), *data.draw(STEPS))

    @rule(data=st.data(), priority=PRIORITIES)
    def file_changes(self, data, priority):
        key = self._some_key(data)
        self.run(self.queue.enqueue([Owed(*key, priority)]))
        self._owe(key)

    @rule(data=st.data())
    def file_goes(self, data):
        asset = self._some_key(data)[0]
        self.run(self.database.write(lambda c: self.queue.drop_in(c, asset)))
        for key in [key for key in self.version if key[0] == asset]:
            del self.version[key]
            self.failed.discard(key)

    @rule(lane=st.sampled_from(LANES), limit=st.integers(1, 5))
    def worker_claims(self, lane, limit):
        for job in self.run(self.queue.claim(steps=lane, limit=limit, owner="w")):
            assert job.asset not in {held.asset for held, _ in self.in_hand}, "two workers at one file"
            assert self.key(job) in self.version, "work that nobody owes"
            assert self.key(job) not in self.failed
            self.in_hand.append((job, self.version[self.key(job)]))

    @precondition(lambda self: self.in_hand)
    @rule(
        data=st.data(), how=st.sampled_from(["complete", "complete", "error", "outage", "fail", "block", "give back"])
    )
    def worker_ends(self, data, how):
        job, version = self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1)))
        is_current = self.version.get(self.key(job)) == version
        if how == "give back":
            self.run(self.queue.release(job))
            return
        match how:
            case "complete":
                ending, expected = self.queue.complete(job), Outcome.DONE
            case "error":
                ending, expected = self.queue.retry(job, "trouble"), Outcome.RETRIED
                if job.attempts >= SETTINGS.max_attempts:
                    expected = Outcome.FAILED
            case "outage":
                ending, expected = self.queue.retry(job, "down", after_s=5), Outcome.RETRIED
            case "fail":
                ending, expected = self.queue.fail(job, "bad file"), Outcome.FAILED
            case _:
                cause = data.draw(CAUSES)
                ending, expected = self.queue.block(job, cause=cause, reason="waits"), Outcome.BLOCKED
        assert self.run(ending) is (expected if is_current else Outcome.SUPERSEDED)
        if is_current and expected is Outcome.DONE:
            del self.version[self.key(job)]
        if is_current and expected is Outcome.FAILED:
            self.failed.add(self.key(job))

    @rule(data=st.data(), what=st.sampled_from(["wake", "clock", "retry failed", "cancelled claim", "kill"]))
    def the_world_turns(self, data, what):
        match what:
            case "wake":
                self.run(self.queue.wake(data.draw(CAUSES)))
            case "clock":
                self.now = max(1, self.now + data.draw(st.integers(-(10**10), 10**10)))
                self.run(self.queue._promote_all(self.now))
            case "retry failed":
                self.run(self.queue.retry_failed())
                self.failed.clear()
            case "cancelled claim":
                self.run(self._claim_and_be_cancelled())
            case _:
                self.in_hand.clear()
                self.run(self._die_and_start_again())

    async def _claim_and_be_cancelled(self):
        claiming = asyncio.create_task(self.queue.claim(steps=EVERYTHING, limit=3, owner="c"))
        await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        for _ in range(3):  # the claim, then its giving back
            await self.database.write(lambda c: c.total_changes)
            await asyncio.sleep(0)

    async def _die_and_start_again(self):
        # As a kill: nothing is drained; what was acknowledged is what a new process finds (tests/faults kills for real).
        self.queue._promoting.cancel()
        await asyncio.gather(self.queue._promoting, return_exceptions=True)
        await self.database.close()
        await self._open()

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def what_is_owed_is_what_is_in_the_table(self):
        if not hasattr(self, "database"):
            return

        def read(c):
            return c.execute("SELECT asset, step, target, state FROM job WHERE is_dropped = 0").fetchall()

        rows = {(AssetId(a), Step(s), t): JobState(state) for a, s, t, state in self.run(self.database.read(read))}
        assert set(rows) == set(self.version)
        assert {key for key, state in rows.items() if state is JobState.FAILED} == self.failed
        held = {self.key(job) for job, _ in self.in_hand}
        assert {key for key, state in rows.items() if state is JobState.RUNNING} <= held

    def teardown(self):
        if not hasattr(self, "database"):
            return
        try:
            self._everything_owed_can_be_done()
        finally:
            self.run(self.queue.close())
            self.run(self.database.close())
            self.loop.close()
            shutil.rmtree(self.folder)

    def _everything_owed_can_be_done(self):
        """After quiet: time passes, causes wake, and each job that has not failed is done."""
        for job, version in self.in_hand:
            if self.run(self.queue.complete(job)) is Outcome.DONE:
                assert self.version.pop(self.key(job)) == version
        self.in_hand = []
        for cause in ("x", "y"):
            self.run(self.queue.wake(cause))
        self.run(self.queue._promote_all(self.now + 10**12))
        while jobs := self.run(self.queue.claim(steps=EVERYTHING, limit=3, owner="end")):
            for job in jobs:
                assert self.run(self.queue.complete(job)) is Outcome.DONE
                del self.version[self.key(job)]
        assert set(self.version) == self.failed


TestQueueNeverLosesAFile = QueueNeverLosesAFile.TestCase
TestQueueNeverLosesAFile.settings = settings(
    max_examples=1000 if LONG else 80,
    stateful_step_count=60 if LONG else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a real database takes minutes: the run is printed
)
