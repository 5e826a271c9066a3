"""The gateway: which model a request means, which lane it takes, and what comes back. Implements control.Gateway.

In: OpenAI-shaped requests. Out: vectors and scores of the pool, so that requests share batches with the index.
It loads nothing itself; pictures are decoded by whoever is handed in (a child process).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from msearchd import errors
from msearchd.control.gateway import (
    Embeddings,
    EmbeddingsRequest,
    GatewayHealth,
    RerankedDocument,
    RerankReply,
    RerankRequest,
    RerankResult,
    ServedModel,
    ServedModels,
    Usage,
)
from msearchd.domain.sample import Picture, Sample, Sound
from msearchd.domain.space import ModelKey, Vectors
from msearchd.gateway.gather import Gatherer
from msearchd.gateway.inputs import EncodedPicture, EncodedSound, Understood, is_small, understood
from msearchd.gateway.vectors import shortened
from msearchd.inference.pool import Lane, Role
from msearchd.settings.model import EmbeddingModel, InferenceSettings

Health = Callable[[], Awaitable[GatewayHealth]]
DecodePicture = Callable[[bytes], Awaitable[Picture]]
#: A sound file's bytes, and what its sender calls it.
DecodeSound = Callable[[bytes, str], Awaitable[Sound]]

_QUERY: Final = frozenset({"query", "search_query"})
_EMBEDS: Final = frozenset({"text", "image", "audio", "page"})
#: What a model takes beside text, by what it serves. Some page models hear too: the others say so when they are asked.
_TAKES: Final = {"image": {"image"}, "audio": {"audio"}, "page": {"image", "audio"}}
#: Vectors cut before the loop turns once more: about a millisecond's worth.
_CUT_AT_ONCE: Final = 16


class ModelPool(Protocol):
    """What the gateway needs of inference.pool.Pool."""

    async def embed(
        self, samples: Sequence[Sample], /, *, model: ModelKey, role: Role, lane: Lane, deadline_s: float
    ) -> Vectors:
        """See Pool.embed."""
        ...

    async def rerank(
        self, query: str, texts: Sequence[str], /, *, model: ModelKey, lane: Lane, deadline_s: float
    ) -> tuple[float, ...]:
        """See Pool.rerank."""
        ...


class ModelGateway:
    """Answers for the models of *settings* through *pool*. Use from one event loop."""

    def __init__(
        self,
        pool: ModelPool,
        settings: InferenceSettings,
        *,
        health: Health,
        deadline_s: float,
        decode_picture: DecodePicture | None = None,
        decode_sound: DecodeSound | None = None,
    ) -> None:
        self._pool = pool
        self._gatherer = Gatherer(pool)
        self._settings = settings
        self._health = health
        self._deadline_s = deadline_s
        self._decode_picture = decode_picture
        self._decode_sound = decode_sound
        self._created_s = int(time.time())

    async def health(self) -> GatewayHealth:
        """Whether requests are answered now."""
        return await self._health()

    def models(self) -> ServedModels:
        """The models that can be asked."""
        return ServedModels(data=[self._described(model) for model in self._settings.models])

    async def embed(self, request: EmbeddingsRequest) -> Embeddings:
        """Vectors of the inputs, in their order."""
        model = self._model(request.model, default=self._settings.text_model, what="embeds")
        if model.serves == "sparse":
            message = f"the model {model.name!r} makes sparse vectors, for which OpenAI's embeddings have no shape"
            raise errors.BadRequest(message, hint="it serves searches of files; name a model that makes dense vectors")
        if model.serves not in _EMBEDS:
            message = f"the model {model.name!r} serves {model.serves}, it does not embed"
            raise errors.BadRequest(message, hint="GET /v1/models says what each serves")
        inputs = understood(request.input, modality=request.modality, takes=_TAKES.get(model.serves, ()))
        lane = Lane.INTERACTIVE if is_small(inputs) else Lane.BULK
        role = Role.QUERY if request.input_type in _QUERY else Role.DOCUMENT
        found = await self._embedded(inputs, model=ModelKey(model.name), role=role, lane=lane)
        return await self._cut(found, dimensions=request.dimensions) if request.dimensions else found

    async def rerank(self, request: RerankRequest) -> RerankReply:
        """Documents by relevance, most relevant first; equal ones in the order of the request."""
        model = self._model(request.model, default=self._settings.rerank_model, what="compares")
        if model.serves != "rerank":
            message = f"the model {model.name!r} serves {model.serves}, it does not compare a query with documents"
            raise errors.BadRequest(message, hint='name one with serves = "rerank"; GET /v1/models lists them')
        texts = request.texts
        lane = Lane.INTERACTIVE if is_small([request.query, *texts]) else Lane.BULK
        scores = await self._pool.rerank(
            request.query, texts, model=ModelKey(model.name), lane=lane, deadline_s=self._deadline_s
        )
        order = sorted(range(len(texts)), key=lambda index: (-scores[index], index))[: request.top_n]
        tokens = sum(_about_tokens(text) for text in texts) + len(texts) * _about_tokens(request.query)
        return RerankReply(
            id=f"rerank-{uuid.uuid4().hex}",
            model=model.name,
            results=[
                RerankResult(
                    index=index,
                    relevance_score=scores[index],
                    document=RerankedDocument(text=texts[index]) if request.return_documents else None,
                )
                for index in order
            ],
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    def _described(self, model: EmbeddingModel) -> ServedModel:
        return ServedModel(id=model.name, created=self._created_s, serves=model.serves, source=model.source)

    def _model(self, name: str, *, default: str, what: str) -> EmbeddingModel:
        """The model that a request means by *name* or source. Raises NotFound that lists the names there are."""
        wanted = name or default
        if not wanted:
            message = f"no model is named, and none is configured that {what}"
            raise errors.BadRequest(message, hint="name one of GET /v1/models, or add one under [[inference.models]]")
        for model in self._settings.models:
            if model.name == wanted.lower():
                return model
        for model in self._settings.models:
            if model.source == wanted:
                return model
        names = ", ".join(model.name for model in self._settings.models) or "none"
        message = f"the model {wanted!r} does not exist (there is: {names})"
        raise errors.NotFound(message, hint="GET /v1/models lists the models")

    async def _embedded(self, inputs: Sequence[Understood], *, model: ModelKey, role: Role, lane: Lane) -> Embeddings:
        """Texts, pictures and sounds apart, as a call has samples of one kind; then together again, in their order."""
        rows: dict[int, bytes | memoryview] = {}
        dim, is_multi, tokens = 0, False, 0
        for kind in (str, EncodedPicture, EncodedSound):
            places = [index for index, one in enumerate(inputs) if isinstance(one, kind)]
            if not places:
                continue
            samples = [await self._sample(inputs[index], index=index) for index in places]
            vectors = await self._vectors(samples, model=model, role=role, lane=lane)
            dim, is_multi = vectors.dim, vectors.rows is not None
            rows |= dict(zip(places, _rows(vectors), strict=True))
            tokens += sum(vectors.costs) or sum(_about_tokens(one) for one in samples if isinstance(one, str))
        return Embeddings(model, [rows[index] for index in range(len(inputs))], dim, tokens, is_multi)

    async def _vectors(self, samples: Sequence[Sample], *, model: ModelKey, role: Role, lane: Lane) -> Vectors:
        """A few texts go with those of other callers, the rest with the index."""
        if lane is Lane.INTERACTIVE and (texts := [one for one in samples if isinstance(one, str)]):
            return await self._gatherer.embed(texts, model=model, role=role, lane=lane, deadline_s=self._deadline_s)
        return await self._pool.embed(samples, model=model, role=role, lane=lane, deadline_s=self._deadline_s)

    async def _sample(self, one: Understood, *, index: int) -> Sample:
        if isinstance(one, str):
            return one
        is_sound = isinstance(one, EncodedSound)
        try:
            if isinstance(one, EncodedSound) and self._decode_sound is not None:
                return await self._decode_sound(one.content, one.mime)
            if isinstance(one, EncodedPicture) and self._decode_picture is not None:
                return await self._decode_picture(one.content)
        except errors.BadAsset as error:
            message = f"input {index} is no {'sound' if is_sound else 'picture'} that can be read: {error}"
            raise errors.BadRequest(message, hint=error.hint) from error
        message = f"{'sounds' if is_sound else 'pictures'} cannot be decoded here"
        raise errors.Misconfigured(message, key="engine:pictures", hint="type: pip install 'msearchd[documents]'")

    async def _cut(self, found: Embeddings, *, dimensions: int) -> Embeddings:
        if found.is_multi:
            message = f"the model {found.model!r} makes many vectors per input, which cannot be shortened"
            raise errors.BadRequest(message, hint="leave dimensions out")
        if dimensions > found.dim:
            message = f"the model {found.model!r} makes vectors of {found.dim} numbers, not {dimensions}"
            raise errors.BadRequest(message, hint=f"ask for at most {found.dim} dimensions")
        if dimensions == found.dim:
            return found
        rows = []
        for row in found.rows:
            rows.append(shortened(row, dim=dimensions))
            if len(rows) % _CUT_AT_ONCE == 0:
                await asyncio.sleep(0)
        return Embeddings(found.model, rows, dimensions, found.tokens)


def _rows(vectors: Vectors) -> list[memoryview]:
    """The bytes of each item: one row, or for multi-vectors several."""
    step = vectors.dim * 4
    data = memoryview(vectors.data).cast("B")
    counts = vectors.rows if vectors.rows is not None else (1,) * vectors.count
    found, at = [], 0
    for count in counts:
        found.append(data[at : at + count * step])
        at += count * step
    return found


def _about_tokens(text: str) -> int:
    # English text has about four bytes a token: where the worker's own count is not told (rerank, remembered vectors).
    return 2 + len(text.encode("utf-8", "replace")) // 4
