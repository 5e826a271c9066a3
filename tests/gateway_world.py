"""A gateway with behaviour and no model: vectors are a function of the text, scores of shared words."""

import hashlib
import math
import struct

from msearchd import errors
from msearchd.control.gateway import GatewayHealth
from msearchd.domain.sample import Picture, Sound
from msearchd.domain.space import Vectors
from msearchd.gateway.service import ModelGateway
from msearchd.settings.model import EmbeddingModel, InferenceSettings

DIM = 8


def vector(sample):
    """A unit vector, the same for the same sample."""
    raw = (
        sample.rgb
        if isinstance(sample, Picture)
        else sample.pcm
        if isinstance(sample, Sound)
        else sample.encode("utf-8", "replace")
    )
    numbers = [byte - 127.5 for byte in hashlib.sha256(raw).digest()[:DIM]]
    norm = math.sqrt(sum(number * number for number in numbers))
    return struct.pack(f"<{DIM}f", *(number / norm for number in numbers))


def unpacked(row):
    return list(struct.unpack(f"<{len(row) // 4}f", row))


class WordsPool:
    """As inference.pool.Pool: `calls` remembers lane, role, model and samples. A text with @bad in it is refused."""

    def __init__(self, *, rows_each=None):
        self.calls = []
        self.rows_each = rows_each
        self.raises = None

    async def embed(self, samples, *, model, role, lane, deadline_s):
        self.calls.append((model, role, lane, list(samples)))
        if self.raises:
            raise self.raises
        for index, sample in enumerate(samples):
            if isinstance(sample, str) and "@bad" in sample:
                raise errors.BadAsset(f"passage {index} of {len(samples)} cannot be embedded: it is bad")
        if self.rows_each:
            data = b"".join(vector(sample) * self.rows_each for sample in samples)
            count = len(samples) * self.rows_each
            return Vectors(data, count, DIM, rows=(self.rows_each,) * len(samples))
        costs = tuple(len(sample.split()) if isinstance(sample, str) else 1 for sample in samples)
        return Vectors(b"".join(vector(sample) for sample in samples), len(samples), DIM, costs=costs)

    async def rerank(self, query, texts, *, model, lane, deadline_s):
        self.calls.append((model, "rerank", lane, [query, *texts]))
        if self.raises:
            raise self.raises
        words = set(query.lower().split())
        return tuple(len(words & set(text.lower().split())) / (1 + len(words)) for text in texts)


MODELS = (
    EmbeddingModel(name="words", source="acme/words-v1"),
    EmbeddingModel(name="pictures", source="acme/clip", serves="image"),
    EmbeddingModel(name="sounds", source="acme/clap", serves="audio"),
    EmbeddingModel(name="judge", source="acme/judge", serves="rerank"),
    EmbeddingModel(name="scribe", source="acme/scribe", serves="speech"),
)


async def decode(content):
    """A picture file of ours: b"PIC" and three bytes of colour."""
    if content[:3] != b"PIC":
        raise errors.BadAsset("the picture is damaged", hint="send another")
    return Picture(1, 1, content[3:6])


async def hear(content, mime):
    """A sound file of ours: b"SND"; its samples are its name."""
    if content[:3] != b"SND":
        raise errors.BadAsset("the sound is damaged", hint="send another")
    return Sound(48_000, mime.encode() + content[3:])


def words_gateway(pool=None, *, models=MODELS, health=None, **options):
    async def well():
        return GatewayHealth(status="ok")

    settings = InferenceSettings(models=models, text_model="words", rerank_model="judge")
    return ModelGateway(
        pool or WordsPool(),
        settings,
        health=health or well,
        deadline_s=30,
        decode_picture=decode,
        decode_sound=hear,
        **options,
    )
