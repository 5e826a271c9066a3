"""Turn a model's settings into what a worker needs: engine and interpreter, weights, start arguments, environment.

In: EmbeddingModel and InferenceSettings. Out: ModelSpec, a value.
Looks at the disk (call it off the loop), starts nothing.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.inference import environments, remote, roster
from msearchd.inference.weights import (
    ModelCard,
    Weights,
    check_sparse,
    describe,
    describe_form,
    find_weights,
    line_to_type,
    looks_like_path,
)
from msearchd.settings.model import EmbeddingModel, InferenceSettings


class Role(enum.StrEnum):
    """What a text is: models with prompts treat the two differently."""

    QUERY = "query"
    DOCUMENT = "document"


class Lane(enum.IntEnum):
    """Who waits: a person (overtakes between two batches) or the index. Equal to the lanes of aio.wire."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine and the interpreter that has it."""

    engine: str
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model, ready to be started. `card` is None while its weights are still to be fetched."""

    key: ModelKey
    engines: tuple[EngineChoice, ...]  # in the order in which they are tried
    weights: Weights | None
    card: ModelCard | None
    start: Mapping[str, Any]  # start arguments of the worker, but for the engine
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def serves(self) -> str:
        """What it is for: text, sparse, image, audio, page, rerank or speech."""
        return str(self.start.get("serves", "text"))

    @property
    def predicted_bytes(self) -> int:
        """Memory of the worker before it is measured: weights and activations (x1.2), libraries (measured)."""
        library_mb = max(roster.ENGINES[choice.engine].library_mb for choice in self.engines)
        return int((self.card.weight_bytes if self.card else 0) * 1.2) + library_mb * 1024**2

    def space(self, dim: int, fingerprint: str = "", *, is_multi: bool = False, is_sparse: bool = False) -> Space:
        """The vector space that this model makes."""
        fingerprint = fingerprint or (self.card.fingerprint if self.card else "")
        return Space(
            name=SpaceName(f"{self.key}-{fingerprint[:12]}"),
            model=self.key,
            fingerprint=fingerprint,
            dim=dim,
            distance="dot" if is_sparse else "cosine",
            multi=is_multi,
            sparse=is_sparse,
        )


_AUTO: Final = "auto"


def resolve(model: EmbeddingModel, *, allow_download: bool, chunking: str, state_dir: Path) -> ModelSpec:
    """Find weights and engines of *model*. Raises Misconfigured with the line to type where something is missing."""
    if remote.is_remote(model):
        found: Weights | None = Weights(remote.write_card(model, state_dir=state_dir), "server")
    else:
        found = find_weights(model.source, revision=model.revision)
    if found is None and (not allow_download or looks_like_path(model.source)):
        message = f"no weights of {model.source!r} on this machine for model {model.name!r}"
        raise errors.Misconfigured(message, key=f"model:{model.name}", hint=line_to_type(model.source, model.name))
    card = (
        None
        if found is None
        else describe(
            found.folder,
            dtype=model.dtype,
            query_prompt=model.query_prompt,
            document_prompt=model.document_prompt,
            max_tokens=model.max_tokens,
            chunking=chunking,
            serves=model.serves,
        )
    )
    threads = model.threads or default_threads()
    return ModelSpec(
        key=ModelKey(model.name),
        engines=engine_choices(model, state_dir=state_dir, folder=found.folder if found else None),
        weights=found,
        card=card,
        start={
            "name": model.name,
            "serves": model.serves,
            "source": model.source,
            "revision": model.revision,
            "folder": str(found.folder) if found else "",
            "device": "cpu" if remote.is_remote(model) else model.device,  # no GPU is kept free for it
            "dtype": model.dtype,
            "query_prompt": model.query_prompt,
            "document_prompt": model.document_prompt,
            "max_tokens": model.max_tokens,
            "batch_tokens": model.batch_tokens,
            "threads": threads,
            "chunking": chunking,
            "state_dir": str(state_dir),
        },
        env=worker_env(threads=threads, allow_download=found is None, state_dir=state_dir),
    )


def engine_choices(model: EmbeddingModel, *, state_dir: Path, folder: Path | None = None) -> tuple[EngineChoice, ...]:
    """Engines to try in order: the named one alone; for auto those that serve its kind and that an interpreter has.

    *folder* holds its weights, where they are here. Raises Misconfigured with the line to type where none is left.
    """
    if folder is not None and not model.urls:
        check_sparse(folder, serves=model.serves)
    if model.engine != _AUTO:
        return (_named(model, state_dir=state_dir),)
    architecture, has_onnx = describe_form(folder) if folder else ("", False)
    names = roster.automatic(model.serves, architecture=architecture, has_onnx=has_onnx, has_urls=bool(model.urls))
    if model.urls and model.serves not in roster.ENGINES[names[0]].serves:
        raise _serves_other(roster.ENGINES[names[0]], model)
    choices = [choice for name in names if (choice := _usable(name, model.python, state_dir)) is not None]
    if choices:
        return tuple(choices)
    message = f"no interpreter here has an engine for model {model.name!r} (tried {', '.join(names)})"
    row = roster.ENGINES[names[-1]]  # the one with the fewest demands
    raise errors.Misconfigured(message, key=f"engine:{row.name}", hint=row.install_line)


def _named(model: EmbeddingModel, *, state_dir: Path) -> EngineChoice:
    row = roster.ENGINES[model.engine]
    if model.serves not in row.serves:
        raise _serves_other(row, model)
    if python := model.python or environments.find_python(row.name, state_dir):
        return EngineChoice(row.name, python)
    message = f"model {model.name!r} asks for {row.name}, which no interpreter here has"
    raise errors.Misconfigured(message, key=f"engine:{row.name}", hint=row.install_line)


def _serves_other(row: roster.EngineRow, model: EmbeddingModel) -> errors.Misconfigured:
    message = f"engine {row.name} serves {', '.join(row.serves)}, and model {model.name!r} is to serve {model.serves}"
    others = " or ".join(f'"{name}"' for name in roster.serving(model.serves))
    hint = f'set engine = "auto" or {others}' if model.engine != _AUTO else f"{others} can, without urls"
    return errors.Misconfigured(message, key=f"model:{model.name}", hint=hint)


def _usable(engine: str, python: str, state_dir: Path) -> EngineChoice | None:
    if not python:
        found = environments.find_python(engine, state_dir)
        return EngineChoice(engine, found) if found else None
    package = roster.ENGINES[engine].package  # a person's own interpreter: ask what it has
    return EngineChoice(engine, python) if not package or environments.has_package(python, package) else None


def default_state_dir() -> Path:
    """Where a pool without a daemon keeps what it makes: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "msearchd"


def default_threads() -> int:
    """Half of the cores that we may use, at least one: a quiet guest leaves the other half."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, cores // 2)


def worker_env(*, threads: int, allow_download: bool, state_dir: Path) -> dict[str, str]:
    """Environment of a worker; libraries read most of it when they are imported, so it is set before the start."""
    count = str(threads)
    env = {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "MALLOC_ARENA_MAX": "2",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "INFINITY_LOG_LEVEL": "warning",
        # Importing infinity_emb makes a cache folder; by default in the working directory.
        "INFINITY_HOME": str(state_dir / "infinity"),
        "PYTHONWARNINGS": "ignore",
    }
    return env | ({} if allow_download else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})


def model_named(settings: InferenceSettings, key: ModelKey) -> EmbeddingModel:
    """The settings of one model. Raises Misconfigured that lists the names there are."""
    for model in settings.models:
        if model.name == key:
            return model
    names = ", ".join(repr(model.name) for model in settings.models) or "none"
    message = f"there is no model named {key!r} under [[inference.models]] (there is: {names})"
    raise errors.Misconfigured(message, key=f"model:{key}", hint="correct text_model or add the model")
