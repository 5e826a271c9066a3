"""ColPali in infinity-emb: which colpali-engine serves it, and pages and texts that are ready before its pipeline sees them.

infinity-emb 0.0.78 takes ColPali's classes from colpali-engine. The one that goes with its transformers 4.57 is 0.3.13, which
needs no torchvision for ColPali, and no longer has ColIdefics2, whose name infinity imports beside it. The Qwen family's
processors need a torchvision, and one that is built for another torch breaks all of transformers: those models are
colpali's. Texts of a document are no questions: infinity would wrap each as one.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.inference import roster, weights
from msearchd.inference.worker.engines import late
from msearchd.inference.worker.engines.infinity_shims import ReadyPicture

SERVED: Final = "ColPali"
_KEY: Final = "engine:infinity"
_FIRST: Final = (0, 3, 8)
_BEFORE: Final = (0, 3, 14)  # it wants transformers 5, which infinity does not
_OTHER: Final = 'or set engine = "colpali"'


class ReadyText(str):
    """A text whose tensors are made; a str, for infinity sorts by length."""

    __slots__ = ("features",)
    features: dict[str, Any]


def require(folder: Path) -> bool:
    """True where *folder* holds a ColPali that infinity can load; False for a model of another library.

    Raises Misconfigured for other page models, and where colpali-engine is missing or of a version that does not go with it.
    """
    name, _ = weights.describe_form(folder)
    if name.endswith("ForRetrieval"):
        message = f"infinity-emb does not know {name}"
        raise errors.Misconfigured(message, key=_KEY, hint='set engine = "sentence_transformers"')
    if not roster.is_colpali_family(name):
        return False
    if name != SERVED:
        message = f"infinity-emb serves {SERVED} and no other page model, and {folder} holds a {name}"
        raise errors.Misconfigured(message, key=_KEY, hint='set engine = "colpali" or "auto"')
    install = roster.ENGINES["infinity"].install_line
    if importlib.util.find_spec("colpali_engine") is None:
        message = "infinity-emb takes ColPali from the package colpali-engine, which its environment does not have"
        raise errors.Misconfigured(message, key=_KEY, hint=f"{install}, {_OTHER}")
    found = version("colpali-engine")
    if not _FIRST <= _numbers(found) < _BEFORE:
        message = f"colpali-engine {found} does not go with infinity-emb, which needs 0.3.8 to 0.3.13"
        raise errors.Misconfigured(message, key=_KEY, hint=f"{install}, {_OTHER}")
    return True


def name_what_is_gone() -> None:
    """Let infinity import the names that colpali-engine has dropped; it looks one up only for a model of that class."""
    models = importlib.import_module("colpali_engine.models")
    for name in ("ColIdefics2", "ColIdefics2Processor"):
        if not hasattr(models, name):
            setattr(models, name, None)


class PageProcessor:
    """Stands for ColPaliProcessor in a replica, and makes samples ready ahead of it."""

    def __init__(self, processor: Any, *, prompts: Mapping[str, str], limit: int) -> None:
        self.tokenizer = processor.tokenizer
        self._processor = processor
        self._alone = threading.Lock()  # processors promise nothing about threads
        self._words = late.PlainWords(processor, prompts=prompts, limit=limit)
        self._most_patches = late.most_patches(processor)

    def ready_text(self, text: str, *, role: str) -> tuple[ReadyText, int]:
        """*text* with the tensors of a question, or of a passage, and its cost."""
        make = self._processor.process_queries if role == "query" else self._processor.process_texts
        with self._alone:
            whole, cost = self._words.ready(text, role=role)
            made = ReadyText(whole)
            made.features = late.kept(make([whole]))
        return made, cost

    def ready_picture(self, image: Any) -> tuple[ReadyPicture, int]:
        """*image* (PIL) with its tensors, and its cost."""
        with self._alone:
            made = ReadyPicture(image.height, late.kept(self._processor.process_images([image])))
        return made, late.page_cost(image.size, most_patches=self._most_patches)

    def process_queries(self, texts: Sequence[ReadyText]) -> dict[str, Any]:
        """As infinity calls it: one batch of what is ready."""
        return late.joined([text.features for text in texts], self.tokenizer)

    def process_images(self, pictures: Sequence[ReadyPicture]) -> dict[str, Any]:
        """The same of pictures."""
        return late.joined([picture.features for picture in pictures], self.tokenizer)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal())
