"""The engines: one row each. A row names the module and class; nothing is imported before it is chosen."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Final, cast

from msearchd import errors

if TYPE_CHECKING:
    from msearchd.inference.worker.engines.base import Engine, Transcriber

ENGINES: Final[dict[str, tuple[str, str]]] = {
    "infinity": ("msearchd.inference.worker.engines.infinity", "InfinityEngine"),
    "sentence_transformers": ("msearchd.inference.worker.engines.sentence_transformers", "SentenceTransformersEngine"),
    "onnx": ("msearchd.inference.worker.engines.onnx", "OnnxEngine"),
    "whisper": ("msearchd.inference.worker.engines.whisper", "WhisperEngine"),
    "colpali": ("msearchd.inference.worker.engines.colpali", "ColpaliEngine"),
    "openai": ("msearchd.inference.worker.engines.openai", "OpenaiEngine"),
    "vllm": ("msearchd.inference.worker.engines.vllm", "VllmEngine"),
}

#: Modules that a fork server imports ahead for an engine; all of them costs seconds of CPU once.
PRELOADS: Final[dict[str, tuple[str, ...]]] = {
    "infinity": (
        "torch",
        "transformers",
        "transformers.models.auto.modeling_auto",
        "sentence_transformers",
        "infinity_emb",
    ),
    "sentence_transformers": (
        "torch",
        "transformers",
        "transformers.models.auto.modeling_auto",
        "sentence_transformers",
    ),
    # Also where a broken torchvision makes the server fail: then the worker starts by exec and says why.
    "colpali": ("torch", "transformers", "colpali_engine.models"),
}


def make_engine(name: str, *, file: str = "") -> Engine | Transcriber:
    """An unloaded engine by its name, or by *file*, a Python file with a class `Engine` (tests, experiments)."""
    if file:
        spec = importlib.util.spec_from_file_location("msearchd_engine_file", file)
        if spec is None or spec.loader is None:
            message = f"{file} is no Python file"
            raise errors.Misconfigured(message, key=f"engine:{name}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return cast("Engine | Transcriber", module.Engine())
    if name not in ENGINES:
        message = f"there is no engine {name!r} (there is: {', '.join(sorted(ENGINES))})"
        raise errors.Misconfigured(message, key=f"engine:{name}", hint="correct engine in [[inference.models]]")
    module_name, class_name = ENGINES[name]
    return cast("Engine | Transcriber", getattr(importlib.import_module(module_name), class_name)())
