"""sentence-transformers 6 in this process: its modules, our tokenising and batching.

`encode()` sorts, pads and converts once more than we need, so the model's own modules are called with batches that are
tokenised already; the vectors are encode()'s (a contract test compares). Models that tokenise in a way of their own
(chat templates, routers, slow tokenizers) go through the model's preprocess, one planned batch a call.

    SentenceTransformer   text, image, audio -> one vector    CLIP, SigLIP, CLAP, multimodal models, all of BERT's kin
    SparseEncoder         text -> weighted words              SPLADE, inference-free ones, CSR
    MultiVectorEncoder    text, image, audio -> many vectors  ColBERT, and ColPali in the format of transformers
    CrossEncoder          pair -> one raw score
Never fetches anything; never runs a repository's own code; a text is never taken for a path or an address.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from msearchd import errors
from msearchd.domain.sample import Sample
from msearchd.inference.weights import check_sparse
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, LoadOrder, Prepared, load_errors, pick_device
from msearchd.inference.worker.engines.st_media import ManyWay, MediaWay
from msearchd.inference.worker.engines.st_sparse import SparseWay
from msearchd.inference.worker.engines.st_text import PairWay, TextWay

_INSTALL: Final = "type: pip install 'msearchd[models]'"
_MAJORS: Final = (6,)
#: What a model has to read to serve, in the library's words.
NEEDS: Final = {"text": "text", "sparse": "text", "image": "image", "audio": "audio", "page": "image", "rerank": "pair"}
_KINDS: Final = ("text", "image", "audio")


class Way(Protocol):
    """How samples of one kind go through the loaded model."""

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare."""
        ...

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        ...


class SentenceTransformersEngine:
    """Every kind of model that sentence-transformers loads."""

    def __init__(self) -> None:
        self._model: Any = None
        self._ways: dict[str, Way] = {}

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        with load_errors("sentence_transformers", extra=_INSTALL, folder=order.folder):
            import sentence_transformers
            import torch
            import transformers

            require_version(sentence_transformers.__version__)
            torch.set_num_threads(order.threads)
            device = pick_device(order.device)
            form = form_of(Path(order.folder), serves=order.serves)
            model = getattr(sentence_transformers, form)(
                order.folder,
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": getattr(torch, order.dtype)},
            )
            model.eval()
            limit = _limit_tokens(model, order.max_tokens)
            self._model = model
            self._ways = _ways(model, form, limit, order)
            kind = next(iter(self._ways))
            way = self._ways[kind]
            dim = 1 if form == "CrossEncoder" else way.dim if isinstance(way, SparseWay) else self._dim(kind)
        versions = {
            "sentence-transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }
        return EngineFacts(
            dim=dim,
            max_tokens=limit,
            device=device,
            dtype=order.dtype,
            versions=versions,
            kinds=tuple(self._ways),
            multi=form == "MultiVectorEncoder",
            sparse=form == "SparseEncoder",
        )

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare. Raises BadAsset for a kind that the model does not read."""
        return self._way(kind_of(samples)).prepare(samples, role=role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        return self._way(prepared.kind).embed(prepared, items, width=width)

    def close(self) -> None:
        """As Engine.close."""
        self._model = None
        self._ways = {}

    def _way(self, kind: str) -> Way:
        if kind not in self._ways:
            message = f"this model reads {', '.join(self._ways) or 'nothing before it is loaded'}, not {kind}"
            raise errors.BadAsset(message)
        return self._ways[kind]

    def _dim(self, kind: str) -> int:
        from msearchd.inference.worker.embedding import PROBES

        ready = self.prepare([PROBES[kind]], role="document")
        out = self.embed(ready, [0], width=ready.lengths[0])
        return out.data.nbytes // 4 // (out.rows[0] if out.rows else 1)


def require_version(version: str) -> None:
    """Raise Misconfigured where *version* of sentence-transformers has other classes and arguments than we call."""
    if int(version.partition(".")[0]) not in _MAJORS:
        message = f"sentence-transformers {version} is not one that msearchd knows (it needs 6.2 or newer, below 7)"
        raise errors.Misconfigured(message, key="engine:sentence_transformers", hint=_INSTALL)


def kind_of(samples: Sequence[Sample]) -> str:
    """The kind of *samples*: that of the first one, text for none."""
    names = {"str": "text", "Picture": "image", "Sound": "audio", "Pair": "pair"}
    return names[type(samples[0]).__name__] if samples else "text"


def form_of(folder: Path, *, serves: str) -> str:
    """The class that loads *folder* for what it *serves*. Raises Misconfigured where it would begin with random weights.

    All of these classes load any transformer and put a fresh, untrained head on it where its own is missing.
    """
    library = _read_json(folder / "config_sentence_transformers.json")
    architectures = _read_json(folder / "config.json").get("architectures") or []
    declared = str(library.get("model_type", ""))
    check_sparse(folder, serves=serves)
    if serves == "sparse":
        return "SparseEncoder"
    if serves == "rerank":
        if declared != "CrossEncoder" and not any(
            name.endswith(("ForSequenceClassification", "ForCausalLM")) for name in architectures
        ):
            message = f"{folder} is no reranker (it has no head that scores a pair)"
            raise errors.Misconfigured(
                message, key=f"source:{folder}", hint='choose a cross-encoder for serves="rerank"'
            )
        return "CrossEncoder"
    is_late = (
        declared in {"MultiVectorEncoder", "ColBERT"}
        or "HF_ColBERT" in architectures
        or any(name.endswith("ForRetrieval") for name in architectures)
    )
    if serves == "page" and not is_late:
        message = f"{folder} is no late-interaction model of pages"
        raise errors.Misconfigured(
            message, key=f"source:{folder}", hint='choose ColPali or its kin, or set serves = "image"'
        )
    return "MultiVectorEncoder" if is_late else "SentenceTransformer"


def _ways(model: Any, form: str, limit: int, order: LoadOrder) -> dict[str, Way]:
    """One way for each kind that *model* reads; raises Misconfigured where it cannot serve what it is asked to."""
    prompts = {"query": order.query_prompt, "document": order.document_prompt}
    ways: dict[str, Way] = {}
    if form == "CrossEncoder":
        if model.num_labels != 1:
            message = f"{order.folder} sorts texts into {model.num_labels} classes; a reranker has one"
            raise errors.Misconfigured(
                message, key=f"source:{order.folder}", hint="choose a cross-encoder with one label"
            )
        ways["pair"] = PairWay(model, limit)
        return ways
    if form == "SparseEncoder":
        ways["text"] = SparseWay(model, limit, prompts)
        return ways
    for kind in (kind for kind in _KINDS if kind in model.modalities):
        if form == "MultiVectorEncoder":
            ways[kind] = ManyWay(model, kind, limit, prompts)
        else:
            ways[kind] = TextWay(model, limit, prompts) if kind == "text" else MediaWay(model, kind)
    wanted = NEEDS.get(order.serves, "")
    if wanted not in ways:
        message = f"{order.folder} reads {', '.join(ways) or 'nothing that we know'}: it cannot serve {order.serves}"
        raise errors.Misconfigured(message, key=f"source:{order.folder}", hint="correct serves in [[inference.models]]")
    return ways


def _limit_tokens(model: Any, asked: int) -> int:
    """Cut at the least of what the settings, the model and its position table allow; 512 where nobody says."""
    own = model.max_seq_length
    config = getattr(model[0], "config", None)
    positions = getattr(config, "max_position_embeddings", None) or getattr(
        getattr(config, "text_config", None), "max_position_embeddings", None
    )
    stated = [value for value in (own, asked or None) if isinstance(value, int) and 0 < value < 1_000_000]
    limit = min(stated) if stated else min(positions or 512, 512)
    if limit != own:
        model.max_seq_length = limit
    return limit


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
