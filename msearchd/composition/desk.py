"""What answers calls and keeps the house: control, search, status, upkeep, disk."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from msearchd.aio.aside import told
from msearchd.composition.children import Children
from msearchd.composition.ground import Ground
from msearchd.composition.life import Life
from msearchd.composition.models import served
from msearchd.composition.tools import looks
from msearchd.composition.work import Work
from msearchd.domain.space import ModelKey
from msearchd.gateway.desk import PoolDesk
from msearchd.inference.pool import Lane
from msearchd.orchestrator.backup import Backup
from msearchd.orchestrator.control import DaemonControl, Parts
from msearchd.orchestrator.disk_watch import DiskWatch
from msearchd.orchestrator.explain import Explainer
from msearchd.orchestrator.processing import Processing
from msearchd.orchestrator.reset import Reset
from msearchd.orchestrator.space_desk import SpaceKeeper
from msearchd.orchestrator.status import Sources, StatusPage
from msearchd.orchestrator.upkeep import Upkeep
from msearchd.orchestrator.verify import Verifier
from msearchd.orchestrator.wakening import Wakener
from msearchd.search.answer import answer
from msearchd.search.asker import Asker, model_loading_s
from msearchd.search.examples import Examples
from msearchd.search.service import SearchService

#: A search may say that it waits so long for a model that loads (control.requests.Patience).
_LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Desk:
    """The control facade, and the services that go with it."""

    control: DaemonControl
    disk: DiskWatch
    upkeep: Upkeep


def make_desk(
    life: Life, ground: Ground, children: Children, work: Work, *, problems: Callable[[], tuple[str, ...]]
) -> Desk:
    """Put it together. *problems* says what is wrong with the services, as sentences."""
    disk = DiskWatch(ground.queue, ground.data_dir, min_free_bytes=life.settings.store.min_free_mb << 20)

    def all_problems() -> tuple[str, ...]:
        aside = told(ground.data_dir, now=dt.datetime.now(dt.UTC))
        return (*problems(), *work.indexing.problems(), *ground.integrity.problems(), *disk.problems(), *aside)

    status = StatusPage(
        Sources(
            catalog=ground.catalog,
            queue=ground.queue,
            store=children.store,
            pool=children.pool,
            outcomes=work.outcomes,
            runner=work.runner,
            watch=work.watcher.snapshot,
            problems=all_problems,
            notices=lambda: (*work.change.problems(), *_reopened(life)),
            is_draining=life.ends,
            loop_lag=life.loop_watch.snapshot,
            publish=life.events.publish,
            data_dir=ground.data_dir,
            config_file=life.config_file,
        )
    )
    backup = Backup(database=ground.database, store=children.store, data_dir=ground.data_dir)
    upkeep = Upkeep(
        database=ground.database,
        catalog=ground.catalog,
        queue=ground.queue,
        spaces=work.spaces,
        recovery=work.recovery,
        grace_s=life.settings.watch.delete_grace_s,
        sample=status.sample,
        look=Wakener(ground.queue, looks(ground.data_dir)).look,
        sweep_backups=backup.sweep,
    )
    return Desk(_control(life, ground, children, work, status, backup), disk, upkeep)


def _reopened(life: Life) -> tuple[str, ...]:
    """For as long as this life lasts: it began with another database than the one before."""
    return (f"{life.reopened}: this daemon went on with what lies there",) if life.reopened else ()


def _control(
    life: Life, ground: Ground, children: Children, work: Work, status: StatusPage, backup: Backup
) -> DaemonControl:
    processing = Processing(database=ground.database, catalog=ground.catalog, queue=ground.queue, folders=work.watcher)
    life.stack.push_async_callback(processing.close)
    return DaemonControl(
        Parts(
            database=ground.database,
            catalog=ground.catalog,
            queue=ground.queue,
            store=children.store,
            watcher=work.watcher,
            folders=work.folders,
            indexing=work.indexing,
            processing=processing,
            explainer=Explainer(
                catalog=ground.catalog,
                queue=ground.queue,
                rules=work.watcher,
                served=served(life.settings.inference),
            ),
            status=status,
            reset=_reset(ground, children, work),
            verifier=_verifier(life, ground, children, work),
            backup=backup,
            events=life.events,
            search=partial(answer, _search(life, ground, children, work)),
            models=PoolDesk(children.pool, ground.lineage.settings),
            spaces=SpaceKeeper(
                work.change,
                database=ground.database,
                store=children.store,
                pool=children.pool,
                keep_replaced_h=life.settings.inference.keep_replaced_h,
            ),
        )
    )


def _reset(ground: Ground, children: Children, work: Work) -> Reset:
    return Reset(
        database=ground.database,
        catalog=ground.catalog,
        queue=ground.queue,
        store=children.store,
        spaces=work.spaces,
        folders=work.folders,
        cache=ground.cache,
        models=ground.models,
        forget_pins=children.pool.forget_pins,
    )


def _verifier(life: Life, ground: Ground, children: Children, work: Work) -> Verifier:
    return Verifier(
        database=ground.database,
        catalog=ground.catalog,
        queue=ground.queue,
        store=children.store,
        watcher=work.watcher,
        recovery=work.recovery,
        arrears=work.arrears,
        begin_anew=life.begin_anew,
    )


def _search(life: Life, ground: Ground, children: Children, work: Work) -> SearchService:
    settings = life.settings.search
    asker = Asker(
        catalog=ground.catalog,
        pool=children.pool,
        key_of=work.change.question_key,
        space_of=work.spaces.of,
        deadline_s=max(settings.query_timeout_s, _LONGEST_WAIT_S),
    )
    examples = Examples(catalog=ground.catalog, readers=children.media_readers, asker=asker)
    reranking: dict[str, Any] = {}
    if name := life.settings.inference.rerank_model:
        key = ModelKey(name)
        deadline_s = max(settings.query_timeout_s, _LONGEST_WAIT_S)
        reranking = {
            "rerank": partial(children.pool.rerank, model=key, lane=Lane.INTERACTIVE, deadline_s=deadline_s),
            "rerank_loading_s": partial(model_loading_s, children.pool, key),
        }
    return SearchService(ground.catalog, children.store, asker, settings, examples=examples, **reranking)
