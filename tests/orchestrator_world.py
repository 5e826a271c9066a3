"""The orchestrator over a real database: a disk, readers, a model and a vector store that behave, in memory.

In: files written to a pretended disk, changes as the watcher would tell them. Out: rows of the real catalog and queue,
points in the pretended store. `settle` runs every job that is owed; a hook holds a step up in the middle of its work.
"""

import asyncio
import hashlib
import itertools
from array import array
from collections import Counter
from dataclasses import replace

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.domain.asset import ContentHash, StatFingerprint
from msearchd.domain.job import Step
from msearchd.domain.media import Extraction, Identified, Modality, Segment, SegmentKind
from msearchd.domain.space import ModelKey, Space, SpaceName, Vectors
from msearchd.jobs.queue import JobQueue
from msearchd.media.client import ChangedWhileReading
from msearchd.orchestrator import plan
from msearchd.orchestrator.arrears import Arrears
from msearchd.orchestrator.document_vectors import DocumentVectors
from msearchd.orchestrator.embed import EmbedStep
from msearchd.orchestrator.folders import FolderList
from msearchd.orchestrator.intake import Intake
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.model_change import ModelChange
from msearchd.orchestrator.model_plan import Policy
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.recovery import Recovery
from msearchd.orchestrator.reset import Reset
from msearchd.orchestrator.runner import Runner
from msearchd.orchestrator.spaces import Spaces
from msearchd.orchestrator.steps import Steps
from msearchd.settings.model import ExtractSettings, QueueSettings, WatchSettings
from msearchd.store.catalog import Catalog
from msearchd.store.vector_cache import VectorCache
from msearchd.watch.changes import FileSeen

MINILM = ModelKey("minilm")
ROOT_PATH = b"/home/u"


class Disk:
    """Files by absolute path. A write gives a new inode and times, as an atomic save does."""

    def __init__(self):
        self.files = {}
        self._ticks = itertools.count(1)

    def write(self, path, data):
        tick = next(self._ticks)
        self.files[path] = (data, StatFingerprint(len(data), 10**18 + tick, 10**18 + tick, 100 + tick))
        return self.files[path][1]

    def read(self, path):
        if path not in self.files:
            message = f"{path!r} is not there"
            raise errors.NotFound(message)
        return self.files[path]


class Readers:
    """The promises of media.client.Extractors: what was read belongs to the fingerprint, or ChangedWhileReading."""

    def __init__(self, disk):
        self.disk = disk
        self.reads = Counter()
        self.errors = {}  # by path: raised by extract and ocr
        self.during = {}  # by step: awaited after the file was read, before the answer is given
        self.reads_small_text_at_once = False
        self.separator = "|"  # where passages are cut

    async def identify_extract(self, path):
        data, stat = self.disk.read(path)
        self.reads["identify", path] += 1
        await self._meanwhile("identify")
        found = Identified(stat, ContentHash(hashlib.sha256(data).digest()), "text/plain", "txt", Modality.TEXT)
        return found, _extraction(data, self.separator) if self.reads_small_text_at_once else None

    async def extract(self, path, identified):
        return await self._read("extract", path, identified)

    async def ocr(self, path, identified, pages=()):
        return await self._read("ocr", path, identified)

    async def _read(self, step, path, identified):
        data, stat = self.disk.read(path)
        self.reads[step, path] += 1
        # As the worker: an equal fingerprint is believed, only another one is looked into.
        if stat != identified.fingerprint and hashlib.sha256(data).digest() != identified.content_hash:
            message = "other bytes"
            raise ChangedWhileReading(message)
        await self._meanwhile(step)
        if path in self.errors:
            raise self.errors[path]
        return _extraction(data, self.separator)

    async def _meanwhile(self, step):
        if (hook := self.during.pop(step, None)) is not None:
            await hook()


def _extraction(data, separator):
    parts = [part for part in data.decode().split(separator) if part]
    return Extraction(tuple(Segment(SegmentKind.BODY, n, part) for n, part in enumerate(parts)))


class Models:
    """A pool whose vectors say nothing; `revision` is the weights'. Those of before stay on the machine unless `lost`."""

    def __init__(self):
        self.revision = "1"
        self.cut = ""  # how passages are cut now
        self.lost = set()  # revisions that cannot be asked any more
        self.by_model = []  # (model, text) of all that was embedded
        self.error = None
        self.during = None
        self.embedded = []

    async def space(self, model):
        if self.error is not None:
            raise self.error
        return Space(SpaceName(f"{model}-{self.revision}"), model, self.revision, 2)

    async def embed(self, texts, *, model, role, lane, deadline_s):
        if self.error is not None:
            raise self.error
        self.embedded += texts
        self.by_model += [(model, text) for text in texts]
        if (hook := self.during) is not None:
            self.during = None
            await hook()
        return Vectors(array("f", [1.0, 0.0] * len(texts)).tobytes(), len(texts), 2)


class Lineage:
    """The promises of inference.lineage: a model of before is asked under a key that no settings have."""

    def __init__(self, models):
        self.models = models

    async def key_for(self, space, made_by, *, taken):
        is_current = space.fingerprint == self.models.revision and self.models.error is None
        if is_current and space.model not in taken:
            return space.model
        is_there = space.fingerprint not in self.models.lost and self.models.error is None
        return ModelKey(f"{space.model}@{space.fingerprint}") if is_there else None

    def maker(self, model):
        return self.models.cut

    def is_cut_alike(self, one, other):
        return one == other


class Store:
    """Points in memory: {space: {point id: payload}}. `error` is raised by every call while it is set."""

    def __init__(self):
        self.points = {}
        self.error = None
        self.during_contents = None
        self.before_delete = None

    def _check(self):
        if self.error is not None:
            raise self.error

    async def ensure(self, space):
        self._check()
        self.points.setdefault(space.name, {})

    async def upsert(self, space, points, vectors):
        self._check()
        self.points[space].update({point.id: point.payload for point in points})

    async def set_dirs(self, space, content, dirs):
        self._check()
        for id_, payload in self.points[space].items():
            if payload.content == content:
                self.points[space][id_] = _with_dirs(payload, dirs)

    async def delete_contents(self, space, contents):
        self._check()
        if (hook := self.before_delete) is not None:
            self.before_delete = None
            await hook()
        self.points[space] = {k: p for k, p in self.points[space].items() if p.content not in set(contents)}

    async def count(self, space):
        self._check()
        return len(self.points.get(space, {}))

    async def contents(self, space):
        self._check()
        if (hook := self.during_contents) is not None:
            self.during_contents = None
            await hook()
        yield dict(Counter(payload.content for payload in self.points.get(space, {}).values()))

    async def flush(self):
        self._check()

    async def optimize(self):
        self._check()

    async def spaces(self):
        self._check()
        return list(self.points)

    async def drop(self, space):
        self._check()
        self.points.pop(space, None)


def _with_dirs(payload, dirs):
    return replace(payload, dirs=tuple(dirs))


class NoWatcher:
    """Roots that are added to it, and nothing else."""

    def __init__(self):
        self.roots = {}

    async def add_root(self, root):
        self.roots[root.id] = root

    async def remove_root(self, root_id):
        self.roots.pop(root_id, None)


class OrchestratorWorld:
    """Everything between the watcher and the store, on one database file; `restarted` is the same after a kill."""

    def __init__(self, folder):
        self.folder = folder
        self.disk, self.models, self.store = Disk(), Models(), Store()
        self.readers = Readers(self.disk)
        self.text_models = (MINILM,)
        self.scans_asked = []
        self.policy = Policy(auto_samples=1000, keep_ms=1 << 40)
        self.cache_bytes = 0

    async def open(self):
        self.database = await Database.open(self.folder / "msearchd.db")
        self.cache = await VectorCache.open(self.folder / "vector-cache.db", max_bytes=self.cache_bytes)
        self.catalog = Catalog(self.database)
        await self.catalog.open()
        self.now_ms = 1_000_000
        self.queue = JobQueue(self.database, QueueSettings(max_attempts=3), now_ms=lambda: self.now_ms)
        await self.queue.open()
        self.outcomes = Outcomes(self.database, self.catalog, self.queue)
        self.intake = Intake(self.database, self.catalog, self.queue)
        locks = KeyedLocks()
        self.spaces = Spaces(database=self.database, catalog=self.catalog, pool=self.models, store=self.store)
        self.recovery = Recovery(database=self.database, catalog=self.catalog, queue=self.queue, store=self.store)
        self.recovered = asyncio.Event()
        self.change = ModelChange(
            database=self.database, queue=self.queue, spaces=self.spaces, store=self.store, pool=self.models,
            lineage=Lineage(self.models), wanted=dict(zip(("text",), self.text_models, strict=False)),
            policy=self.policy, recovered=self.recovered, now_ms=lambda: self.now_ms,
        )  # fmt: skip
        self.arrears = Arrears(
            database=self.database, catalog=self.catalog, queue=self.queue, outcomes=self.outcomes,
            spaces=self.spaces, text_models=self.change.targets, filling=self.change.filling,
        )  # fmt: skip
        self.change.use(self.arrears)
        self.steps = Steps(
            catalog=self.catalog, outcomes=self.outcomes, extractors=self.readers, slow_extractors=self.readers,
            store=self.store, settings=ExtractSettings(), models=lambda: plan.Models(self.change.targets()), content_locks=locks,
            ask_for_scan=lambda *place: self.scans_asked.append(place),
        )  # fmt: skip
        self.embed = EmbedStep(
            catalog=self.catalog, outcomes=self.outcomes, vectors=DocumentVectors(self.models, self.cache),
            store=self.store, spaces=self.spaces, content_locks=locks, deadline_s=60,
        )  # fmt: skip
        steps = self.steps
        self.runner = Runner(
            self.outcomes,
            {Step.IDENTIFY: steps.identify, Step.EXTRACT: steps.extract, Step.OCR: steps.ocr,
             Step.RELOCATE: steps.relocate},
            tell=_nobody_listens,
        )  # fmt: skip
        if not await self.catalog.roots():
            await self.database.write(lambda c: self.catalog.add_root_in(c, ROOT_PATH))
        [root] = await self.catalog.roots()
        self.root = root.id
        return self

    async def close(self):
        await self.queue.close()
        await self.database.close()
        if self.cache is not None:
            await self.cache.close()

    async def restarted(self):
        """As after a kill: what was running is given back, nothing else is known but the file and the points."""
        await self.close()
        return await self.open()

    async def start(self):
        """What the index service does before it lets work begin."""
        await self.change.start()
        await self.arrears.settle()
        await self.recovery.at_start()
        await self.arrears.embed()
        self.recovered.set()

    def folders(self):
        return FolderList(
            database=self.database, catalog=self.catalog, queue=self.queue, watcher=NoWatcher(),
            data_dir=self.folder, settings=WatchSettings(),
        )  # fmt: skip

    async def reset(self, what, **parts):
        reset = Reset(
            database=self.database, catalog=self.catalog, queue=self.queue, store=self.store, spaces=self.spaces,
            folders=self.folders(), cache=self.cache, change=self.change, **parts,
        )  # fmt: skip
        return await reset.run(what)

    # -- the watcher's part ---------------------------------------------------------------------------------------------

    def path(self, name):
        return ROOT_PATH + b"/" + name

    async def save(self, name, text):
        """Write a file and tell the intake, as the watcher does when it rests; return its asset id."""
        stat = self.disk.write(self.path(name), text.encode())
        await self.intake.apply([FileSeen(self.root, name, stat, is_live=True)])
        return (await self.catalog.asset_by_path(self.path(name))).id

    # -- the dispatcher's part ------------------------------------------------------------------------------------------

    async def claim(self, *steps, limit=64):
        wanted = [(step, None) for step in steps or (Step.IDENTIFY, Step.EXTRACT, Step.OCR, Step.RELOCATE)]
        return await self.queue.claim(steps=wanted, limit=limit, owner="test")

    async def run(self, job):
        if job.step is Step.EMBED:
            await self.runner.run_group([job], self.embed.run)
        else:
            await self.runner.run_one(job)

    async def settle(self, *steps):
        """Run jobs of *steps* (all that lanes serve) until none is ready."""
        models = [(Step.EMBED, model) for model in self.change.targets()]
        served = (Step.IDENTIFY, Step.EXTRACT, Step.OCR, Step.RELOCATE)
        wanted = [(step, None) for step in steps] or [*((step, None) for step in served), *models]
        while jobs := await self.queue.claim(steps=wanted, limit=64, owner="test"):
            for job in jobs:
                await self.run(job)

    # -- questions --------------------------------------------------------------------------------------------------------

    async def state(self, name):
        return (await self.catalog.asset_by_path(self.path(name))).state

    async def content_of(self, name):
        row = await self.catalog.asset_by_path(self.path(name))
        return await self.catalog.content_of(row.id)

    async def texts(self, name):
        content = await self.content_of(name)
        return [segment.text for segment in await self.catalog.segments(content.id)]

    async def open_jobs(self, name):
        row = await self.catalog.asset_by_path(self.path(name))
        return [(job.step, job.state) for job in await self.queue.jobs_of(row.id)]

    def points_of(self, space, content):
        return [payload for payload in self.store.points.get(space, {}).values() if payload.content == content.uuid]


async def _nobody_listens(job, error):
    await asyncio.sleep(0)
