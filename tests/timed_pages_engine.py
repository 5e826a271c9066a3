"""A page engine that writes down when its processor and its device worked (tests and bench alone).

The device stands for one that is no CPU: each forward pass also waits, so long a page. `TimedEngine` is made by `written`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parent))

_FILE = """import sys
sys.path.insert(0, {tests!r})
from timed_pages_engine import timed


class Engine(timed({engine!r})):
    spans_file = {spans!r}
    wait_s = {wait_s!r}
    is_late = {is_late!r}
"""


def written(folder: Path, engine: str, *, wait_s: float, is_late: bool = False) -> tuple[Path, Path]:
    """An engine file in *folder* and the file of its spans. *is_late*: nothing is made ready, as if there were no thread."""
    spans, file = folder / f"spans-{is_late}.jsonl", folder / f"timed_{engine}_{is_late}.py"
    tests = str(Path(__file__).parent)
    file.write_text(_FILE.format(tests=tests, engine=engine, spans=str(spans), wait_s=wait_s, is_late=is_late))
    return file, spans


def read(spans: Path) -> dict[str, list[tuple[float, float, str]]]:
    """What -> (began, ended, thread), in seconds of one clock. `processor` is one page, `device` one batch."""
    found: dict[str, list[tuple[float, float, str]]] = {"processor": [], "device": []}
    for line in spans.read_text().splitlines():
        what, began, ended, thread = json.loads(line)
        found[what].append((began, ended, thread))
    return found


def timed(name: str) -> Any:
    """The class of engine *name*, timed."""
    if name == "colpali":
        import torchvision_shim

        torchvision_shim.install()
        from msearchd.inference.worker.engines.colpali import ColpaliEngine as Base
    else:
        from msearchd.inference.worker.engines.infinity import InfinityEngine as Base

    class TimedEngine(Base):
        spans_file: ClassVar[str]
        wait_s: ClassVar[float]
        is_late: ClassVar[bool]

        def load(self, order: Any) -> Any:
            facts = super().load(order)
            # Ours holds the library's processor; infinity's stand-in holds it one deeper.
            owner = self if name == "colpali" else self._pages
            owner._processor.process_images = self._noted("processor", owner._processor.process_images)
            return facts

        def prepare(self, samples: Any, *, role: str) -> Any:
            from msearchd.domain.sample import Picture
            from msearchd.inference.worker.engines.base import Prepared

            if not self.is_late or not isinstance(samples[0], Picture):
                return super().prepare(samples, role=role)
            [cost] = super().prepare([Picture(64, 64, bytes(64 * 64 * 3))], role=role).lengths
            return Prepared(list(samples), [cost] * len(samples), role, "image")

        def embed(self, prepared: Any, items: Any, *, width: int) -> Any:
            if self.is_late and prepared.kind == "image":
                prepared = super().prepare([prepared.items[index] for index in items], role=prepared.role)
                items = range(len(items))
            began = time.monotonic()
            out = super().embed(prepared, items, width=width)
            time.sleep(self.wait_s * len(items))
            self._note("device", began)
            return out

        def _noted(self, what: str, call: Any) -> Any:
            def noted(*arguments: Any, **options: Any) -> Any:
                began = time.monotonic()
                try:
                    return call(*arguments, **options)
                finally:
                    self._note(what, began)

            return noted

        def _note(self, what: str, began: float) -> None:
            line = json.dumps([what, began, time.monotonic(), threading.current_thread().name])
            with open(self.spans_file, "a") as file:
                file.write(line + "\n")

    return TimedEngine
