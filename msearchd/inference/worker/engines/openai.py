"""Models that other servers run (vLLM, TEI, infinity, another msearchd): text to vectors, pairs to scores, over HTTP.

In: samples. Out: rows, as of any engine; so batches, lanes, deadlines and residency are the pool's. It runs in a worker
process like the others: one protocol, and a library's or a server's mischief stays out of the daemon. 40 MB, no numpy
needed. Vectors are asked for as base64 float32 and normalised here. Several servers share the batches (servers.py).
"""

from __future__ import annotations

import array
import base64
import binascii
import concurrent.futures
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Pair, Sample
from msearchd.inference import remote
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, LoadOrder, Prepared
from msearchd.inference.worker.engines.flavours import Flavour, rerank_request, rerank_scores
from msearchd.inference.worker.engines.servers import Fleet

_KEY: Final = "engine:openai"
_PER_REQUEST: Final = 32  # TEI's default limit of inputs
_PATHS: Final = ("/v1/embeddings", "/embeddings")  # infinity has the second unless it is told a prefix
_CHARS_PER_TOKEN: Final = 3
_DEFAULT_LIMIT: Final = 512


class OpenaiEngine:
    """A text bi-encoder or a cross-encoder behind an OpenAI-shaped API."""

    def __init__(self, *, fleet: Callable[[remote.Servers], Fleet] = Fleet) -> None:
        self._make_fleet = fleet
        self._fleet: Fleet | None = None
        self._model = ""
        self._serves = "text"
        self._limit = _DEFAULT_LIMIT
        self._prompts: Mapping[str, str] = {}
        self._wants_base64 = True
        self._path = ""  # the one of _PATHS that answered
        self._flavour: Flavour | None = None
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load. RetryLater where no server answers; Misconfigured where one refuses the model or the key."""
        servers = remote.read_servers(Path(order.folder))
        self._fleet = self._make_fleet(servers)
        self._threads = concurrent.futures.ThreadPoolExecutor(2 * len(servers.urls), thread_name_prefix="server")
        self._model, self._serves = servers.model, order.serves
        self._limit = order.max_tokens or _DEFAULT_LIMIT
        self._prompts = {"query": order.query_prompt, "document": order.document_prompt}
        self._fleet.check()
        probe: Sample = Pair("a question", "a text") if order.serves == "rerank" else "dimension"
        try:
            dim = self.embed(self.prepare([probe], role="document"), [0], width=1).data.nbytes // 4
        except (errors.BadRequest, errors.NotFound) as error:
            message = f"no server serves {self._model!r} for {order.serves}: {error}"
            raise errors.Misconfigured(message, key=_KEY, hint="set source to the model's name there") from error
        return EngineFacts(
            dim=dim,
            max_tokens=self._limit,
            device="remote",
            dtype=order.dtype,
            versions={"servers": str(len(servers.urls))},
            kinds=("pair",) if order.serves == "rerank" else ("text",),
        )

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare. Lengths are guesses: the servers tokenise."""
        if self._serves == "rerank":
            pairs = [sample for sample in samples if isinstance(sample, Pair)]
            _require_all(len(pairs), samples, "pairs")
            lengths = [self._guess(pair.query + pair.text) for pair in pairs]
            return Prepared([(_sendable(pair.query), _sendable(pair.text)) for pair in pairs], lengths, role, "pair")
        texts = [sample for sample in samples if isinstance(sample, str)]
        _require_all(len(texts), samples, "text")
        whole = [_sendable(self._prompts[role] + text) for text in texts]
        return Prepared(whole, [self._guess(text) for text in whole], role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed; the parts of a batch go to several servers at once."""
        del width  # nothing is padded here
        parts = [list(items[start : start + _PER_REQUEST]) for start in range(0, len(items), _PER_REQUEST)]
        ask = self._scores if prepared.kind == "pair" else self._vectors
        chosen = [[prepared.items[index] for index in part] for part in parts]
        if len(chosen) == 1 or self._threads is None:
            answers = [ask(part) for part in chosen]
        else:
            answers = list(self._threads.map(ask, chosen))
        rows = array.array("f")
        for answer in answers:
            rows.extend(answer)
        if sys.byteorder == "big":
            rows.byteswap()
        return Embedded(memoryview(rows.tobytes()))

    def close(self) -> None:
        """As Engine.close."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._fleet is not None:
            self._fleet.close()

    # -- the two questions

    def _vectors(self, texts: Sequence[str]) -> array.array[float]:
        """float32[n * dim], L2-normalised."""
        body: dict[str, Any] = {"model": self._model, "input": list(texts)}
        if self._wants_base64:
            body["encoding_format"] = "base64"
        try:
            answer = self._asked(body)
        except errors.BadRequest:
            if not self._wants_base64:
                raise
            self._wants_base64 = (
                False  # a server that knows no base64 says 400 or 422; if it was not that, so will this
            )
            return self._vectors(texts)
        return _as_rows(answer, count=len(texts))

    def _asked(self, body: Mapping[str, Any]) -> Any:
        """The answer for vectors. Raises as Fleet.ask: NotFound as the first path says it, which names the model too."""
        last: errors.NotFound | None = None
        for path in (self._path,) if self._path else _PATHS:
            try:
                answer = self._ready().ask(path, body)
            except errors.NotFound as error:
                last = last or error
                continue
            self._path = path
            return answer
        raise last or errors.NotFound("no way to ask for vectors")

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> array.array[float]:
        """float32[n]: logits, whatever the server gives (the pool applies the sigmoid)."""
        rows = array.array("f", [0.0] * len(pairs))
        by_query: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(pairs):
            by_query.setdefault(query, []).append(place)
        for query, places in by_query.items():
            texts = [pairs[place][1] for place in places]
            for place, score in zip(places, self._ranked(query, texts), strict=True):
                rows[place] = _logit(score)
        return rows

    def _ranked(self, query: str, texts: Sequence[str]) -> list[float]:
        tried = [self._flavour] if self._flavour else list(Flavour)
        last: errors.MsearchError | None = None
        for flavour in tried:
            path, body = rerank_request(flavour, model=self._model, query=query, texts=texts)
            try:
                scores = rerank_scores(flavour, self._ready().ask(path, body), count=len(texts))
            except (errors.BadRequest, errors.NotFound) as error:  # another server's field names
                last = error
                continue
            self._flavour = flavour
            return scores
        message = f"no server understands our way to ask for a ranking: {last}"
        raise errors.Misconfigured(message, key=_KEY, hint="name a server that has /rerank or /v1/rerank") from last

    def _guess(self, text: str) -> int:
        return min(self._limit, 2 + len(text.encode()) // _CHARS_PER_TOKEN)

    def _ready(self) -> Fleet:
        if self._fleet is None:
            message = "embed before load"
            raise RuntimeError(message)
        return self._fleet


def _as_rows(answer: Any, *, count: int) -> array.array[float]:
    """Check and normalise the vectors of an answer. Raises RetryLater where it is not what was asked for."""
    try:
        data = sorted(answer["data"], key=lambda one: one["index"])
        vectors = [_floats(one["embedding"]) for one in data]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _strange(f"its vectors cannot be read ({type(error).__name__}: {error})") from error
    if [one["index"] for one in data] != list(range(count)) or len({len(vector) for vector in vectors}) != 1:
        raise _strange(f"{len(vectors)} vectors of lengths {sorted({len(v) for v in vectors})} for {count} texts")
    rows = array.array("f")
    for vector in vectors:
        norm = math.sqrt(math.fsum(number * number for number in vector))
        if not math.isfinite(norm) or norm == 0.0:
            raise _strange("a vector without length")
        rows.extend(vector if abs(norm - 1.0) < 1e-6 else array.array("f", [number / norm for number in vector]))
    return rows


def _floats(value: Any) -> array.array[float]:
    if isinstance(value, str):
        raw = array.array("f", base64.b64decode(value, validate=True))
        if sys.byteorder == "big":
            raw.byteswap()
        return raw
    return array.array("f", value)


def _logit(score: float) -> float:
    """Servers give probabilities; ours is the protocol of raw scores. 1e-7 keeps ends finite (sigmoid(16) = 1 - 1e-7)."""
    inside = min(max(score, 1e-7), 1 - 1e-7)
    return math.log(inside / (1 - inside))


def _sendable(text: str) -> str:
    """JSON carries no lone surrogates (odd file names have them)."""
    return text.encode("utf-8", "replace").decode("utf-8") or " "  # some servers refuse an empty input


def _require_all(found: int, samples: Sequence[Sample], what: str) -> None:
    if found != len(samples):
        message = f"this remote model reads {what} alone"
        raise errors.BadAsset(message)


def _strange(what: str) -> errors.RetryLater:
    return errors.RetryLater(f"a server answered with something else: {what}", after_s=30.0, hint="look at its log")
