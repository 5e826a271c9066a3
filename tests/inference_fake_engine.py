"""An engine with behaviour for tests: loaded in a worker by file, imports nothing heavy.

A text's vector is a function of the text alone. Words beginning with @ make it misbehave:
@poison fails its batch · @crash ends the process · @killed is killed as the kernel does when memory ends · @hang never
returns · @slow takes 20 ms a text · @big needs more memory than there is, alone or not · @unreadable cannot be tokenised.
@once=FILE before a word: only until FILE exists. A batch of more than `OOM_TOKENS` padded tokens is out of memory.
Pictures, sounds and pairs have vectors too (`key_of`); a picture 13 pixels wide is poison, one 17 wide ends the process.
A sound is written down second by second: "0", "1", ...; one of 440 samples a second ends the process once at second 2.
Files in the model's folder: ballast (MB that it takes), multi (items that are no text have one to three rows), pairs
(scores them), short-of-memory (fails its load for want of memory while the file exists, then deletes it).
"""

import hashlib
import os
import signal
import struct
import time
import zlib
from pathlib import Path

from msearchd import errors
from msearchd.domain.sample import Pair, Picture, Sound, TimedText
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, Prepared

DIM = 8
OOM_TOKENS = 1024


def vector(text: str) -> bytes:
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:DIM]]
    norm = sum(number * number for number in raw) ** 0.5
    return struct.pack(f"<{DIM}f", *(number / norm for number in raw))


def entries(text):
    """The words of *text* weighted by how often: a sparse vector of 1,000 dimensions; "query: " and the like count too."""
    counts = {}
    for word in text.split():
        counts[zlib.crc32(word.encode()) % 1000] = counts.get(zlib.crc32(word.encode()) % 1000, 0.0) + 1.0
    return b"".join(struct.pack("<If", *entry) for entry in sorted(counts.items()))


def key_of(sample):
    if isinstance(sample, str):
        return sample
    if isinstance(sample, Picture):
        return f"{sample.width}x{sample.height}:{sample.rgb.hex()}"
    if isinstance(sample, Sound):
        return f"{sample.rate}:{sample.pcm.hex()}"
    return f"{sample.query}|{sample.text}"


def kind_of(sample):
    return {str: "text", Picture: "image", Sound: "audio", Pair: "pair"}[type(sample)]


class Engine:
    def load(self, order):
        self.folder = Path(order.folder)
        if (self.folder / "short-of-memory").exists():
            (self.folder / "short-of-memory").unlink()
            raise errors.RetryLater("not enough memory to load it", after_s=30.0)
        if (Path(order.folder) / "refuse-to-load").exists():
            os._exit(3)
        ballast = Path(order.folder) / "ballast"  # megabytes that the model takes
        self.ballast = bytearray(int(ballast.read_text()) << 20) if ballast.exists() else b""
        for start in range(0, len(self.ballast), 4096):
            self.ballast[start] = 1
        self.prompts = {"query": order.query_prompt, "document": order.document_prompt}
        self.scores = (self.folder / "pairs").exists()
        self.multi = (self.folder / "multi").exists()
        self.sparse = order.serves == "sparse"
        device = "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") else "cpu"
        return EngineFacts(
            dim=1 if self.scores else 1000 if order.serves == "sparse" else DIM,
            max_tokens=512,
            device=device,
            dtype=order.dtype,
            versions={"fake": "1", "visible": os.environ.get("CUDA_VISIBLE_DEVICES", "all")},
            kinds=("pair",) if self.scores else ("text", "image", "audio", "speech"),
            multi=self.multi,
            sparse=order.serves == "sparse",
        )

    def prepare(self, samples, *, role):
        kind = kind_of(samples[0])
        if kind != "text":
            assert {kind_of(sample) for sample in samples} == {kind}
            return Prepared(list(samples), [100] * len(samples), role, kind)
        texts = samples
        if any("@unreadable" in text for text in texts):
            raise ValueError("no token for this")
        whole = [self.prompts[role] + text for text in texts]
        return Prepared(whole, [min(512, 1 + len(text.split())) for text in whole], role)

    def embed(self, prepared, items, *, width):
        if prepared.kind != "text":
            return self._embed_others([prepared.items[index] for index in items])
        texts = [prepared.items[index] for index in items]
        if len(items) * width > OOM_TOKENS:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        for text in texts:
            words = text.split()
            for number, word in enumerate(words):
                if word.startswith("@") and "=" not in word and self._is_due(words[number - 1] if number else ""):
                    self._misbehave(word)
        if self.sparse:
            found = [entries(text) for text in texts]
            return Embedded(memoryview(b"".join(found)), tuple(len(one) // 8 for one in found))
        return Embedded(memoryview(b"".join(vector(text) for text in texts)))

    def _embed_others(self, samples):
        for sample in samples:
            if isinstance(sample, Picture) and sample.width == 13:
                raise ValueError("this picture is poison")
            if isinstance(sample, Picture) and sample.width == 17:
                os._exit(7)
        if self.scores:
            return Embedded(memoryview(struct.pack(f"<{len(samples)}f", *(len(one.text) - 3 for one in samples))))
        if self.multi:
            counts = tuple(1 + len(key_of(sample)) % 3 for sample in samples)
            rows = [vector(key_of(one)) * count for one, count in zip(samples, counts, strict=True)]
            return Embedded(memoryview(b"".join(rows)), counts)
        return Embedded(memoryview(b"".join(vector(key_of(sample)) for sample in samples)))

    def transcribe(self, sound, *, language=""):
        flag = self.folder / "died-once"
        for second in range(sound.duration_ms // 1000):
            if sound.rate == 440 and second == 2 and not flag.exists():
                flag.touch()
                os._exit(7)
            yield TimedText(second * 1000, second * 1000 + 1000, f"{language}{second}")

    @staticmethod
    def _is_due(before):
        if not before.startswith("@once="):
            return True
        flag = Path(before.removeprefix("@once="))
        if flag.exists():
            return False
        flag.touch()
        return True

    @staticmethod
    def _misbehave(word):
        match word:
            case "@poison":
                raise ValueError("this text is poison")
            case "@crash":
                os._exit(7)
            case "@killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "@hang":
                time.sleep(1000)
            case "@slow":
                time.sleep(0.02)
            case "@big":
                raise MemoryError

    def close(self):
        pass
