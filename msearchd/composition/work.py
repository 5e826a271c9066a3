"""From a change on the disk to points: watcher, model change, steps, lanes."""

from __future__ import annotations

from dataclasses import dataclass

from msearchd import errors
from msearchd.composition.children import Children
from msearchd.composition.ground import Ground
from msearchd.composition.life import Life
from msearchd.composition.models import Modalities, speech_model, wanted_models
from msearchd.control.types import path_text
from msearchd.domain.job import Job, Step
from msearchd.media import registry
from msearchd.orchestrator.arrears import Arrears
from msearchd.orchestrator.dispatcher import Dispatcher
from msearchd.orchestrator.document_vectors import DocumentVectors
from msearchd.orchestrator.embed import EmbedStep
from msearchd.orchestrator.folders import FolderList
from msearchd.orchestrator.indexing import Indexing
from msearchd.orchestrator.intake import Intake
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.lanes import lanes_of
from msearchd.orchestrator.model_change import ModelChange
from msearchd.orchestrator.model_plan import Policy
from msearchd.orchestrator.model_turns import ModelTurns
from msearchd.orchestrator.news import News, ToldChanges, seen
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.plan import Models
from msearchd.orchestrator.recovery import Recovery
from msearchd.orchestrator.runner import Runner, ended_as
from msearchd.orchestrator.samples import Sampler
from msearchd.orchestrator.spaces import Spaces
from msearchd.orchestrator.steps import Steps
from msearchd.orchestrator.transcribe import TranscribeStep
from msearchd.watch.watcher import Watcher

#: A group of passages has so many times the time of one batch.
_BATCHES_OF_A_GROUP = 10


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that makes the index follow the disk."""

    watcher: Watcher
    folders: FolderList
    spaces: Spaces
    change: ModelChange
    recovery: Recovery
    arrears: Arrears
    outcomes: Outcomes
    runner: Runner
    indexing: Indexing
    news: News


def _kind_of(name: str) -> str:
    """What people would call a file of this name; "" where the name does not tell."""
    kind = registry.by_name(name)
    return kind.modality.value if kind is not None else ""


def make_work(life: Life, ground: Ground, children: Children) -> Work:
    """Put it together; nothing runs yet."""
    modalities = Modalities(ground.lineage.settings.models)
    watcher = Watcher(
        life.settings.watch,
        ground.catalog,
        ToldChanges(Intake(ground.database, ground.catalog, ground.queue), ground.catalog, life.events),
        state_dir=ground.data_dir / "watch",
        private=ground.data_dir,
        tended=ground.integrity.nudge,
        kind_of=_kind_of,
    )
    spaces = Spaces(
        database=ground.database,
        catalog=ground.catalog,
        pool=children.pool,
        store=children.store,
        modality_of=modalities.of,
        maker_of=ground.lineage.maker,
    )
    outcomes = Outcomes(ground.database, ground.catalog, ground.queue)
    news = News(
        bus=life.events,
        catalog=ground.catalog,
        queue=ground.queue,
        look=lambda: seen(watcher.snapshot(), children.pool.snapshot()),
    )
    outcomes.note_settled = news.note
    change = _model_change(life, ground, children, spaces)
    arrears = Arrears(
        database=ground.database,
        catalog=ground.catalog,
        queue=ground.queue,
        outcomes=outcomes,
        spaces=spaces,
        text_models=lambda: tuple(change.targets()),
        filling=lambda: tuple(change.filling()),
        modality_of=modalities.of,
        speech_model=lambda: speech_model(life.settings.inference),
    )
    change.use(arrears)
    recovery = Recovery(database=ground.database, catalog=ground.catalog, queue=ground.queue, store=children.store)
    locks = KeyedLocks()
    runner = _runner(life, ground, children, outcomes=outcomes, change=change, locks=locks, watcher=watcher)
    embed = EmbedStep(
        catalog=ground.catalog,
        outcomes=outcomes,
        vectors=DocumentVectors(children.pool, ground.cache, encoder=ground.lineage.encoder),
        store=children.store,
        spaces=spaces,
        content_locks=locks,
        deadline_s=life.settings.inference.request_timeout_s * _BATCHES_OF_A_GROUP,
        sampler=Sampler(catalog=ground.catalog, readers=children.media_readers, ask_for_scan=watcher.request_scan),
        modality_of=modalities.of,
    )
    indexing = Indexing(
        catalog=ground.catalog,
        store=children.store,
        arrears=arrears,
        change=change,
        recovery=recovery,
        spaces=spaces,
        dispatcher=_dispatcher(life, ground, children, runner, embed),
        recovered=life.recovered,
        is_draining=life.ends,
        drain_s=life.settings.limits.drain_s,
    )
    folders = FolderList(
        database=ground.database,
        catalog=ground.catalog,
        queue=ground.queue,
        watcher=watcher,
        data_dir=ground.data_dir,
        settings=life.settings.watch,
    )
    return Work(watcher, folders, spaces, change, recovery, arrears, outcomes, runner, indexing, news)


def _model_change(life: Life, ground: Ground, children: Children, spaces: Spaces) -> ModelChange:
    inference = life.settings.inference
    return ModelChange(
        database=ground.database,
        queue=ground.queue,
        spaces=spaces,
        store=children.store,
        pool=children.pool,
        lineage=ground.lineage,
        wanted=wanted_models(inference),
        policy=Policy(auto_samples=inference.switch_unasked, keep_ms=int(inference.keep_replaced_h * 3_600_000)),
        recovered=life.recovered,
    )


def _runner(
    life: Life,
    ground: Ground,
    children: Children,
    *,
    outcomes: Outcomes,
    change: ModelChange,
    locks: KeyedLocks,
    watcher: Watcher,
) -> Runner:
    def models() -> Models:
        """What new contents owe to which models."""
        return Models(change.targets(), speech_model(life.settings.inference))

    async def tell(job: Job, error: errors.MsearchError) -> None:
        """An event for whoever listens: which file did not go well, and why."""
        asset = await ground.catalog.asset(job.asset)
        if asset is not None:
            facts = {"step": job.step.value, "state": ended_as(error), "code": error.code, "error": error.sentence()}
            life.events.publish("file not done", {"path": path_text(asset.path), **facts})

    steps = Steps(
        catalog=ground.catalog,
        outcomes=outcomes,
        extractors=children.extractors,
        slow_extractors=children.pixel_readers,
        store=children.store,
        settings=life.settings.extract,
        models=models,
        content_locks=locks,
        ask_for_scan=watcher.request_scan,
    )
    transcribe = TranscribeStep(
        catalog=ground.catalog,
        outcomes=outcomes,
        readers=children.media_readers,
        pool=children.pool,
        models=models,
        content_locks=locks,
        ask_for_scan=watcher.request_scan,
        deadline_s=life.settings.inference.request_timeout_s * _BATCHES_OF_A_GROUP,
    )
    duties = {
        Step.IDENTIFY: steps.identify,
        Step.EXTRACT: steps.extract,
        Step.OCR: steps.ocr,
        Step.TRANSCRIBE: transcribe.run,
        Step.RELOCATE: steps.relocate,
    }
    return Runner(outcomes, duties, tell=tell)


def _dispatcher(life: Life, ground: Ground, children: Children, runner: Runner, embed: EmbedStep) -> Dispatcher:
    inference = life.settings.inference
    lanes = lanes_of(
        runner,
        embed,
        workers=life.settings.extract.workers,
        models=tuple(dict.fromkeys((*wanted_models(inference).values(), *ground.replaced))),
        recovered=life.recovered,
        speech=speech_model(inference),
    )
    return Dispatcher(ground.queue, lanes, turns=ModelTurns(children.pool))
