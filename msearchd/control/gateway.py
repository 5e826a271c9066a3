"""What programs ask of the models: OpenAI-shaped embeddings, rerank and models, as values, and who answers (Gateway).

Requests ignore fields that they do not know: clients send their own. Replies have the field names of the OpenAI API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from msearchd.control.types import INTEGRAL, Count, Int, Reply, Request, Text

#: As OpenAI: a longer list is cut into several requests by every client library.
MAX_INPUTS = 2048


class _Lenient(Request):
    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


def _no_tokens(value: Any) -> Any:
    """Refuse token lists in a sentence of their own; everything else is left to the field."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, int | float | list) and not isinstance(first, bool):
        message = (
            "tokens are not taken, as each model has its own: send text (LangChain: check_embedding_ctx_length=False)"
        )
        raise ValueError(message)  # noqa: TRY004 - pydantic reports a ValueError and crashes on a TypeError
    return [value] if isinstance(value, str | dict) else value


class InputObject(_Lenient):
    """An input that says what it is: one of the three. Pictures and sounds are data: URIs or their base64 alone."""

    text: str | None = None
    image: str | None = None
    audio: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self._given()) != 1:
            message = 'an input object has one of "text", "image" and "audio"'
            raise ValueError(message)
        return self

    @property
    def said(self) -> tuple[str, str]:
        """("text" | "image" | "audio", its value)."""
        return self._given()[0]

    def _given(self) -> list[tuple[str, str]]:
        each = (("text", self.text), ("image", self.image), ("audio", self.audio))
        return [(kind, value) for kind, value in each if value is not None]


_INPUT = (
    "One text or a list of them. For a model that serves images or audio also pictures and sounds (of at most 10 s) as data: URIs"
    ' (data:image/png;base64,...), as strings or as objects {"image": ...}, {"audio": ...}, {"text": ...}. Nothing is fetched:'
    " paths and URLs are not opened. Token lists are refused."
)
_List = Annotated[list[str | InputObject], Field(min_length=1, max_length=MAX_INPUTS)]
Inputs = Annotated[
    list[str | InputObject],
    Field(min_length=1, max_length=MAX_INPUTS),
    BeforeValidator(_no_tokens, json_schema_input_type=str | InputObject | _List),
    Field(description=_INPUT),
]
ModelName = Annotated[
    str, Field(max_length=300, description="Name or source of a model; empty takes the one that is configured.")
]
_AS = "query: the texts are questions; models with prompts treat the two differently."
InputType = Literal["query", "search_query", "document", "search_document", "passage"]


class EmbeddingsRequest(_Lenient):
    """Texts (or pictures, or sounds) to embed."""

    input: Inputs
    model: ModelName = ""
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Field(description="base64: float32, little-endian.")
    ] = "float"
    dimensions: Annotated[
        int | None, Field(ge=1, le=65536, description="Cut vectors to this many numbers, normalised again."), INTEGRAL
    ] = None
    input_type: Annotated[InputType | None, Field(description=_AS)] = "document"
    modality: Annotated[
        Literal["text", "image", "audio"] | None,
        Field(description="What the inputs that are strings are; absent: data: URIs are what they say."),
    ] = None


class RerankDocument(_Lenient):
    """A document as an object."""

    text: str


class RerankRequest(_Lenient):
    """Documents to be put in the order of their relevance to a query."""

    query: str
    documents: Annotated[list[str | RerankDocument], Field(min_length=1, max_length=MAX_INPUTS)]
    model: ModelName = ""
    top_n: Annotated[int | None, Field(ge=1, description="Most results."), INTEGRAL] = None
    return_documents: Annotated[bool | None, Field(description="Give each result its document.")] = False

    @property
    def texts(self) -> list[str]:
        """The documents as plain texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class Usage(Reply):
    """What the request cost: tokens of the model (16x16 patches of pictures); for rerank an estimate."""

    prompt_tokens: Count
    total_tokens: Count


_FLOATS = "Numbers; for a multi-vector model a list of vectors; for base64 the bytes of float32, little-endian."


class EmbeddingItem(Reply):
    """The vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: Count
    embedding: Annotated[list[float] | list[list[float]] | str, Field(description=_FLOATS)]


class EmbeddingsReply(Reply):
    """Vectors in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: Text
    usage: Usage


class RerankedDocument(Reply):
    """The document's text."""

    text: Text


class RerankResult(Reply):
    """One document: its place in the request and its relevance in 0..1."""

    index: Count
    relevance_score: float
    document: RerankedDocument | None = None


class RerankReply(Reply):
    """Results, most relevant first."""

    object: Literal["rerank"] = "rerank"
    id: Text
    model: Text
    results: list[RerankResult]
    usage: Usage


class ServedModel(Reply):
    """A model that can be asked by its name."""

    id: Text
    object: Literal["model"] = "model"
    created: Int
    owned_by: Text = "msearchd"
    serves: Annotated[Text, Field(description="text, sparse, image, audio, page, rerank or speech.")] = "text"
    source: Text = ""


class ServedModels(Reply):
    """The models."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


class GatewayHealth(Reply):
    """ok: answering now. starting: not yet (503). unwell: see `reason` (503)."""

    status: Literal["ok", "starting", "unwell"]
    reason: Text = ""


class ApiErrorBody(Reply):
    """What went wrong; `code` is stable."""

    message: Text
    type: Text
    param: Text | None = None
    code: Text | None = None


class ApiError(Reply):
    """An error as OpenAI's API shapes it."""

    error: ApiErrorBody


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of a request: `rows[i]` is float32[k, dim] of input i; k is 1 unless `is_multi`."""

    model: str
    rows: Sequence[bytes | memoryview]
    dim: int
    tokens: int
    is_multi: bool = False


class Gateway(Protocol):
    """Who answers the routes. Failures are MsearchError kinds; NotFound names a model that does not exist."""

    async def health(self) -> GatewayHealth:
        """Whether requests are answered now; quick."""
        ...

    def models(self) -> ServedModels:
        """The models that can be asked."""
        ...

    async def embed(self, request: EmbeddingsRequest) -> Embeddings:
        """Vectors of the inputs, in their order. BadRequest for what the model does not read, or too many dimensions."""
        ...

    async def rerank(self, request: RerankRequest) -> RerankReply:
        """Documents by relevance, most relevant first. BadRequest for a model that does not compare."""
        ...
