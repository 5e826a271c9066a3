"""What an engine is: it loads one model, prepares samples, and embeds one planned batch a call; or it writes down speech.

An engine never batches, queues or retries: worker/batches.py and worker/main.py do. All run in a worker process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msearchd import errors
from msearchd.domain.sample import Sample, Sound, TimedText


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """Which model, where and how. `folder` is complete and local; nothing is fetched."""

    folder: str
    device: str = "auto"
    dtype: str = "float32"  # float32 | float16 | bfloat16
    max_tokens: int = 0  # 0: the model's own limit
    query_prompt: str = ""
    document_prompt: str = ""
    threads: int = 1
    serves: str = "text"  # text | sparse | image | audio | page | rerank | speech


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What is loaded. `max_tokens` counts special tokens; `dim` is 1 for pairs and 0 for speech.

    `kinds` are those of its samples: text, image, audio, pair, speech. `multi`: each item has many vectors; `sparse`: each
    has some weighted dimensions out of `dim`.
    """

    dim: int
    max_tokens: int
    device: str
    dtype: str
    versions: dict[str, str]
    kinds: tuple[str, ...] = ("text",)
    multi: bool = False
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """Samples of one kind, ready for the device: an opaque item and its cost for each; role "query" or "document".

    Costs are what memory and time grow with: tokens for text and Pair, 16x16 patches for Picture, 10-ms frames for Sound.
    """

    items: Sequence[Any]
    lengths: Sequence[int]
    role: str
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Embedded:
    """float32[n, dim], row-major, as bytes; for multi-vectors `rows` has the number of rows of each item.

    For sparse vectors a row is an entry (uint32 dimension, float32 weight), ascending within an item.
    """

    data: memoryview
    rows: tuple[int, ...] | None = None


class Engine(Protocol):
    """One model in this process. `prepare` may run on another thread while `embed` computes."""

    def load(self, order: LoadOrder) -> EngineFacts:
        """Load the weights. Raises Misconfigured where a package, version or file is missing or wrong."""
        ...

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """Make samples of ONE kind ready: put the role's prompt before texts, tokenise, cut at the limit; resize; resample.

        Texts are valid Unicode. May be called for one sample or hundreds.
        """
        ...

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """Embed the items with these indices, L2-normalised, in their order; texts are padded to *width* tokens.

        Pairs become float32[n, 1]: the raw score (logit). Sparse vectors are as the model has them. Raises what the device
        raises; the engine is usable afterwards.
        """
        ...

    def close(self) -> None:
        """Let go of threads; memory returns when the process ends."""
        ...


class Transcriber(Protocol):
    """A model that writes speech down. Its facts have kinds ("speech",)."""

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        ...

    def transcribe(self, sound: Sound, *, language: str = "") -> Iterator[TimedText]:
        """Yield what is said, piece by piece as it is found, times from the start of *sound*; nothing for silence.

        *language* is an ISO 639-1 code; empty lets the model find out.
        """
        ...

    def close(self) -> None:
        """As Engine.close."""
        ...


def pick_device(asked: str) -> str:
    """*asked*, or for "auto" the best device that torch sees. Raises Misconfigured where *asked* is not there."""
    import torch

    if asked == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = asked.partition(":")[0]
    missing = (kind == "cuda" and not torch.cuda.is_available()) or (
        kind == "mps" and not torch.backends.mps.is_available()
    )
    if missing or kind not in {"cpu", "cuda", "mps"}:
        message = f"there is no device {asked!r} on this machine"
        raise errors.Misconfigured(message, key=f"device:{asked}", hint='set device = "auto" or "cpu"')
    return asked


@contextlib.contextmanager
def load_errors(engine: str, *, extra: str, folder: str) -> Iterator[None]:
    """Translate what importing and loading raises into Misconfigured with the line to type; memory is for later."""
    from msearchd.inference.worker.batches import is_shortage

    key = f"engine:{engine}"
    try:
        yield
    except errors.MsearchError:
        raise
    except ImportError as error:
        if names_torchvision(error):
            raise _mismatch(error, key=key) from error
        message = f"engine {engine} cannot be imported: {error}"
        raise errors.Misconfigured(message, key=key, hint=extra) from error
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if is_shortage(error):
            message = f"not enough memory to load {folder}"
            raise errors.RetryLater(message, after_s=30.0, hint="close something, or choose a smaller model") from error
        if names_torchvision(error):
            raise _mismatch(error, key=key) from error
        if "trust_remote_code" in text:
            message = f"{folder} needs code of its own, which msearchd does not run"
            raise errors.Misconfigured(message, key=f"source:{folder}", hint="choose another model") from error
        message = f"engine {engine} cannot load {folder}: {text}"
        raise errors.Misconfigured(
            message, key=f"source:{folder}", hint="fetch the model again, or try another engine"
        ) from error


def names_torchvision(error: BaseException | None) -> bool:
    """True where *error*, or what caused it, speaks of torchvision: one built for another torch breaks transformers."""
    while error is not None:
        if "torchvision" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _mismatch(error: BaseException, *, key: str) -> errors.Misconfigured:
    message = f"torch and torchvision do not match ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    return errors.Misconfigured(message, key=key, hint="type: pip uninstall torchvision, or install the matching build")
