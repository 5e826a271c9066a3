"""Samples on the wire, both sides: plain values in the header, pixels and PCM as raw bytes behind it.

In: samples of one group (`group_of`: one kind, one role, one question or sample rate). Out: header arguments and a body;
and back. Never decodes, never copies more than once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from msearchd.domain.sample import Pair, Picture, Sample, Sound

#: Cost units of one batch where nothing was learned yet, as `cost_of` estimates them: 16 pictures of 512 x 512, 4 windows
#: of 10 s. Text takes the settings' batch_tokens.
_BATCH_COST: Final = {"image": 16 * 1024, "audio": 4 * 1000}
COST_UNITS: Final = {"text": "tokens", "pair": "tokens", "image": "patches", "audio": "frames", "speech": "frames"}


class Group(NamedTuple):
    """What samples have in common that share a request. `extra`: the question of pairs, the rate of sounds."""

    kind: str  # text | image | audio | pair
    role: str
    extra: str | int = ""


def kind_of(sample: Sample) -> str:
    """The word for a sample's kind in wire, facts and status."""
    if isinstance(sample, str):
        return "text"
    if isinstance(sample, Picture):
        return "image"
    return "audio" if isinstance(sample, Sound) else "pair"


def group_of(sample: Sample, *, role: str) -> Group:
    """Which samples may share a request with *sample*."""
    if isinstance(sample, Sound):
        return Group("audio", role, sample.rate)
    if isinstance(sample, Pair):
        return Group("pair", role, sample.query)
    return Group(kind_of(sample), role)


def cost_of(sample: Sample) -> int:
    """Rough cost, before the model was asked: tokens, 16x16 patches of the picture as it is, 10-ms frames."""
    if isinstance(sample, str):
        return 8 + len(sample.encode()) // 4
    if isinstance(sample, Picture):
        return 1 + sample.width * sample.height // 256
    if isinstance(sample, Sound):
        return 1 + sample.duration_ms // 10
    return 8 + (len(sample.query.encode()) + len(sample.text.encode())) // 4


def batch_cost(kind: str, *, batch_tokens: int) -> int:
    """Rough cost of a full batch, for how much goes into a window."""
    return _BATCH_COST.get(kind, batch_tokens)


def size_bytes(sample: Sample) -> int:
    """Bytes that *sample* takes on the wire, roughly."""
    if isinstance(sample, Picture):
        return len(sample.rgb)
    if isinstance(sample, Sound):
        return len(sample.pcm)
    return 0


def pack(samples: Sequence[Sample], *, role: str) -> tuple[dict[str, Any], bytes]:
    """Arguments and body of an embed request for *samples* (at least one, all of one group)."""
    group = group_of(samples[0], role=role)
    args: dict[str, Any] = {"kind": group.kind, "role": role}
    body: list[bytes] = []
    match group.kind:
        case "text":
            args["texts"] = list(samples)
        case "pair":
            args |= {"query": group.extra, "texts": [pair.text for pair in samples if isinstance(pair, Pair)]}
        case "image":
            pictures = [sample for sample in samples if isinstance(sample, Picture)]
            args["shapes"] = [[picture.width, picture.height] for picture in pictures]
            body = [picture.rgb for picture in pictures]
        case _:
            sounds = [sample for sample in samples if isinstance(sample, Sound)]
            args |= {"rate": group.extra, "lengths": [len(sound.pcm) // 4 for sound in sounds]}
            body = [sound.pcm for sound in sounds]
    return args, body[0] if len(body) == 1 else b"".join(body)


def unpack(args: Mapping[str, Any], body: memoryview) -> list[Sample]:
    """The samples of a request. Raises ValueError where body and arguments do not agree."""
    kind = args.get("kind", "text")
    if kind == "text":
        return list(args["texts"])
    if kind == "pair":
        return [Pair(args["query"], text) for text in args["texts"]]
    sizes = [w * h * 3 for w, h in args["shapes"]] if kind == "image" else [4 * length for length in args["lengths"]]
    if sum(sizes) != len(body):
        message = f"{len(body)} bytes are not the {sum(sizes)} of the request"
        raise ValueError(message)
    samples: list[Sample] = []
    start = 0
    for place, size in enumerate(sizes):
        raw = bytes(body[start : start + size])
        if kind == "image":
            width, height = args["shapes"][place]
            samples.append(Picture(width, height, raw))
        else:
            samples.append(Sound(args["rate"], raw))
        start += size
    return samples


def sigmoid(score: float) -> float:
    """A model's score as 0 to 1."""
    return 1.0 / (1.0 + math.exp(-score)) if score >= 0 else math.exp(score) / (1.0 + math.exp(score))


def valid_unicode(text: str) -> str:
    """*text* with lone surrogates replaced: file names have them, tokenizers and the wire do not."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
