"""An engine that writes down what it does, for tests of who waits for whom. Loaded in a worker by file.

Each batch takes 4 ms a text and is a line of `log` in the model's folder: "bulk N" or "question WORD".
"""

import os
import time
from pathlib import Path

from msearchd.inference.worker.engines.base import Embedded, EngineFacts, Prepared

DIM = 4


class Engine:
    def load(self, order):
        self.log = os.open(Path(order.folder) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return EngineFacts(dim=DIM, max_tokens=128, device="cpu", dtype=order.dtype, versions={"logging": "1"})

    def prepare(self, samples, *, role):
        return Prepared(list(samples), [min(128, 2 + len(text.split())) for text in samples], role)

    def embed(self, prepared, items, *, width):
        texts = [prepared.items[index] for index in items]
        line = f"question {texts[0]}" if prepared.role == "query" else f"bulk {len(texts)}"
        os.write(self.log, f"{line}\n".encode())
        time.sleep(0.004 * len(texts))
        row = bytes(DIM * 4)
        return Embedded(memoryview(row * len(texts)))

    def close(self):
        os.close(self.log)
