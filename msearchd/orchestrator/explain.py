"""Why a path is found, or is not: root, rule, state, segments, jobs, last error.

In: an absolute path. Out: ExplainReply with the answer in one sentence. Every path has an answer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from typing import Final, Protocol

from msearchd.control.replies import ExplainReply, JobReply
from msearchd.control.replies import Verdict as Answer
from msearchd.control.types import path_text
from msearchd.domain.asset import AssetState, RootState
from msearchd.domain.media import SegmentKind
from msearchd.jobs.queue import HistoryRow, JobQueue, JobRow
from msearchd.store.catalog import AssetRow, Catalog, ContentRow
from msearchd.watch.status import Verdict


class _Rules(Protocol):
    def verdict(self, path: bytes) -> Verdict: ...


class Explainer:
    """Joins what the watcher, the catalog and the queue know of one path. *served*: what models are set for, speech too."""

    def __init__(self, *, catalog: Catalog, queue: JobQueue, rules: _Rules, served: Collection[str]) -> None:
        self._catalog = catalog
        self._queue = queue
        self._rules = rules
        self._served = served

    async def explain(self, path: bytes) -> ExplainReply:
        """The answer for *path*."""
        verdict = self._rules.verdict(path)
        row = await self._catalog.asset_by_path(path)
        if row is not None and row.is_gone:
            row = None
        answer, sentence = self._answer(path, verdict, row)
        if answer == "folder" and verdict.root is not None:
            known = await self._catalog.count_files(verdict.root.id, verdict.relative)
            sentence = f"{sentence} {known:,} known file{'s' if known != 1 else ''}; explain one of them."
        if answer in {"pending", "unknown"} and (pauses := await self._queue.pauses()):
            sentence = f"{sentence} Indexing is paused ({'; '.join(pauses)})."
        reply = ExplainReply(
            path=path_text(path),
            verdict=answer,
            sentence=sentence,
            root=path_text(verdict.root.path) if verdict.root else None,
            root_state=verdict.root.state.value if verdict.root else "",
            rule=verdict.rule if verdict.root else "",
            rule_origin=verdict.rule_origin if verdict.root else "",
        )
        return reply if row is None else await self._with_content(reply, row)

    async def _with_content(self, reply: ExplainReply, row: AssetRow) -> ExplainReply:
        content = await self._catalog.content_of(row.id)
        facts: dict[str, object] = {
            "root_state": row.root_state.value,
            "size_bytes": row.fingerprint.size,
            "modified_ms": row.modified_ms,
            "jobs": [job_reply(job) for job in await self._queue.jobs_of(row.id)],
            "history": [history_reply(entry) for entry in await self._queue.history_of(row.id, limit=20)],
        }
        if content is not None:
            counts = await self._catalog.segment_counts(content.id)
            facts |= {
                "modality": content.modality.value,
                "type_label": content.type_label,
                "mime": content.mime,
                "content": content.content_hash.hex(),
                "note": content.note,
                "segments": {kind.value: count for kind, count in counts.items() if count},
                "spaces": sorted(content.live_spaces),
            }
            if row.state is AssetState.INDEXED:
                facts["sentence"] = _indexed(content, row.root_state, served=self._served)
        return reply.model_copy(update=facts)

    def _answer(self, path: bytes, verdict: Verdict, row: AssetRow | None) -> tuple[Answer, str]:
        if verdict.root is None:
            return _outside(path)
        if verdict.is_excluded and row is None:
            return "excluded", f"It is left out by the rule {verdict.rule!r} ({verdict.rule_origin})."
        if row is None:
            return _unseen(path)
        return _of_state(row)


def _outside(path: bytes) -> tuple[Answer, str]:
    if not os.path.lexists(path):
        return "outside", "It does not exist, or may not be seen by this user, and is in no watched folder."
    folder = os.fsdecode(path if os.path.isdir(path) else os.path.dirname(path))
    return "outside", f"It is in no watched folder; to index it type: msearch add {folder}"


def _unseen(path: bytes) -> tuple[Answer, str]:
    try:
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    except PermissionError:
        return "missing", "Its folder may not be read by this user, so nothing in it is known."
    except OSError:
        return "missing", "It does not exist, and nothing of it is in the index."
    if is_folder:
        return "folder", "It is a folder that is watched, with"
    return "unknown", "It was not seen yet; to index it now type: msearch process " + os.fsdecode(path)


def _of_state(row: AssetRow) -> tuple[Answer, str]:
    offline = _offline(row.root_state)
    match row.state:
        case AssetState.INDEXED:
            return "indexed", f"It is indexed.{offline}"
        case AssetState.PENDING:
            return "pending", f"Work for it is queued or running; its jobs are below.{offline}"
        case AssetState.BLOCKED:
            return "blocked", f"It waits: {_ended(row.reason)}{offline}"
        case AssetState.FAILED:
            return (
                "failed",
                f"It could not be indexed: {_ended(row.reason)} Try again with: msearch retry PATH{offline}",
            )
        case AssetState.SKIPPED:
            return "skipped", f"It is found by name only: {_ended(row.reason.removesuffix(_NAME_ONLY))}{offline}"


#: How reasons to skip a file often end; said once is enough.
_NAME_ONLY = ": found by name only"


def _indexed(content: ContentRow, root_state: RootState, *, served: Collection[str]) -> str:
    """By which lists it is found, why not by more, and which settings would add one."""
    ways = ["by name", *(["by words"] if content.segments else []), *(["by meaning"] if content.live_spaces else [])]
    shown = ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])} and {ways[-1]}"
    note = f" Not all of it was read: {_ended(content.note)}" if content.note else ""
    more = further_ways(content.samples, has_words=bool(content.segments), served=served)
    return f"It is indexed: found {shown}.{note}{more}{_offline(root_state)}"


#: A place without text, the setting of a model that would make it findable, by what, and which models are such.
_FURTHER: Final = (
    (SegmentKind.IMAGE, "image", "by what it shows", "CLIP or SigLIP"),
    (SegmentKind.AUDIO, "audio", "by how it sounds", "CLAP"),
    (SegmentKind.AUDIO, "speech", "by what is said in it", "Whisper"),
    (SegmentKind.PAGE, "page", "by how its pages look", "ColPali"),
)


def further_ways(samples: Collection[SegmentKind], *, has_words: bool, served: Collection[str]) -> str:
    """Say which settings would make a content with these places findable by more; "" where none would.

    Pages are told of only where they gave no words: those of a text are found by it.
    """
    ways = [
        f"{way}: {serves}_model ({models})"
        for kind, serves, way, models in _FURTHER
        if kind in samples and serves not in served and not (kind is SegmentKind.PAGE and has_words)
    ]
    if not ways:
        return ""
    return f" With a model named under [inference] it would also be found {', '.join(ways)}."


def _offline(state: RootState) -> str:
    return " Its folder is offline: the hits are remembered." if state is RootState.OFFLINE else ""


def _ended(reason: str) -> str:
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."


def job_reply(job: JobRow) -> JobReply:
    """An open job as the API shows it."""
    return JobReply(
        step=job.step.value,
        target=job.target,
        state=job.state.value,
        attempts=job.attempts,
        error=job.error,
        at_ms=job.run_at_ms,
    )


def history_reply(entry: HistoryRow) -> JobReply:
    """An ended attempt as the API shows it."""
    return JobReply(
        step=entry.step.value,
        target=entry.target,
        state=entry.outcome.value,
        attempts=entry.attempts,
        error=entry.error,
        at_ms=entry.ended_ms,
    )
