"""What the daemon answers. Times are integers of milliseconds UTC, durations are seconds, rates are per second."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from msearchd.control.types import Count, Int, PathText, Reply, Text, TimeMs


class FolderCounts(Reply):
    """Files of a folder by state; they add up to the known files."""

    indexed: Count = 0
    pending: Count = 0
    blocked: Count = 0
    failed: Count = 0
    skipped: Count = 0


class FolderReply(Reply):
    """A watched folder."""

    path: PathText
    state: Literal["online", "offline"]
    reason: Text = ""
    files: FolderCounts = FolderCounts()
    is_scanning: bool = False
    scanned_dirs: Count = 0
    unwatched_dirs: Annotated[Count, Field(description="Folders that could not be read.")] = 0
    took_in: Annotated[
        list[PathText], Field(description="When added: watched folders in it, which are folders of it now.")
    ] = Field(default_factory=list)


class FoldersReply(Reply):
    """All watched folders."""

    folders: list[FolderReply]


class WatchReply(Reply):
    """Health of watching; `advice` is the line to type where it is not ok."""

    backend: Text
    health: Literal["ok", "degraded", "down"]
    advice: Text = ""
    overflows: Count = 0
    pending: Annotated[Count, Field(description="Changes seen that have not settled yet.")] = 0
    last_doubt: Annotated[Text, Field(description="What last made a comparison of everything necessary.")] = ""
    last_doubt_ms: Annotated[TimeMs | None, Field(description="When that was; null: never since the start.")] = None


class QueueReply(Reply):
    """Jobs by state, and ready ones by step."""

    ready: Count = 0
    running: Count = 0
    delayed: Count = 0
    blocked: Count = 0
    failed: Count = 0
    oldest_ready_s: float | None = None
    by_step: dict[str, Count] = Field(default_factory=dict)


class BlockedReason(Reply):
    """Why work waits; it goes on by itself when the cause is gone."""

    cause: Text
    reason: Text
    jobs: Count


class RunningReply(Reply):
    """A job in work: for how long (of many in one request: since that one went), and in `doing` what is done of it."""

    path: PathText
    step: Text
    for_s: float = 0.0
    doing: Text = ""


class ProgressReply(Reply):
    """How fast files become searchable. `eta_s` is null while there is nothing to base it on."""

    files_per_s: float = 0.0
    passages_per_s: float = 0.0
    eta_s: float | None = None


class ModelReply(Reply):
    """A model worker."""

    name: Text
    state: Literal["unloaded", "loading", "ready", "unusable"]
    reason: Text = ""
    engine: Text = ""
    device: Text = ""
    dim: Count = 0
    resident_bytes: Count = 0
    restarts: Count = 0
    waiting: Annotated[Count, Field(description="Requests in its queues.")] = 0


class StoreReply(Reply):
    """The vector store."""

    backend: Text
    is_ok: bool
    reason: Text = ""
    points: Count = 0
    disk_bytes: Count = 0
    resident_bytes: Count = 0
    restarts: Count = 0


class StatusReply(Reply):
    """The whole state on one page."""

    version: Text
    pid: Count
    uptime_s: float
    state: Literal["starting", "ready", "paused", "degraded", "draining"]
    pauses: list[Text] = Field(default_factory=list)
    problems: Annotated[list[Text], Field(description="What wants a person's attention.")] = Field(default_factory=list)
    notices: Annotated[list[Text], Field(description="What a person may decide; nothing is wrong.")] = Field(
        default_factory=list
    )
    data_dir: PathText
    config_file: Annotated[Text, Field(description="Empty where only defaults hold.")] = ""
    resident_bytes: Count = 0
    folders: list[FolderReply] = Field(default_factory=list)
    watch: WatchReply
    queue: QueueReply
    blocked: list[BlockedReason] = Field(default_factory=list)
    running: list[RunningReply] = Field(default_factory=list)
    progress: ProgressReply = ProgressReply()
    models: list[ModelReply] = Field(default_factory=list)
    store: StoreReply
    disk_free_bytes: Count | None = None
    loop_lag_p99_ms: Annotated[float, Field(description="How late the daemon's loop was lately.")] = 0.0


class SyncReply(Reply):
    """State after a sync. Complete: nothing that was owed at the call is still ready or running."""

    is_complete: bool
    took_s: float
    pending: Count
    blocked: Count
    failed: Count


class FileProgress(Reply):
    """One file of a process request."""

    path: PathText
    state: Literal["queued", "running", "done", "blocked", "failed", "skipped"]
    percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    step: Annotated[Text, Field(description="The step in work or the one that failed.")] = ""
    error: Annotated[Text, Field(description="Why it is blocked, failed or skipped.")] = ""
    hint: Text = ""


class ProcessReply(Reply):
    """How far a process request is. What is neither done nor failed is to come."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    state: Literal["queued", "running", "done", "partly_failed", "failed"]
    percent: Annotated[float, Field(ge=0, le=100)]
    total: Count
    done: Count
    failed: Count
    files_per_s: float | None = None
    eta_s: float | None = None
    files: list[FileProgress] = Field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """True once no file of it will move any more by itself."""
        return self.state in {"done", "partly_failed", "failed"}


class JobReply(Reply):
    """Work owed for a file, or tried."""

    step: Text
    target: Text = ""
    state: Text
    attempts: Count = 0
    error: Text = ""
    at_ms: Annotated[TimeMs | None, Field(description="Delayed: when it runs again. History: when it ended.")] = None


Verdict = Literal[
    "indexed", "pending", "blocked", "failed", "skipped", "excluded", "outside", "missing", "unknown", "folder"
]
_VERDICTS = (
    "excluded: by a rule. outside: of every watched folder. unknown: it exists and was not seen yet. folder: a watched "
    "folder, or one in it."
)


class ExplainReply(Reply):
    """Why a path is found, or is not."""

    path: PathText
    verdict: Annotated[Verdict, Field(description=_VERDICTS)]
    sentence: Annotated[Text, Field(description="The answer in one sentence, with what to do.")]
    root: PathText | None = None
    root_state: Text = ""
    rule: Annotated[Text, Field(description="The pattern that leaves it out.")] = ""
    rule_origin: Annotated[Text, Field(description="Where that pattern stands.")] = ""
    modality: Text = ""
    type_label: Text = ""
    mime: Text = ""
    size_bytes: Count | None = None
    modified_ms: TimeMs | None = None
    content: Annotated[Text, Field(description="BLAKE3 of the bytes, hexadecimal.")] = ""
    note: Annotated[Text, Field(description="Why there is less text than one would expect.")] = ""
    segments: Annotated[dict[str, Count], Field(description="Passages by where they come from.")] = Field(
        default_factory=dict
    )
    spaces: Annotated[list[Text], Field(description="Vector spaces that hold it.")] = Field(default_factory=list)
    jobs: list[JobReply] = Field(default_factory=list)
    history: list[JobReply] = Field(default_factory=list)


class FailedItem(Reply):
    """A job that failed for good, or waits for a cause."""

    path: PathText
    state: Literal["failed", "blocked"]
    step: Text
    target: Text = ""
    error: Text
    attempts: Count
    updated_ms: TimeMs


class FailedReply(Reply):
    """A page of failed and blocked work, newest first."""

    items: list[FailedItem]
    next_cursor: Annotated[str | None, Field(description="Ask with this for the next page; null at the end.")] = None


class RetryReply(Reply):
    """How many jobs are ready again."""

    retried: Count


class PauseReply(Reply):
    """The reasons that hold now; empty: running."""

    pauses: list[Text]


class ResetReply(Reply):
    """What was thrown away, in a sentence."""

    reset_type: Literal["all", "database", "index"]
    sentence: Text


class HealthCheck(Reply):
    """One thing that must be well."""

    name: Text
    is_ok: bool
    reason: Text = ""


class HealthReply(Reply):
    """Well or not; 200 or 503."""

    is_ok: bool
    checks: list[HealthCheck] = Field(default_factory=list)


class VersionReply(Reply):
    """Version of the program and of the API it speaks."""

    version: Text
    api: Int
    api_min: Int


class FieldError(Reply):
    """What is wrong with one field of a request."""

    field: Text
    message: Text


class Problem(Reply):
    """An error (RFC 9457). `code` is stable: programs look at it; `hint` says what to do."""

    type: Text
    title: Text
    status: Int
    detail: Text
    code: Text
    hint: Text = ""
    errors: list[FieldError] = Field(default_factory=list)
