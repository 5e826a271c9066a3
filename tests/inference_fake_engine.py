"""An engine with behaviour for tests: loaded in a worker by file, imports nothing heavy.

A text's vector is a function of the text alone. Words beginning with @ make it misbehave:
@poison fails its batch · @crash ends the process · @killed is killed as the kernel does when memory ends · @hang never
returns · @slow takes 20 ms a text · @big needs more memory than there is, alone or not · @unreadable cannot be tokenised.
@once=FILE before a word: only until FILE exists. A batch of more than `OOM_TOKENS` padded tokens is out of memory.
"""

import hashlib
import os
import signal
import struct
import time
from pathlib import Path

from msearchd.inference.worker.engines.base import Embedded, EngineFacts, Prepared

DIM = 8
OOM_TOKENS = 1024


def vector(text: str) -> bytes:
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:DIM]]
    norm = sum(number * number for number in raw) ** 0.5
    return struct.pack(f"<{DIM}f", *(number / norm for number in raw))


class Engine:
    def load(self, order):
        if (Path(order.folder) / "refuse-to-load").exists():
            os._exit(3)
        ballast = Path(order.folder) / "ballast"  # megabytes that the model takes
        self.ballast = bytearray(int(ballast.read_text()) << 20) if ballast.exists() else b""
        for start in range(0, len(self.ballast), 4096):
            self.ballast[start] = 1
        self.prompts = {"query": order.query_prompt, "document": order.document_prompt}
        return EngineFacts(dim=DIM, max_tokens=512, device="cpu", dtype=order.dtype, versions={"fake": "1"})

    def prepare(self, texts, *, role):
        if any("@unreadable" in text for text in texts):
            raise ValueError("no token for this")
        whole = [self.prompts[role] + text for text in texts]
        return Prepared(whole, [min(512, 1 + len(text.split())) for text in whole], role)

    def embed(self, prepared, items, *, width):
        texts = [prepared.items[index] for index in items]
        if len(items) * width > OOM_TOKENS:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        for text in texts:
            words = text.split()
            for number, word in enumerate(words):
                if word.startswith("@") and "=" not in word and self._is_due(words[number - 1] if number else ""):
                    self._misbehave(word)
        return Embedded(memoryview(b"".join(vector(text) for text in texts)))

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
