"""The engines as the daemon knows them: what each serves, which interpreter has it, what to type where none does.

In: a kind of model ("text", "image", ...) or an engine's name. Out: rows. Imports nothing, looks at nothing; the code of
the engines is the workers' (worker/engines).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """One engine. `package` is the import that marks an interpreter that has it; empty: the standard library is enough."""

    name: str
    serves: tuple[str, ...]
    package: str = ""
    extra: str = ""  # of pyproject.toml, where it shares our environment
    has_own_environment: bool = False
    distributions: tuple[str, ...] = ()  # whose versions are worth showing
    library_mb: int = 450  # memory of the imports alone, measured; 450: torch and transformers

    @property
    def install_line(self) -> str:
        """What a person types to have it."""
        if not self.has_own_environment and self.extra in {"", "models"}:
            return f"type: pip install 'msearchd[{self.extra}]'" if self.extra else "nothing is to be installed"
        checkout = {
            "infinity": " (in a source checkout: make infinity)",
            "colpali": " (in a source checkout: make engines)",
        }
        return f"type: msearchd engines install {self.name}{checkout.get(self.name, '')}"


_TORCH: Final = ("torch", "transformers")
_ROWS: Final = (
    EngineRow(
        name="infinity",
        serves=("text", "image", "audio", "page", "rerank"),
        package="infinity_emb",
        has_own_environment=True,
        distributions=("infinity_emb", *_TORCH, "sentence-transformers", "colpali-engine", "numpy"),
    ),
    EngineRow(
        name="sentence_transformers",
        serves=("text", "sparse", "image", "audio", "page", "rerank"),
        package="sentence_transformers",
        extra="models",
        distributions=("sentence-transformers", *_TORCH),
    ),
    EngineRow(
        name="onnx",
        serves=("text",),
        package="onnxruntime",
        extra="onnx",
        distributions=("onnxruntime", "tokenizers"),
        library_mb=90,
    ),
    EngineRow(
        name="whisper",
        serves=("speech",),
        package="faster_whisper",
        extra="speech",
        distributions=("faster-whisper", "ctranslate2"),
        library_mb=160,
    ),
    EngineRow(
        name="colpali",
        serves=("page", "image", "audio"),
        package="colpali_engine",
        has_own_environment=True,
        distributions=("colpali-engine", *_TORCH, "torchvision"),
    ),
    EngineRow(name="openai", serves=("text", "rerank"), library_mb=40),
    EngineRow(
        name="vllm",
        serves=("text", "rerank"),
        package="vllm",
        has_own_environment=True,
        distributions=("vllm", *_TORCH),
        library_mb=2500,
    ),
)
ENGINES: Final[Mapping[str, EngineRow]] = {row.name: row for row in _ROWS}

#: In which order `auto` tries. vLLM is never taken unasked: it reserves nine tenths of a GPU.
_AUTO: Final = {
    "text": ("infinity", "sentence_transformers", "onnx"),
    "sparse": ("sentence_transformers",),
    "image": ("infinity", "sentence_transformers"),
    "audio": ("sentence_transformers", "infinity"),  # infinity leaves CLAP on the CPU
    "page": ("sentence_transformers", "colpali"),
    "rerank": ("infinity", "sentence_transformers"),
    "speech": ("whisper",),
}
#: What models can be for.
KINDS: Final = tuple(_AUTO)
#: Architectures (config.json) of colpali-engine's own format; sentence-transformers cannot read them.
_COLPALI_FAMILY: Final = (
    "ColPali",
    "ColQwen",
    "ColIdefics",
    "ColSmol",
    "ColGemma",
    "ColModernVBert",
    "BiQwen",
    "BiPali",
)


def automatic(
    serves: str, *, architecture: str = "", has_onnx: bool = False, has_urls: bool = False
) -> tuple[str, ...]:
    """Engines that `auto` tries for a model that serves *serves*, the best first.

    *architecture* is the first of config.json; *has_onnx*: its folder ships onnx/model.onnx; *has_urls*: servers run it.
    """
    if has_urls:
        return ("openai",)
    if is_colpali_family(architecture):
        return ("colpali", "infinity") if architecture == "ColPali" else ("colpali",)
    return tuple(name for name in _AUTO[serves] if name != "onnx" or has_onnx)


def is_colpali_family(architecture: str) -> bool:
    """True for a model of colpali-engine's own format."""
    return architecture.startswith(_COLPALI_FAMILY) and not architecture.endswith("ForRetrieval")


def serving(serves: str) -> tuple[str, ...]:
    """Names of the engines that can serve *serves*."""
    return tuple(row.name for row in _ROWS if serves in row.serves)
