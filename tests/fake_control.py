"""A Control with behaviour: folders that can be added, work that takes time and fails, pauses, a real event bus.

It keeps its promises as msearchd.control.protocol states them; the API and the client are tested against it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time

from msearchd import errors
from msearchd.control import EventBus, replies, search_replies, upkeep_replies
from msearchd.control.models import ModelPageRow, ModelsPage
from msearchd.control.spaces import ModelPlan, SpaceRow, SpacesPage
from msearchd.control.types import path_bytes, path_text


class FakeDesk:
    """Two models: "words" loads, "huge" does not."""

    def __init__(self):
        self.rows = {
            "words": {"name": "words", "serves": "text", "state": "unloaded", "source": "acme/words"},
            "huge": {"name": "huge", "serves": "page", "state": "unusable", "reason": "no weights (type: this)"},
        }

    def page(self):
        rows = [ModelPageRow(**row) for row in self.rows.values()]
        return ModelsPage(models=rows, budget_bytes=8_000_000_000, resident_bytes=sum(r.resident_bytes for r in rows))

    def _row(self, model, **changes):
        if model not in self.rows:
            raise errors.NotFound(f"there is no model {model!r} (there is: {', '.join(self.rows)})")
        self.rows[model] |= changes
        return ModelPageRow(**self.rows[model])

    async def load(self, model):
        if model == "huge":
            raise errors.Misconfigured("no weights", key="model:huge", hint="type: this")
        return self._row(model, state="ready", engine="fake", device="cpu", batch_cost=2048, cost_unit="tokens",
                         throughput_per_s=5120.5, resident_bytes=412_000_000, loads=1, last_used_ms=1_700_000_000_000)  # fmt: skip

    async def unload(self, model):
        return self._row(model, state="unloaded", resident_bytes=0, is_pinned=False)

    async def pin(self, model, *, is_pinned):
        if is_pinned:
            await self.load(model)
        return self._row(model, is_pinned=is_pinned)


class FakeSpaces:
    """The space "words-1" answers; "words-2" of the settings' model waits for a yes, and is complete once it got it."""

    def __init__(self):
        common = {"model": "words", "modality": "text", "dim": 4, "points": 70_000, "size_bytes": 310_000_000}
        self.rows = {
            "words-1": {**common, "name": "words-1", "fingerprint": "1" * 64, "phase": "serving", "contents": 9000},
            "words-2": {**common, "name": "words-2", "fingerprint": "2" * 64, "phase": "waiting", "lacking": 9000,
                        "coverage": 0.0, "points": 0, "size_bytes": 0},
        }  # fmt: skip

    def _name(self, space):
        name = "words-2" if space == "words" else space
        if name not in self.rows:
            raise errors.NotFound(f"there is no vector space {space!r} (there is: {', '.join(self.rows)})")
        return name

    def _serving(self):
        return next(name for name, row in self.rows.items() if row["phase"] == "serving")

    async def page(self):
        waits = [row for row in self.rows.values() if row["phase"] == "waiting"]
        sentences = ["70,000 passages await the model 'words'; type: msearch model switch words"] if waits else []
        return SpacesPage(spaces=[SpaceRow(**row) for row in self.rows.values()], sentences=sentences)

    async def plan(self, space):
        row = self.rows[self._name(space)]
        return ModelPlan(space=row["name"], modality="text", phase=row["phase"], serving=self._serving(), contents=9000,
                         samples=70_000, per_s=20.0, seconds=3500.0, size_bytes=310_000_000, keep_replaced_h=168.0)  # fmt: skip

    async def switch(self, space):
        name = self._name(space)
        if name != "words-2":
            raise errors.BadRequest(f"the settings do not ask for {name}", hint="type: msearch model rollback")
        self.rows["words-1"]["phase"] = "kept"
        self.rows["words-2"] |= {"phase": "serving", "contents": 9000, "lacking": 0, "coverage": 1.0}
        return SpaceRow(**self.rows["words-2"])

    async def rollback(self, modality):
        if self.rows["words-1"]["phase"] == "serving" or modality != "text":
            raise errors.BadRequest("no space of another model is kept")
        self.rows["words-1"]["phase"], self.rows["words-2"]["phase"] = "serving", "declined"
        return SpaceRow(**self.rows["words-1"])

    async def drop(self, space):
        row = self.rows[self._name(space)]
        if row["phase"] == "serving":
            raise errors.BadRequest(f"{row['name']} answers questions", hint="switch or roll back first")
        before = SpaceRow(**row)
        row |= {"phase": "declined", "points": 0, "size_bytes": 0}
        return before


class FakeControl:
    """`files` are the known ones with their text. A name with "bad" in it fails; one with "slow" takes 0.2 s a step."""

    def __init__(self, files=None, *, bus=None):
        self.files = dict(files or {})
        self.watched = {b"/docs"}
        self.reasons = []
        self.bus = bus or EventBus(first_id=1)
        self.works = {}
        self.failures = {}
        self.resets = []
        self.is_well = True
        self.raises = {}  # method name -> exception to raise once asked
        self.cancelled = []
        self.models = FakeDesk()
        self.spaces = FakeSpaces()
        self._ids = itertools.count(1)
        self._tasks = set()
        self._started = time.monotonic()

    def _check(self, name):
        if name in self.raises:
            raise self.raises[name]

    async def close(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.bus.close()

    def _folder(self, path):
        inside = sum(1 for file in self.files if file.startswith(path + b"/"))
        return replies.FolderReply(path=path_text(path), state="online", files=replies.FolderCounts(indexed=inside))

    async def status(self):
        self._check("status")
        return replies.StatusReply(
            version="0.1.0", pid=os.getpid(), uptime_s=time.monotonic() - self._started,
            state="paused" if self.reasons else "ready", pauses=list(self.reasons), data_dir="/var/lib/fake",
            folders=[self._folder(path) for path in sorted(self.watched)],
            watch=replies.WatchReply(backend="inotify", health="ok"),
            queue=replies.QueueReply(ready=3, running=1, failed=len(self.failures), by_step={"embed": 3}),
            progress=replies.ProgressReply(files_per_s=2.5, passages_per_s=40.0, eta_s=61.0),
            models=[replies.ModelReply(name="all-minilm-l6-v2", state="ready", engine="fake", device="cpu", dim=384)],
            store=replies.StoreReply(backend="edge", is_ok=True, points=1234, disk_bytes=5_000_000),
            blocked=[replies.BlockedReason(cause="model:big", reason="weights are missing: type this", jobs=2)],
        )  # fmt: skip

    async def queue(self):
        return upkeep_replies.QueuePageReply(
            queue=replies.QueueReply(ready=3, running=1, failed=1, by_step={"embed": 3}),
            steps=[upkeep_replies.StepReply(step="embed", target="mini", ready=3, running=1, failed=1, oldest_s=12.0)],
            reasons=[upkeep_replies.ReasonReply(state="failed", step="embed", reason="broken\x1b[2J", jobs=1, since_ms=1)],
            oldest_s=12.0, jobs_per_s=2.0, ended={"done": 120}, eta_s=2.0, pauses=list(self.reasons),
        )  # fmt: skip

    async def verify(self, *, is_repair):
        self._check("verify")
        is_clean = self.is_well
        return upkeep_replies.VerifyReply(
            is_clean=is_clean, is_repaired=is_repair and not is_clean,
            spaces=[upkeep_replies.SpaceCheck(space="s", points_expected=5, points_found=5 if is_clean else 4)],
            folders=[upkeep_replies.FolderCheck(path="/docs", is_checked=True, files=3)],
            sentences=[] if is_clean else ["1 point is missing"],
        )  # fmt: skip

    async def backup(self, path, *, has_vectors):
        if path in self.files:
            message = f"{path_text(path)} exists already"
            raise errors.BadRequest(message, hint="name a folder that is not there yet")
        return upkeep_replies.BackupReply(path=path_text(path), size_bytes=4096, has_vectors=has_vectors, took_s=0.1)

    async def health(self):
        check = replies.HealthCheck(name="database", is_ok=self.is_well, reason="" if self.is_well else "read-only")
        return replies.HealthReply(is_ok=self.is_well, checks=[check])

    async def search(self, request):
        self._check("search")
        if "slow" in request.text:
            await self._patiently(30, "search")
        began = time.perf_counter()
        words = request.text.lower().split()
        hits = []
        for path, text in self.files.items():
            folders = [path_bytes(folder).rstrip(b"/") + b"/" for folder in request.folders]
            if folders and not any(path.startswith(folder) for folder in folders):
                continue
            spots = [(text.lower().find(word), word) for word in words if word in text.lower()]
            if spots:
                hits.append(self._hit(path, text, spots, len(hits) + 1))
        hits.sort(key=lambda hit: -hit.score)
        return search_replies.SearchReply(
            hits=hits[: request.limit], took_ms=(time.perf_counter() - began) * 1000,
            lists=[search_replies.ListReply(list="words", candidates=len(hits), took_ms=0.1)],
            missing=[] if self.is_well else ["the model is loading: hits by meaning are missing"],
        )  # fmt: skip

    @staticmethod
    def _hit(path, text, spots, rank):
        return search_replies.HitReply(
            path=path_text(path), modality="text", mime="text/plain", type_label="txt", size_bytes=len(text),
            modified_ms=1_700_000_000_000, score=float(len(spots)), ranks=[search_replies.HitRank(list="words", rank=rank, score=1.5)],
            kind="body", char_start=0, char_end=len(text), snippet=text, highlights=[(at, at + len(word)) for at, word in spots],
        )  # fmt: skip

    async def _patiently(self, seconds, name):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    async def sync(self, *, timeout_s):
        self._check("sync")
        return replies.SyncReply(
            is_complete=not self.reasons, took_s=0.01, pending=0, blocked=2, failed=len(self.failures)
        )

    async def folders(self):
        return replies.FoldersReply(folders=[self._folder(path) for path in sorted(self.watched)])

    async def add_folder(self, path):
        if b"missing" in path:
            raise errors.NotFound(f"there is no folder {path_text(path)}", hint="create it first")
        if path == b"/var/lib/fake":
            raise errors.BadRequest("that folder holds the index itself", hint="choose another")
        self.watched.add(path)
        self.bus.publish("folder-added", {"path": path_text(path)})
        return self._folder(path)

    async def remove_folder(self, path):
        if path not in self.watched:
            raise errors.NotFound(f"{path_text(path)} is not watched", hint="`msearch list` shows what is")
        self.watched.discard(path)
        self.bus.publish("folder-removed", {"path": path_text(path)})

    async def process(self, paths, *, wait_s):
        for path in paths:
            if b"missing" in path:
                raise errors.NotFound(f"there is no {path_text(path)}", hint="check the path")
        return await self._begin(paths, concurrency=1, wait_s=wait_s)

    async def batch_process(self, paths, *, concurrency):
        return await self._begin(paths, concurrency=concurrency, wait_s=0)

    async def _begin(self, paths, *, concurrency, wait_s):
        work_id = f"w{next(self._ids)}"
        self.works[work_id] = dict.fromkeys(paths, "queued")
        task = asyncio.create_task(self._work(work_id, asyncio.Semaphore(concurrency)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await self.process_status(work_id, wait_s=wait_s)

    async def _work(self, work_id, gate):
        async def one(path):
            async with gate:
                self.works[work_id][path] = "running"
                await asyncio.sleep(0.2 if b"slow" in path else 0.001)
                is_bad = b"bad" in path or b"missing" in path
                self.works[work_id][path] = "failed" if is_bad else "done"
                if is_bad:
                    self.failures[path] = "no text in it"
                self.bus.publish("job", {"path": path_text(path), "outcome": self.works[work_id][path]})

        await asyncio.gather(*(one(path) for path in self.works[work_id]))

    async def process_status(self, process_id, *, wait_s):
        if process_id not in self.works:
            raise errors.NotFound(f"no process request has the id {process_id}", hint="ids are forgotten at a restart")
        deadline = time.monotonic() + wait_s
        while (reply := self._progress(process_id)).is_finished is False and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return reply

    def _progress(self, work_id):
        states = self.works[work_id]
        failed = sum(state == "failed" for state in states.values())
        ended = failed + sum(state == "done" for state in states.values())
        if ended < len(states):
            state = "running" if ended or "running" in states.values() else "queued"
        else:
            state = "failed" if failed == len(states) else "partly_failed" if failed else "done"
        return replies.ProcessReply(
            id=work_id, state=state, percent=100.0 * ended / len(states), total=len(states), done=ended - failed,
            failed=failed, files_per_s=12.5, eta_s=0.5,
            files=[
                replies.FileProgress(path=path_text(path), state=one, percent=100.0 if one in {"done", "failed"} else 0.0,
                                     error="no text in it" if one == "failed" else "", hint="open it by hand")
                for path, one in states.items()
            ],
        )  # fmt: skip

    async def explain(self, path):
        text = path_text(path)
        if path in self.files:
            return replies.ExplainReply(
                path=text, verdict="indexed", sentence="It is indexed.", root="/docs", root_state="online", modality="text",
                type_label="txt", mime="text/plain", size_bytes=len(self.files[path]), modified_ms=1_700_000_000_000,
                segments={"body": 1}, spaces=["all-minilm-l6-v2"],
                history=[replies.JobReply(step="embed", state="done", attempts=1, at_ms=1_700_000_000_000)],
            )  # fmt: skip
        if not any(path.startswith(folder + b"/") for folder in self.watched):
            return replies.ExplainReply(
                path=text, verdict="outside", sentence="No watched folder holds it; type: msearch add DIR"
            )
        return replies.ExplainReply(path=text, verdict="excluded", sentence="A rule leaves it out.", root="/docs",
                                    rule="*.tmp", rule_origin="built-in list, line 3")  # fmt: skip

    async def failed(self, *, limit, cursor):
        start = int(cursor.partition("-")[0] or 0)
        items = [
            replies.FailedItem(path=path_text(path), state="failed", step="extract", error=error, attempts=5,
                               updated_ms=1_700_000_000_000)
            for path, error in sorted(self.failures.items())
        ]  # fmt: skip
        more = str(start + limit) if start + limit < len(items) else None
        return replies.FailedReply(items=items[start : start + limit], next_cursor=more)

    async def retry(self, path):
        if path is not None and path not in self.failures and path not in self.files:
            raise errors.NotFound(f"{path_text(path)} is not known", hint="`msearch explain` says more")
        chosen = [path] if path is not None else list(self.failures)
        return replies.RetryReply(retried=sum(self.failures.pop(one, None) is not None for one in chosen))

    async def pause(self, reason):
        self.reasons = sorted({*self.reasons, reason})
        return replies.PauseReply(pauses=self.reasons)

    async def resume(self, reason):
        self.reasons = [one for one in self.reasons if reason is not None and one != reason]
        return replies.PauseReply(pauses=self.reasons)

    async def reset(self, reset_type):
        self._check("reset")
        self.resets.append(reset_type)
        return replies.ResetReply(reset_type=reset_type, sentence="The vectors are gone and are computed again.")

    def events(self, since):
        return self.bus.stream(since)
