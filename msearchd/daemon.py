"""Composition root: build, wire, supervise, stop in reverse order. Constructs and lists services, nothing else.

In: settings. Out: a running daemon, and its exit status (0 stopped, 1 failed, 78 misconfigured).
Never imports torch, numpy, a decoder or a store engine: those live in child processes (a test holds it).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.aside import told
from msearchd.aio.child import Limits
from msearchd.aio.instance import InstanceLock
from msearchd.aio.loopwatch import LoopWatch
from msearchd.aio.sdnotify import Notifier
from msearchd.aio.sqlite import DamagedDatabase
from msearchd.aio.supervisor import Service, ServiceState, Supervisor
from msearchd.api.network import Network, network, token_in
from msearchd.api.server import ControlServer
from msearchd.control.events import EventBus
from msearchd.control.gateway import GatewayHealth
from msearchd.control.types import path_text
from msearchd.domain.job import Job, Step
from msearchd.domain.space import ModelKey
from msearchd.gateway.desk import PoolDesk
from msearchd.gateway.pictures import PictureReader
from msearchd.gateway.service import ModelGateway
from msearchd.inference.lineage import Lineage
from msearchd.inference.pool import Lane as PoolLane
from msearchd.inference.pool import Pool
from msearchd.media.client import Extractors, chunking_fingerprint
from msearchd.orchestrator.arrears import Arrears
from msearchd.orchestrator.backup import Backup
from msearchd.orchestrator.control import DaemonControl, Parts
from msearchd.orchestrator.disk_watch import DiskWatch
from msearchd.orchestrator.dispatcher import Dispatcher
from msearchd.orchestrator.document_vectors import DocumentVectors
from msearchd.orchestrator.embed import EmbedStep
from msearchd.orchestrator.explain import Explainer
from msearchd.orchestrator.folders import FolderList
from msearchd.orchestrator.indexing import Indexing
from msearchd.orchestrator.intake import Intake
from msearchd.orchestrator.integrity import Integrity
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.lanes import lanes_of
from msearchd.orchestrator.model_change import ModelChange
from msearchd.orchestrator.model_plan import Policy
from msearchd.orchestrator.model_turns import ModelTurns
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.plan import Models
from msearchd.orchestrator.processing import Processing
from msearchd.orchestrator.records import open_records
from msearchd.orchestrator.recovery import Recovery
from msearchd.orchestrator.reset import REASON as RESET_REASON
from msearchd.orchestrator.reset import Reset
from msearchd.orchestrator.runner import Runner
from msearchd.orchestrator.samples import Sampler
from msearchd.orchestrator.space_desk import SpaceKeeper
from msearchd.orchestrator.spaces import Spaces
from msearchd.orchestrator.status import Sources, StatusPage
from msearchd.orchestrator.steps import Steps
from msearchd.orchestrator.transcribe import TranscribeStep
from msearchd.orchestrator.upkeep import Upkeep
from msearchd.orchestrator.verify import Verifier
from msearchd.search.answer import answer
from msearchd.search.asker import Asker
from msearchd.search.examples import Examples
from msearchd.search.service import SearchService
from msearchd.settings import Settings
from msearchd.settings.address import parse_address
from msearchd.store.catalog.space_book import SpaceBook
from msearchd.store.client import StoreProcess
from msearchd.store.vector_cache import VectorCache
from msearchd.watch.watcher import Watcher

log = structlog.get_logger(__name__)

EX_OK: Final = 0
EX_FAILED: Final = 1
EX_CONFIG: Final = 78


def run(settings: Settings, *, config_file: str = "") -> int:
    """Run the daemon until SIGTERM or SIGINT; return the exit status."""
    try:
        return asyncio.run(_main(settings, config_file))
    except errors.Misconfigured as error:
        log.error("cannot start", reason=error.sentence())  # noqa: TRY400 - a sentence for people, not a traceback
        return EX_CONFIG


async def _main(settings: Settings, config_file: str) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked_to_stop(number: signal.Signals) -> None:
        if stop.is_set():  # the second time: now
            log.warning("stopping at once", signal=number.name)
            os._exit(EX_FAILED)
        log.info("stopping", signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop, number)
    damage = ""
    while True:
        daemon = Daemon(settings, config_file=config_file, damage=damage)
        async with daemon.running():
            status = await daemon.serve_until(stop)
        if not daemon.damage or stop.is_set():
            return status
        if damage:  # twice in one life: it is not the file, it is the disk
            log.error(
                "stopped", reason=f"the new database is damaged too ({daemon.damage}); check the disk of data_dir"
            )
            return EX_FAILED
        damage = daemon.damage


class Daemon:
    """All services of one data folder. `running` builds them in order and takes them down in reverse."""

    def __init__(self, settings: Settings, *, config_file: str = "", damage: str = "") -> None:
        self._settings = settings
        self._config_file = config_file
        self._stack = contextlib.AsyncExitStack()
        self._is_draining = False
        self._found_damage = damage  # of the database, in the last life
        self._anew = asyncio.Event()
        self.damage = ""  # of the database, in this life: set aside, and everything is begun anew
        self._recovered = asyncio.Event()  # catalog and store agree
        self._notifier = Notifier()
        self._loop_watch = LoopWatch()
        self._supervisor: Supervisor | None = None
        self._server: ControlServer | None = None
        self.events = EventBus()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Build everything; on the way out drain, flush and close in reverse order."""
        began = time.monotonic()
        async with self._stack:
            await self._build()
            self._notifier.ready()
            log.info("ready", seconds=round(time.monotonic() - began, 3), cpu_s=round(time.process_time(), 3))
            yield

    async def serve_until(self, stop: asyncio.Event) -> int:
        """Run the services until *stop*, or until one that the daemon cannot do without is lost."""
        # In the order of dependence: stopped in reverse, so calls end first, then work is drained.
        self._supervisor = Supervisor(
            [
                Service("disk", self._disk.run),
                Service("integrity", self._integrity.run),
                Service("damage", self._indexing.repair_damage),
                Service("model-change", self._change.run),
                Service("upkeep", self._upkeep.run, stop_grace_s=self._settings.limits.drain_s),
                Service("watch", self._watcher.run, is_critical=True),
                Service("index", self._indexing.run, is_critical=True, stop_grace_s=self._settings.limits.drain_s + 10),
                Service("heartbeat", self._notifier.heartbeat),
                Service("api", self._serve_api, is_critical=True, stop_grace_s=15),
            ]
        )
        serving = asyncio.create_task(self._supervisor.run(), name="supervisor")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        anew = asyncio.create_task(self._anew.wait(), name="anew")
        await asyncio.wait({serving, stopping, anew}, return_when=asyncio.FIRST_COMPLETED)
        self._is_draining = True
        self._notifier.stopping("draining")
        self.events.publish("draining")
        stopping.cancel()
        anew.cancel()
        self._supervisor.stop()
        try:
            await serving
        except DamagedDatabase as error:
            self.damage = self.damage or str(error)
        except errors.Bug as error:
            log.exception("stopped by a bug", reason=str(error))
            return EX_FAILED
        return EX_OK

    # -- construction -----------------------------------------------------------------------------------------------------

    async def _build(self) -> None:
        settings, data_dir = self._settings, self._settings.data_dir
        lock = InstanceLock.acquire(data_dir)
        self._stack.callback(lock.release)
        await self._build_records(data_dir)
        self._build_children(data_dir)
        self._build_orchestrator(data_dir)
        await self._folders.start()
        self._loop_watch.start()
        self._stack.callback(self._loop_watch.stop)
        pictures = PictureReader(settings.extract, nice=settings.limits.nice)
        self._stack.push_async_callback(pictures.close)
        self._gateway = ModelGateway(
            self._pool,
            settings.inference,
            health=self._gateway_health,
            deadline_s=settings.inference.request_timeout_s * 10,
            decode_picture=pictures.read,
        )
        self._network = self._network_door()
        self._server = self._make_server()
        await self._server.start()

    def _make_server(self) -> ControlServer:
        return ControlServer(self._control, self._settings.api, gateway=self._gateway, network=self._network)

    def _network_door(self) -> Network | None:
        """The TCP listener for the models, where it is switched on."""
        api = self._settings.api
        if not api.listen:
            return None
        address = parse_address(api.listen)
        file = Path(api.token_file).expanduser() if api.token_file else self._settings.data_dir / "api.token"
        if not address.is_local:
            log.warning("models are served beyond this machine, without encryption", address=str(address))
        return network(address, token=token_in(file), hosts=api.hosts)

    async def _gateway_health(self) -> GatewayHealth:
        """The models answer while the daemon runs: they load on demand."""
        return GatewayHealth(status="unwell", reason="stopping") if self._is_draining else GatewayHealth(status="ok")

    async def _build_records(self, data_dir: Path) -> None:
        records = await open_records(data_dir, self._settings.queue, damage=self._found_damage)
        self._stack.push_async_callback(records.close, data_dir)
        self._database, self._catalog, self._queue = records.database, records.catalog, records.queue
        await self._queue.resume(RESET_REASON)  # killed while it reset: what is left to do is in the queue
        known = [(one.space, one.made_by) for one in await SpaceBook(self._database).records()]
        chunking = chunking_fingerprint(self._settings.extract)
        self._lineage = Lineage(self._settings.inference, known=known, chunking=chunking, state_dir=data_dir)
        self._replaced = self._lineage.keys_of(space for space, _ in known)
        cache_bytes = self._settings.store.cache_mb << 20
        self._cache = await VectorCache.open(data_dir / "vector-cache.db", max_bytes=cache_bytes)
        if self._cache is not None:
            self._stack.push_async_callback(self._cache.close)
        self._integrity = Integrity(records.database, was_unclean=records.was_unclean, begin_anew=self._begin_anew)

    def _begin_anew(self, damage: str) -> None:
        """Stop, set the database aside, start over in this process."""
        self.damage = damage
        self._anew.set()

    def _build_children(self, data_dir: Path) -> None:
        settings = self._settings
        limits = Limits(nice=settings.limits.nice)
        self._store = StoreProcess(settings.store, data_dir, Limits(nice=0))  # searches wait for it
        self._stack.push_async_callback(self._store.close)
        self._pool = Pool(
            self._lineage.settings, limits=limits, chunking=chunking_fingerprint(settings.extract), state_dir=data_dir
        )
        self._stack.push_async_callback(self._pool.close)
        self._extractors = Extractors(settings.extract, limits)
        self._stack.push_async_callback(self._extractors.close)
        # A scanned book must not keep a saved note waiting: pixels are read in a worker of their own.
        one = settings.extract.model_copy(update={"workers": 1})
        self._pixel_readers = Extractors(one, limits, name="ocr")
        self._stack.push_async_callback(self._pixel_readers.close)
        # What models see and hear: two, so that a question by example need not wait for a file of the index.
        two = settings.extract.model_copy(update={"workers": 2})
        self._media_readers = Extractors(two, limits, name="media")
        self._stack.push_async_callback(self._media_readers.close)

    def _build_orchestrator(self, data_dir: Path) -> None:
        settings, database, catalog, queue = self._settings, self._database, self._catalog, self._queue
        self._watcher = Watcher(
            settings.watch, catalog, Intake(database, catalog, queue), state_dir=data_dir / "watch", private=data_dir
        )
        self._serves = {ModelKey(model.name): model.serves for model in self._lineage.settings.models}
        self._spaces = Spaces(
            database=database,
            catalog=catalog,
            pool=self._pool,
            store=self._store,
            modality_of=self._modality_of,
            maker_of=self._lineage.maker,
        )
        inference = settings.inference
        self._change = ModelChange(
            database=database,
            queue=queue,
            spaces=self._spaces,
            store=self._store,
            pool=self._pool,
            lineage=self._lineage,
            wanted=self._wanted_models(),
            policy=Policy(auto_samples=inference.switch_unasked, keep_ms=int(inference.keep_replaced_h * 3_600_000)),
            recovered=self._recovered,
        )
        self._recovery = Recovery(database=database, catalog=catalog, queue=queue, store=self._store)
        outcomes, locks = Outcomes(database, catalog, queue), KeyedLocks()
        self._arrears = Arrears(
            database=database,
            catalog=catalog,
            queue=queue,
            outcomes=outcomes,
            spaces=self._spaces,
            text_models=lambda: tuple(self._change.targets()),
            filling=lambda: tuple(self._change.filling()),
            modality_of=self._modality_of,
            speech_model=self._speech_model,
        )
        self._change.use(self._arrears)
        steps = Steps(
            catalog=catalog,
            outcomes=outcomes,
            extractors=self._extractors,
            slow_extractors=self._pixel_readers,
            store=self._store,
            settings=settings.extract,
            models=self._models,
            content_locks=locks,
            ask_for_scan=self._watcher.request_scan,
        )
        embed = EmbedStep(
            catalog=catalog,
            outcomes=outcomes,
            vectors=DocumentVectors(self._pool, self._cache, encoder=self._lineage.encoder),
            store=self._store,
            spaces=self._spaces,
            content_locks=locks,
            deadline_s=settings.inference.request_timeout_s * 10,
            sampler=Sampler(catalog=catalog, readers=self._media_readers, ask_for_scan=self._watcher.request_scan),
            modality_of=self._modality_of,
        )
        transcribe = TranscribeStep(
            catalog=catalog,
            outcomes=outcomes,
            readers=self._media_readers,
            pool=self._pool,
            models=self._models,
            content_locks=locks,
            ask_for_scan=self._watcher.request_scan,
            deadline_s=settings.inference.request_timeout_s * 10,
        )
        runner = Runner(
            outcomes,
            {
                Step.IDENTIFY: steps.identify,
                Step.EXTRACT: steps.extract,
                Step.OCR: steps.ocr,
                Step.TRANSCRIBE: transcribe.run,
                Step.RELOCATE: steps.relocate,
            },
            tell=self._tell,
        )
        lanes = lanes_of(
            runner,
            embed,
            workers=settings.extract.workers,
            models=tuple(dict.fromkeys((*self._wanted_models().values(), *self._replaced))),
            recovered=self._recovered,
            speech=self._speech_model(),
        )
        self._indexing = Indexing(
            catalog=catalog,
            store=self._store,
            arrears=self._arrears,
            change=self._change,
            recovery=self._recovery,
            spaces=self._spaces,
            dispatcher=Dispatcher(queue, lanes, turns=ModelTurns(self._pool)),
            recovered=self._recovered,
            is_draining=lambda: self._is_draining,
            drain_s=settings.limits.drain_s,
        )
        self._folders = FolderList(
            database=database,
            catalog=catalog,
            queue=queue,
            watcher=self._watcher,
            data_dir=data_dir,
            from_settings=settings.watch.folders,
        )
        self._control = self._build_control(outcomes, runner, data_dir)

    def _build_control(self, outcomes: Outcomes, runner: Runner, data_dir: Path) -> DaemonControl:
        database, catalog, queue = self._database, self._catalog, self._queue
        processing = Processing(database=database, catalog=catalog, queue=queue, folders=self._watcher)
        self._stack.push_async_callback(processing.close)
        self._disk = DiskWatch(queue, data_dir, min_free_bytes=self._settings.store.min_free_mb << 20)
        status = StatusPage(
            Sources(
                catalog=catalog,
                queue=queue,
                store=self._store,
                pool=self._pool,
                outcomes=outcomes,
                runner=runner,
                watch=self._watcher.snapshot,
                problems=lambda: (*self._problems(), *self._disk.problems(), *self._aside()),
                notices=self._change.problems,
                is_draining=lambda: self._is_draining,
                loop_lag=self._loop_watch.snapshot,
                publish=self.events.publish,
                data_dir=data_dir,
                config_file=self._config_file,
            )
        )
        self._upkeep = Upkeep(
            database=database,
            catalog=catalog,
            queue=queue,
            spaces=self._spaces,
            recovery=self._recovery,
            grace_s=self._settings.watch.delete_grace_s,
            sample=status.sample,
        )
        search = self._build_search()
        reset = Reset(
            database=database,
            catalog=catalog,
            queue=queue,
            store=self._store,
            spaces=self._spaces,
            folders=self._folders,
            cache=self._cache,
            change=self._change,
        )
        verifier = Verifier(
            database=database,
            catalog=catalog,
            queue=queue,
            store=self._store,
            watcher=self._watcher,
            recovery=self._recovery,
            arrears=self._arrears,
            begin_anew=self._begin_anew,
        )
        return DaemonControl(
            Parts(
                database=database,
                catalog=catalog,
                queue=queue,
                store=self._store,
                watcher=self._watcher,
                folders=self._folders,
                processing=processing,
                explainer=Explainer(catalog=catalog, queue=queue, rules=self._watcher),
                status=status,
                reset=reset,
                verifier=verifier,
                backup=Backup(database=database, store=self._store, data_dir=data_dir),
                events=self.events,
                search=partial(answer, search),
                models=PoolDesk(self._pool, self._lineage.settings),
                spaces=SpaceKeeper(
                    self._change,
                    database=database,
                    store=self._store,
                    pool=self._pool,
                    keep_replaced_h=self._settings.inference.keep_replaced_h,
                ),
            )
        )

    def _build_search(self) -> SearchService:
        deadline_s = self._settings.search.query_timeout_s
        asker = Asker(
            catalog=self._catalog,
            pool=self._pool,
            key_of=self._change.question_key,
            space_of=self._spaces.of,
            deadline_s=deadline_s,
        )
        examples = Examples(catalog=self._catalog, readers=self._media_readers, asker=asker)
        name = self._settings.inference.rerank_model
        rerank = (
            partial(self._pool.rerank, model=ModelKey(name), lane=PoolLane.INTERACTIVE, deadline_s=deadline_s)
            if name
            else None
        )
        return SearchService(self._catalog, self._store, asker, self._settings.search, examples=examples, rerank=rerank)

    def _models(self) -> Models:
        """What new contents owe to which models."""
        return Models(self._change.targets(), self._speech_model())

    def _modality_of(self, model: ModelKey) -> str:
        return self._serves.get(model, "text")

    def _speech_model(self) -> ModelKey | None:
        name = self._settings.inference.speech_model
        return ModelKey(name) if name else None

    def _wanted_models(self) -> dict[str, ModelKey]:
        """The model of the settings for each modality that is embedded."""
        named = self._settings.inference
        chosen = {
            "text": named.text_model,
            "image": named.image_model,
            "audio": named.audio_model,
            "page": named.page_model,
        }
        return {modality: ModelKey(name) for modality, name in chosen.items() if name}

    # -- services ---------------------------------------------------------------------------------------------------------

    async def _serve_api(self) -> None:
        """Answer calls. A server that fell is spent: the next start of this service makes a new one."""
        if self._server is None:
            self._server = self._make_server()
            await self._server.start()
        try:
            await self._server.wait()
        finally:
            server, self._server = self._server, None
            if self._is_draining:
                self.events.close()
            await server.stop()

    async def _tell(self, job: Job, error: errors.MsearchError) -> None:
        """An event for whoever listens: which file did not go well, and why."""
        asset = await self._catalog.asset(job.asset)
        if asset is not None:
            facts = {
                "path": path_text(asset.path),
                "step": job.step.value,
                "code": error.code,
                "error": error.sentence(),
            }
            self.events.publish("file not done", facts)

    def _problems(self) -> tuple[str, ...]:
        """What is wrong with the daemon itself, as sentences."""
        fallen = [
            f"the service {service.name} {service.state}: {service.error}"
            for service in (self._supervisor.snapshot() if self._supervisor else ())
            if service.state in {ServiceState.WAITING, ServiceState.LOST}
        ]
        return (*self._indexing.problems(), *self._integrity.problems(), *fallen)

    def _aside(self) -> Sequence[str]:
        return told(self._settings.data_dir, now=dt.datetime.now(dt.UTC))
