"""One statement for many rows leaves behind what one statement after the other does."""

import importlib.resources
import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from msearchd.aio.sqlite import statements
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Outcome, Owed, Priority, Step
from msearchd.jobs import many
from msearchd.jobs.claim import claim_in
from msearchd.jobs.moves import JobMoves
from msearchd.settings.model import QueueSettings

OWED = st.builds(
    Owed,
    st.integers(1, 12).map(AssetId),
    st.sampled_from([Step.EXTRACT, Step.IDENTIFY]),
    target=st.sampled_from(["", "m"]),
    priority=st.sampled_from([Priority.INTERACTIVE, Priority.BACKFILL]),
)


def a_queue() -> tuple[sqlite3.Connection, JobMoves]:
    c = sqlite3.connect(":memory:", isolation_level=None)
    for statement in statements((importlib.resources.files("msearchd.jobs.sql") / "0001_jobs.sql").read_text()):
        c.execute(statement)
    return c, JobMoves(QueueSettings(), now_ms=lambda: 1000)


def everything(c: sqlite3.Connection) -> list[tuple]:
    return c.execute("SELECT * FROM job ORDER BY id").fetchall()


def claim_some(c: sqlite3.Connection, limit: int) -> list:
    steps = [(Step.EXTRACT, None), (Step.IDENTIFY, None)]
    return claim_in(c, steps=steps, limit=limit, kept={}, owner="w", serial=1, now_ms=1000)


@given(st.lists(OWED, max_size=90), st.integers(0, 6), st.lists(OWED, max_size=90))
def test_steps_owed_together_are_owed_as_one_by_one(first, claimed, second):
    c, moves = a_queue()
    singly, singly_moves = a_queue()
    for owed in (first, second):
        moves.enqueue_in(c, owed)
        for item in owed:
            singly_moves.enqueue_in(singly, [item])
        assert claim_some(c, claimed) == claim_some(singly, claimed)
    assert everything(c) == everything(singly)


@given(st.lists(OWED, max_size=90), st.integers(0, 12), st.data())
def test_jobs_completed_together_end_as_one_by_one(owed, claimed, data):
    c, moves = a_queue()
    singly, singly_moves = a_queue()
    jobs = []
    for connection, its in ((c, moves), (singly, singly_moves)):
        its.enqueue_in(connection, owed)
        jobs = claim_some(connection, claimed)
    changed = data.draw(st.lists(OWED, max_size=4))
    forgotten = data.draw(st.lists(st.integers(1, 12).map(AssetId), max_size=2))
    ended = data.draw(st.lists(st.sampled_from(jobs), max_size=20)) if jobs else []
    for connection, its in ((c, moves), (singly, singly_moves)):
        its.enqueue_in(connection, changed)
        for asset in forgotten:
            its.drop_in(connection, asset)
    outcomes = moves.complete_all_in(c, ended)
    assert outcomes == [singly_moves.complete_in(singly, job) for job in ended]
    assert everything(c) == everything(singly)
    history = "SELECT asset, step, target, outcome, attempts, error, ended_ms FROM job_history ORDER BY 1, 2, 3, 4"
    assert c.execute(history).fetchall() == singly.execute(history).fetchall()


def test_no_statement_reads_more_of_the_table_than_its_rows():
    c, moves = a_queue()
    moves.enqueue_in(c, [Owed(AssetId(n), Step.EXTRACT) for n in range(1, 200)])
    plan = " ".join(row[3] for row in c.execute("EXPLAIN QUERY PLAN " + many._complete(8), [0] * 16))
    assert "USING INTEGER PRIMARY KEY" in plan
    assert "SCAN" not in plan


def test_a_list_longer_than_one_statement_keeps_its_order_and_its_history_is_bounded():
    c, moves = a_queue()
    moves.enqueue_in(c, [Owed(AssetId(1000 - n), Step.EXTRACT) for n in range(300)])
    jobs = claim_some(c, 300)
    assert [job.asset for job in jobs] == [1000 - n for n in range(300)]
    assert set(moves.complete_all_in(c, jobs)) == {Outcome.DONE}
    assert not everything(c)
    kept = JobMoves(QueueSettings(history_rows=100), now_ms=lambda: 1000)
    for _ in range(5):
        kept.enqueue_in(c, [Owed(AssetId(n), Step.EXTRACT) for n in range(300)])
        kept.complete_all_in(c, claim_some(c, 300))
    assert c.execute("SELECT count(*) FROM job_history").fetchone()[0] < 100 + 512 + 300
