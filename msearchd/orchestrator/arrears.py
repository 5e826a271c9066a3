"""What should be owed and is not: looked for at every start, and when a space begins to be filled.

In: the state of catalog and queue, and the models that are in use. Out: steps owed, blocked jobs woken, states that add
up. Settling twice is settling once; killed in between, the next start goes on.

    another model, other weights      every content is owed an embedding; jobs of models not in use are forgotten
    a file `pending` without a job    settled by its failed or blocked jobs; without any it is identified again
    a blocked job                     what it waited for may be there since the last life
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetId, AssetState, ContentId, RootState
from msearchd.domain.job import JobState, Owed, Priority, Step
from msearchd.domain.media import OF_TEXT
from msearchd.domain.space import ModelKey, SpaceName
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.intake import root_cause
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.spaces import Spaces
from msearchd.store.catalog import Catalog

log = structlog.get_logger(__name__)

#: Rows looked at in one visit: about 20 ms.
_GROUP: Final = 1000
#: Jobs in these states go on by themselves.
_MOVING: Final = frozenset({JobState.READY, JobState.RUNNING, JobState.DELAYED})
#: Steps whose end plans what is owed anew: the first two all of it, the others the embedding of text.
_PLANNING: Final = frozenset({Step.IDENTIFY, Step.EXTRACT})
_PLANNING_TEXT: Final = _PLANNING | {Step.OCR, Step.TRANSCRIBE}


class Arrears:
    """One per daemon; owns nothing."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        queue: JobQueue,
        outcomes: Outcomes,
        spaces: Spaces,
        text_models: Callable[[], Collection[ModelKey]],
        filling: Callable[[], Collection[ModelKey]] | None = None,
        modality_of: Callable[[ModelKey], str] = lambda _: "text",
        speech_model: Callable[[], ModelKey | None] = lambda: None,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue
        self._outcomes = outcomes
        self._spaces = spaces
        self._text_models = text_models
        self._modality_of = modality_of
        self._speech_model = speech_model
        self._filling = filling or text_models  # those of text_models that get also what was there before them

    async def settle(self) -> None:
        """Wake what was blocked, make states add up. Needs the database alone."""
        await self._wake_blocked()
        await self.forget_other_models()
        await self._settle_pending()

    async def embed(self) -> None:
        """Owe the embeddings that are missing; after the recovery. Raises RetryLater where the store is down."""
        await self.forget_other_models()  # the recovery owes by space, whatever its model
        for model in self._filling():
            await self._embed_all(model)
        if (speech := self._speech_model()) is not None:
            await self._hear_all(speech)

    async def _wake_blocked(self) -> None:
        """What was missing may be there now; what still is not blocks its jobs again."""
        offline = {root_cause(r.id) for r in await self._catalog.roots() if r.state is RootState.OFFLINE}
        for blocked in await self._queue.blocked_reasons():
            if blocked.cause not in offline:
                await self._queue.wake(blocked.cause)

    async def forget_other_models(self) -> None:
        """No lane serves jobs of a model that is not in use: their files would be pending for ever."""

        def forget(c: sqlite3.Connection) -> int:
            speech = self._speech_model()
            assets = self._queue.drop_targets_in(c, Step.EMBED, keep=self._text_models(), limit=_GROUP)
            assets += self._queue.drop_targets_in(
                c, Step.TRANSCRIBE, keep=() if speech is None else (speech,), limit=_GROUP
            )
            for asset in assets:
                self._outcomes.settle_in(c, asset)
            return len(assets)

        while count := await self._database.write(forget):
            log.info("jobs of a model that is not in use forgotten", jobs=count)
        self._queue.notify()

    async def _settle_pending(self) -> None:
        """A file is pending while something of it is ready, running or delayed, and not otherwise."""
        after = AssetId(0)
        while batch := await self._catalog.pending_assets(after, limit=_GROUP):
            after = batch[-1]
            idle = await self._database.read(partial(self._idle_in, assets=batch))
            if idle:
                log.warning("files were pending without a job", files=len(idle))
                await self._database.write(lambda c, some=idle: self._settle_idle_in(c, some))  # type: ignore[misc]
                self._queue.notify()

    def _idle_in(self, c: sqlite3.Connection, assets: Sequence[AssetId]) -> list[AssetId]:
        return [asset for asset in assets if not _MOVING & self._queue.open_states_in(c, asset).keys()]

    def _settle_idle_in(self, c: sqlite3.Connection, assets: Sequence[AssetId]) -> None:
        for asset in self._idle_in(c, assets):
            if self._catalog.state_in(c, asset) is not AssetState.PENDING:
                continue
            if self._queue.open_states_in(c, asset):
                self._outcomes.settle_in(c, asset)
            else:  # nobody knows what it lacks
                self._queue.enqueue_in(c, [Owed(asset, Step.IDENTIFY, priority=Priority.BACKFILL)])

    # -- embeddings -----------------------------------------------------------------------------------------------------

    async def _embed_all(self, model: ModelKey) -> None:
        """Owe *model* every content that its space lacks."""
        modality = self._modality_of(model)
        try:
            space = (await self._spaces.of(model)).name if await self._has_any(modality) else None
        except errors.Misconfigured:
            # Its jobs will block and say why. Which space it will have is not known: go by the last one.
            known = [space.name for space in await self._catalog.spaces() if space.model == model]
            space = known[-1] if known else SpaceName("")
        if space is None:
            return
        owed, after = 0, ContentId(0)
        while batch := await self._catalog.contents_lacking(space, after, limit=_GROUP, serves=modality):
            after = batch[-1]
            owed += (await self._database.write(lambda c, some=batch: self.owe_in(c, model, some)))[1]  # type: ignore[misc]
            self._queue.notify()
        if owed:
            log.info("contents to embed", model=model, space=space, files=owed)

    async def _has_any(self, modality: str) -> bool:
        """True once there is something for a model of *modality*: until then its space need not be made."""
        if modality in OF_TEXT:
            return await self._catalog.has_text()
        return bool(await self._catalog.contents_lacking(SpaceName(""), ContentId(0), limit=1, serves=modality))

    async def _hear_all(self, model: ModelKey) -> None:
        """Owe the speech of every sound that nobody wrote down."""
        owed, after = 0, ContentId(0)
        while batch := await self._catalog.contents_unheard(after, limit=_GROUP):
            after = batch[-1]
            owed += (await self._database.write(lambda c, some=batch: self.owe_in(c, model, some, Step.TRANSCRIBE)))[1]  # type: ignore[misc]
            self._queue.notify()
        if owed:
            log.info("sounds to write down", model=model, files=owed)

    def owe_in(
        self, c: sqlite3.Connection, model: ModelKey, contents: Sequence[ContentId], what: Step = Step.EMBED
    ) -> tuple[int, int]:
        """(contents on their way, files owed anew). A file that failed is left alone until it changes or is retried."""
        is_text = what is Step.EMBED and self._modality_of(model) in OF_TEXT
        planning = _PLANNING_TEXT if is_text else _PLANNING
        waiting, owed = 0, 0
        for content in contents:
            is_waiting = False
            for asset in self._catalog.assets_of_in(c, content):
                jobs = self._queue.open_jobs_in(c, asset)
                if any(step in planning and state in _MOVING for step, _, state in jobs):
                    is_waiting = True
                    continue
                own = next((s for step, target, s in jobs if step is what and target == model), None)
                if own is None:
                    self._queue.enqueue_in(c, [Owed(asset, what, model, Priority.BACKFILL)])
                    self._outcomes.settle_in(c, asset)
                    owed += 1
                is_waiting = is_waiting or own is not JobState.FAILED
            waiting += is_waiting
        return waiting, owed
