"""What callers may ask. Every bound here is told by openapi.json and held by the same model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from msearchd.control.types import INTEGRAL, Count, PathText, Request, TimeMs

#: Guards against a request that would hold a socket for ever; a caller asks again.
_LONGEST_WAIT_S = 600

_QUESTION = "Words, a sentence, or a file name."
Question = Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"\S", description=_QUESTION)]
Reason = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Paths = Annotated[list[PathText], Field(min_length=1, max_length=10_000)]
_HITS = "A hit lies in one of these folders."
_TYPES = 'Type labels ("pdf"), extensions (".pdf"), modalities ("image") or MIME types ("image/*"); a hit matches one.'
Folders = Annotated[list[PathText], Field(max_length=1000, description=_HITS)]
Types = Annotated[list[str], Field(max_length=100, description=_TYPES)]
Wait = Annotated[float, Field(ge=0, le=_LONGEST_WAIT_S, description="Answer at the end, at the latest after this.")]
Patience = Annotated[
    float | None,
    Field(
        ge=0,
        le=60,
        description="How long to wait for a model that still loads, in seconds. Absent: one second where words or names "
        "found something, else search.query_timeout_s.",
    ),
]
EventId = Annotated[
    int, Field(ge=0, le=2**63 - 1, description="Id of the last event seen; absent: from now on."), INTEGRAL
]
#: What `next_cursor` may look like; any such text is accepted, though a page may be empty.
Cursor = Annotated[str, Field(max_length=200, pattern=r"^([0-9]{1,18}(-[0-9]{1,18})*)?$")]


def _confirmed(value: Any) -> Any:
    if value is not True:
        message = "must be true: what is thrown away takes long to compute again (your files are never touched)"
        raise ValueError(message)
    return value


Confirmation = Annotated[Literal[True], BeforeValidator(_confirmed), Field(description="Must be true.")]


_ASKED_BY = ("text", "image", "audio", "like")


class SearchRequest(Request):
    """A question in words, by example, or both; `limit` counts files. All filters must hold; within a list one must."""

    # As the validator below says it, for callers that read openapi.json.
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [name]} for name in _ASKED_BY]})

    text: Question = ""
    image: Annotated[PathText, Field(description="A picture file: find what looks like it.")] = ""
    audio: Annotated[PathText, Field(description="A sound file: find what sounds like it.")] = ""
    like: Annotated[PathText, Field(description="A file of any kind: find others like it.")] = ""
    limit: Annotated[int, Field(ge=1, le=1000, description="Most files to return."), INTEGRAL] = 10
    folders: Folders = Field(default_factory=list)
    types: Types = Field(default_factory=list)
    modified_after_ms: TimeMs | None = None
    modified_before_ms: TimeMs | None = None
    min_size_bytes: Count | None = None
    max_size_bytes: Count | None = None
    wait_s: Patience = None

    @model_validator(mode="after")
    def _asks_something(self) -> SearchRequest:
        if not self.model_fields_set.intersection(_ASKED_BY):
            message = "nothing is asked: give text, image, audio or like"
            raise ValueError(message)
        return self


class SearchParams(Request):
    """`GET search?q=...`: the question as a query string."""

    q: Question
    limit: Annotated[int, Field(ge=1, le=1000), INTEGRAL] = 10
    folder: Folders = Field(default_factory=list)
    type: Types = Field(default_factory=list)
    modified_after_ms: TimeMs | None = None
    modified_before_ms: TimeMs | None = None
    wait_s: Patience = None


class SyncRequest(Request):
    """Wait until every file operation that ended before this call is searchable."""

    timeout_s: Annotated[float, Field(gt=0, le=_LONGEST_WAIT_S)] = 60.0


class PathRequest(Request):
    """One file or folder."""

    path: PathText


class ProcessRequest(Request):
    """Files or folders to index now, before everything else."""

    paths: Paths
    wait_s: Wait = 0.0


class BatchProcessRequest(Request):
    """Files or folders to index with bounded concurrency; one failure does not stop the others."""

    paths: Paths
    concurrency: Annotated[int, Field(ge=1, le=64, description="Files in work at once."), INTEGRAL] = 4


class WaitParams(Request):
    """How long to wait for the end of long work before answering how far it is."""

    wait_s: Wait = 0.0


class PageParams(Request):
    """A page of a list."""

    limit: Annotated[int, Field(ge=1, le=1000), INTEGRAL] = 100
    cursor: Cursor = ""


class RetryRequest(Request):
    """Try failed and blocked work again: of one file, or all."""

    path: PathText | None = None


class PauseRequest(Request):
    """Pauses are a set of reasons; each is taken away by its own name. Searches always run."""

    reason: Reason = "user"


class ResumeRequest(Request):
    """Take one reason away, or all where `reason` is null."""

    reason: Reason | None = None


class ResetRequest(Request):
    """What to throw away. Never the user's files; all of it is rebuilt from them."""

    reset_type: Annotated[
        Literal["all", "database", "index"],
        Field(description="index: the vectors. database: catalog, text, queue. all: both and the list of folders."),
    ]
    confirm: Confirmation


class VerifyRequest(Request):
    """Compare everything with everything. Without `repair` nothing is changed but what a scan would take up anyway."""

    repair: bool = False


class BackupRequest(Request):
    """Where to: a folder that is not there yet, in one that is."""

    path: PathText
    vectors: Annotated[bool, Field(description="Copy the vector files too; else they are computed again.")] = True


class EventParams(Request):
    """Where an event stream begins."""

    since: EventId | None = None
