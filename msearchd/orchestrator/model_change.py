"""A model changes: the new space is built beside the old one, which answers until the new one holds as much.

In: which models the settings name, where each space stands, what somebody says. Out: which model keys are owed embeddings,
which one questions are asked with, and moves of spaces, each one transaction: killed at any point, the next start goes on
from what is committed. What to do is model_plan's to say. Questions of one modality go to exactly one space, so vectors of
two models never rank against each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.domain.media import OF_TEXT
from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.arrears import Arrears
from msearchd.orchestrator.model_lines import Line, find, sentence, way_back
from msearchd.orchestrator.model_plan import Act, Move, Policy, SpaceState, plan_change
from msearchd.orchestrator.space_moves import SpaceMoves
from msearchd.orchestrator.spaces import Spaces
from msearchd.store.catalog.space_book import Phase, SpaceBook, SpaceRecord
from msearchd.store.vector_store import VectorStore

log = structlog.get_logger(__name__)

_KEEP_ALL: Final = 1 << 62
#: While a space is built: how soon after a change of the queue its end is looked for.
_BUILDING_S: Final = 1.0
#: Else: how soon weights that came, or an old space whose time is over, are noticed.
_IDLE_S: Final = 60.0
_MOST_ROUNDS: Final = 8


class Models(Protocol):
    """What is asked of the pool."""

    async def space(self, model: ModelKey) -> Space:
        """The space that a model of the settings makes now. Raises Misconfigured."""
        ...


class Makers(Protocol):
    """What is asked of inference.lineage."""

    async def key_for(self, space: Space, made_by: str, *, taken: tuple[ModelKey, ...]) -> ModelKey | None:
        """The model whose questions belong into an older space; None where there is none any more."""
        ...

    def maker(self, model: ModelKey) -> str:
        """What its spaces are made by."""
        ...

    def is_cut_alike(self, one: str, other: str) -> bool:
        """True where passages of both makers are cut alike, or nobody knows."""
        ...


class ModelChange:
    """One per daemon. `start` before anything is claimed; `run` is a service."""

    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        spaces: Spaces,
        store: VectorStore,
        pool: Models,
        lineage: Makers,
        wanted: Mapping[str, ModelKey],
        policy: Policy,
        recovered: asyncio.Event,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._database = database
        self._queue = queue
        self._spaces = spaces
        self._store = store
        self._pool = pool
        self._lineage = lineage
        self._policy = policy
        self._recovered = recovered
        self._now_ms = now_ms
        self._book = SpaceBook(database, now_ms=now_ms)
        self._lines = {modality: Line(modality, model) for modality, model in wanted.items()}
        self._moves = SpaceMoves(database=database, queue=queue, book=self._book)
        self._started = asyncio.Event()
        self._said = asyncio.Event()  # somebody said something
        self._must_owe = False
        self._making = asyncio.Lock()
        self._owed: dict[SpaceName, int] = {}  # samples that wait for a yes

    def use(self, arrears: Arrears) -> None:
        """Owe by *arrears*, which in turn asks here what to owe."""
        self._moves.arrears = arrears

    # -- what others ask --------------------------------------------------------------------------------------------------

    def targets(self) -> dict[ModelKey, str]:
        """The models that new contents are embedded with now, and what each reads.

        Of each modality that of questions, and that of the space which is being built.
        """
        return {key: line.modality for line in self._lines.values() for key in line.targets}

    def filling(self) -> dict[ModelKey, str]:
        """Those of `targets` that are owed also the contents that were there before."""
        return {key: line.modality for line in self._lines.values() for key in line.filling}

    async def look(self) -> tuple[Line, ...]:
        """All modalities, read anew."""
        async with self._making:
            for modality in self._lines:
                await self._refresh(modality)
            return tuple(self._lines.values())

    async def question_key(self, modality: str) -> ModelKey | None:
        """The model to embed a question to *modality* with; None where it is switched off."""
        await self._started.wait()
        line = self._lines.get(modality)
        return None if line is None else line.question_key

    def problems(self) -> tuple[str, ...]:
        """What a person should know or decide, as sentences."""
        return tuple(told for line in self._lines.values() if (told := sentence(line, self._owed)))

    # -- life -------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find out what the settings ask for and what can still be asked. Needs the database and files alone.

        Raises RetryLater where the database is busy or the disk full.
        """
        async with self._making:
            for modality in {one.modality for one in await self._book.records()} - self._lines.keys():
                self._lines[modality] = Line(modality, None)  # switched off: its spaces can still be dropped
            for modality in self._lines:
                await self._resolve(modality)
                await self._move(modality, Policy(auto_samples=self._policy.auto_samples, keep_ms=_KEEP_ALL))
        for told in self.problems():
            log.warning("model change", reason=told)
        self._started.set()
        self._must_owe = False  # by the arrears, after the recovery

    async def run(self) -> None:
        """Go on whenever something changed; once catalog and store agree. Serves until cancelled."""
        await self._recovered.wait()
        while True:
            seen = self._queue.changes_seen()
            self._said.clear()
            with contextlib.suppress(errors.RetryLater):  # store or disk are down: at the next turn
                await self.advance()
            is_building = any(line.in_phase(Phase.BUILDING) for line in self._lines.values())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await (self._queue.wait_change(seen) if is_building else self._said.wait())
            await asyncio.sleep(_BUILDING_S)

    async def advance(self) -> None:
        """Make every move that is due now."""
        async with self._making:
            await self._owe()
            for modality, line in list(self._lines.items()):
                if line.is_unclear:
                    await self._resolve(modality)
                await self._move(modality, self._policy)

    async def forget(self) -> None:
        """All spaces were thrown away: the next content makes that of the settings, and it answers at once."""
        async with self._making:
            self._lines = {m: Line(m, line.model) for m, line in self._lines.items() if line.model is not None}
            self._moves.forget()

    # -- by hand ----------------------------------------------------------------------------------------------------------

    async def switch(self, name: str) -> SpaceRecord:
        """Say yes: fill the space *name* (or that of the model *name*), and let it take over once it holds as much.

        NotFound: no such space. BadRequest: the settings do not name its model.
        """
        async with self._making:
            line, record = find(self._lines.values(), name)
            if record.name != line.wanted:
                message = f"the settings do not ask for {record.name}"
                hint = "to go back to it: msearch model rollback; else name its model in the settings and restart"
                raise errors.BadRequest(message, hint=hint)
            await self._begin(line, record, Act.FILL if record.phase is Phase.SERVING else Act.BUILD)
            log.info("model change wanted", space=record.name)
            await self._refresh(line.modality)
            self._said.set()
            self._must_owe = True
            await self._owe()
            await self._move(line.modality, self._policy)
            return find(self._lines.values(), record.name)[1]

    async def rollback(self, modality: str) -> SpaceRecord:
        """Go back: stop building, or let the space that answered before answer again, at once. Returns what answers.

        It is filled with what came since. BadRequest where there is nothing to go back to.
        """
        async with self._making:
            line = self._line(modality)
            serving, building = line.serving, line.in_phase(Phase.BUILDING, Phase.WAITING)
            if building is not None and serving is not None:
                await self._database.write(lambda c: self._book.set_phase_in(c, building.name, Phase.DECLINED))
            else:
                back = way_back(line)
                await self._moves.go_back(serving, back)
                log.info("model rolled back", space=back.name)
            await self._refresh(modality)
            self._must_owe = True
            await self._owe()
            now = self._line(modality).serving
            if now is None:
                message = f"nothing answers questions about {modality}"
                raise errors.BadRequest(message, hint="see: msearch spaces")
            return now

    async def drop(self, name: str) -> SpaceRecord:
        """Give the points of a space that does not answer back to the disk. BadRequest where it answers."""
        async with self._making:
            line, record = find(self._lines.values(), name)
            if record.phase is Phase.SERVING and line.model is not None:
                message = f"{record.name} answers questions"
                raise errors.BadRequest(
                    message, hint="switch or roll back first, or turn its model off in the settings"
                )
            await self._drop(line, record)
            return record

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _line(self, modality: str) -> Line:
        if (line := self._lines.get(modality)) is None:
            message = f"no model of the settings serves {modality!r}"
            raise errors.NotFound(message, hint=f"there is: {', '.join(self._lines) or 'none'}")
        return line

    async def _refresh(self, modality: str) -> None:
        line = self._lines[modality]
        records = tuple(one for one in await self._book.records() if one.modality == modality)
        self._lines[modality] = Line(modality, line.model, line.wanted, line.trouble, records)

    async def _resolve(self, modality: str) -> None:
        """Learn the space that the settings ask for, and by which keys jobs name each."""
        line = self._lines[modality]
        records = [one for one in await self._book.records() if one.modality == modality]
        if line.model is None or not records:  # its first job makes it
            self._lines[modality] = Line(modality, line.model, records=tuple(records))
            return
        wanted, trouble = None, ""
        try:
            wanted = await self._pool.space(line.model)
        except errors.Misconfigured as error:
            trouble = error.sentence()
        targets = {} if wanted is None else {wanted.name: line.model}
        for record in reversed(records):
            if wanted is not None and record.name == wanted.name:
                continue
            if wanted is None and record.space.model == line.model and record.phase is Phase.SERVING:
                # Its weights may come back as they were: its jobs wait for that, under the name of the settings.
                taken = tuple(targets.values())
            else:
                taken = (line.model, *targets.values())
            if (key := await self._lineage.key_for(record.space, record.made_by, taken=taken)) is not None:
                targets[record.name] = key

        made_by = self._lineage.maker(line.model)

        def assign(c: sqlite3.Connection) -> None:
            if wanted is not None:
                self._book.put_in(c, wanted, modality=modality, made_by=made_by)
            self._book.target_in(c, modality, targets)

        await self._database.write(assign)
        self._spaces.forget()
        self._lines[modality] = Line(modality, line.model, None if wanted is None else wanted.name, trouble)
        await self._refresh(modality)

    async def _move(self, modality: str, policy: Policy) -> None:
        for _ in range(_MOST_ROUNDS):
            line = self._lines[modality]
            if line.serving is None and line.wanted is None:
                return
            states = [await self._state(line, record) for record in line.records]
            moves = plan_change(states, wanted=line.wanted, policy=policy, now_ms=self._now_ms())
            if not moves:
                return
            for move in moves:
                await self._make(line, move)
            await self._refresh(modality)
            self._must_owe = True
            await self._owe()

    async def _state(self, line: Line, record: SpaceRecord) -> SpaceState:
        is_serving = record.phase is Phase.SERVING
        owed = 0
        if record.name == line.wanted and (record.phase is Phase.WAITING or (is_serving and not record.is_filling)):
            owed = (await self._book.lacking(record)).samples
            self._owed[record.name] = owed
        serving = line.serving
        is_covering = False
        if record.phase is Phase.BUILDING and record.name == line.wanted and serving is not None:
            is_covering = await self._moves.covers(serving, record)
        return SpaceState(
            name=record.name,
            phase=record.phase,
            is_askable=record.target is not None,
            is_filling=record.is_filling,
            is_covering=is_covering,
            owed=owed,
            since_ms=record.since_ms,
        )

    async def _make(self, line: Line, move: Move) -> None:
        record = next(one for one in line.records if one.name == move.space)
        if move.act is Act.DROP:
            await self._drop(line, record)
            return
        if move.act in {Act.BUILD, Act.FILL}:
            await self._begin(line, record, move.act)
        elif not await self._moves.make(line, record, move.act):
            return
        facts = {"space": record.name, "model": record.space.model}
        if move.act is Act.WAIT or (move.act is Act.SERVE and not record.is_filling):
            facts["samples"] = str(self._owed.get(record.name, ""))
        log.info("space moved", act=move.act.value, **facts)

    async def _begin(self, line: Line, record: SpaceRecord, act: Act) -> None:
        """Fill it; where its passages are to be cut otherwise than they are, files are read again first."""
        before = max((one for one in line.records if one.name != record.name), key=_answered_ms, default=None)
        is_text = line.modality in OF_TEXT
        if is_text and before is not None and not self._lineage.is_cut_alike(before.made_by, record.made_by):
            log.info("texts are read and cut again", contents=await self._moves.read_again())
        await self._moves.make(line, record, act)

    async def _drop(self, line: Line, record: SpaceRecord) -> None:
        """The catalog first: killed in between, the next start drops what the catalog does not know."""
        if record.target is not None:
            await self._database.write(lambda c: self._book.set_phase_in(c, record.name, Phase.KEPT))
            await self._refresh(line.modality)
            self._must_owe = True
            await self._owe()
            await self._moves.until_no_job_runs(record.target)
        await self._moves.drop(line, record)
        self._spaces.forget(record.name)
        await self._store.drop(record.name)
        log.info("space dropped", space=record.name, points=record.points)
        await self._refresh(line.modality)

    async def _owe(self) -> None:
        """Jobs of models that are not in use go, what is to be filled is owed. Before the start others do it."""
        if self._must_owe and self._moves.arrears is not None and self._started.is_set():
            await self._moves.arrears.embed()
            self._must_owe = False


def _answered_ms(record: SpaceRecord) -> int:
    """When it last answered; that of now comes last of all."""
    return _KEEP_ALL if record.phase is Phase.SERVING else record.since_ms
