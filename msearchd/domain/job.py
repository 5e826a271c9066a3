"""Jobs: one step owed for one asset, and the only legal moves between their states.

ready ──claim──▶ running ──▶ done (row gone)
  ▲                │ ├──▶ delayed(run_at) ──due──▶ ready
  │                │ ├──▶ blocked(cause)  ──cause gone──▶ ready
  └──changed again─┘ └──▶ failed(error)   ──change or by hand──▶ ready
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

from msearchd.domain.asset import AssetId

JobId = NewType("JobId", int)


class Step(enum.StrEnum):
    """What is owed. Each is committed by itself, so a killed job resumes at the step it was in."""

    IDENTIFY = "identify"  # stat, hash, type, metadata; plans the rest
    EXTRACT = "extract"  # text, pages, document metadata
    OCR = "ocr"  # text in pixels
    TRANSCRIBE = "transcribe"  # speech to timed text
    EMBED = "embed"  # vectors of one space; `target` names the model
    RELOCATE = "relocate"  # the asset moved to other folders: the folder list of its content's points follows


class JobState(enum.StrEnum):
    """Equal to the CHECK of the job table; a test holds them together."""

    READY = "ready"
    RUNNING = "running"
    DELAYED = "delayed"
    BLOCKED = "blocked"
    FAILED = "failed"


#: Done is not a state: the row is gone. None stands for it here.
LEGAL_MOVES: dict[JobState, frozenset[JobState | None]] = {
    JobState.READY: frozenset({JobState.RUNNING, JobState.BLOCKED, None}),
    JobState.RUNNING: frozenset({JobState.READY, JobState.DELAYED, JobState.BLOCKED, JobState.FAILED, None}),
    JobState.DELAYED: frozenset({JobState.READY, JobState.BLOCKED, None}),
    JobState.BLOCKED: frozenset({JobState.READY, None}),
    JobState.FAILED: frozenset({JobState.READY, None}),
}


class Priority(enum.IntEnum):
    """Lower runs first; the queue keeps a quota for the back-fill so that nothing starves."""

    INTERACTIVE = 0  # somebody waits for it (`msearch process`)
    LIVE = 3  # a change seen while the daemon runs
    NORMAL = 5
    BACKFILL = 9  # first scan, re-embedding


@dataclass(frozen=True, slots=True)
class Owed:
    """A step to enqueue. Owing it twice is owing it once, at the better priority."""

    asset: AssetId
    step: Step
    #: What the step is for where one asset can owe several: the model key of an EMBED; "" otherwise.
    target: str = ""
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job: the generation it was claimed at tells whether the asset changed meanwhile."""

    id: JobId
    asset: AssetId
    step: Step
    target: str
    priority: Priority
    generation: int
    attempts: int  # this one included


class Outcome(enum.StrEnum):
    """How an attempt at a job ended, for history and events."""

    DONE = "done"
    RETRIED = "retried"
    BLOCKED = "blocked"
    FAILED = "failed"
    SUPERSEDED = "superseded"  # the asset changed while it ran: ready again
