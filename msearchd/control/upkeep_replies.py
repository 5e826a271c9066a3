"""What the daemon answers about its queue, its own health and its backups."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from msearchd.control.replies import ProgressReply, QueueReply
from msearchd.control.types import Count, PathText, Reply, Text, TimeMs


class StepReply(Reply):
    """One step (of one model, if it is for one) by state."""

    step: Text
    target: Annotated[Text, Field(description="The model that it is for; empty: none.")] = ""
    ready: Count = 0
    running: Count = 0
    delayed: Count = 0
    blocked: Count = 0
    failed: Count = 0
    oldest_s: Annotated[float, Field(ge=0, description="Age of the oldest of these jobs.")] = 0.0


class ReasonReply(Reply):
    """Why so many jobs do not go on."""

    state: Literal["failed", "blocked", "delayed"]
    step: Text
    reason: Text
    jobs: Count
    since_ms: TimeMs


class QueuePageReply(Reply):
    """The queue on one page. `eta_s` is null while there is no rate to base it on."""

    queue: QueueReply
    steps: list[StepReply] = Field(default_factory=list)
    reasons: Annotated[list[ReasonReply], Field(description="The most frequent first; of each state at most ten.")] = (
        Field(default_factory=list)
    )
    pauses: list[Text] = Field(default_factory=list)
    oldest_s: float | None = None
    next_due_s: Annotated[float | None, Field(description="When the next delayed job runs again.")] = None
    jobs_per_s: Annotated[float, Field(description="Steps that ended well, over the last minute.")] = 0.0
    ended: Annotated[dict[str, Count], Field(description="How attempts ended in the last minute.")] = Field(
        default_factory=dict
    )
    eta_s: float | None = None
    files: ProgressReply = ProgressReply()


class SpaceCheck(Reply):
    """A vector space against the catalog."""

    space: Text
    points_expected: Count
    points_found: Count
    orphans: Annotated[Count, Field(description="Contents with points that nothing refers to.")] = 0
    missing: Annotated[Count, Field(description="Contents without exactly their points.")] = 0


class FolderCheck(Reply):
    """A watched folder against the catalog: what differed has been taken up, as by any scan."""

    path: PathText
    is_checked: bool
    reason: Annotated[Text, Field(description="Why it was not checked, or its losses were not believed.")] = ""
    files: Count = 0
    changes: Annotated[Count, Field(description="New, changed or moved, and not known before.")] = 0
    vanished: Count = 0


class VerifyReply(Reply):
    """Whether database, queue, vectors and folders agree."""

    is_clean: bool
    is_repaired: Annotated[bool, Field(description="What did not agree has been repaired, or is owed again.")] = False
    is_complete: Annotated[
        bool, Field(description="False: a folder could not be compared, or its losses are not believed; it says why.")
    ] = True
    database: Annotated[list[Text], Field(description="What SQLite finds wrong with the file.")] = Field(
        default_factory=list
    )
    text_indexes: Annotated[list[Text], Field(description="What is wrong with the indexes of words and names.")] = (
        Field(default_factory=list)
    )
    jobs_without_file: Count = 0
    files_without_job: Annotated[Count, Field(description="Pending files for which nothing is owed.")] = 0
    spaces: list[SpaceCheck] = Field(default_factory=list)
    folders: list[FolderCheck] = Field(default_factory=list)
    sentences: Annotated[list[Text], Field(description="What was found, and what to do.")] = Field(default_factory=list)
    took_s: float = 0.0


class BackupReply(Reply):
    """A backup that is complete."""

    path: PathText
    size_bytes: Count
    has_vectors: Annotated[bool, Field(description="False: vectors are computed again after a restore.")]
    took_s: float
