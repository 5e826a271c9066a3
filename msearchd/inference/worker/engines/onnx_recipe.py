"""How a text model's tokens become one vector, from the files that sentence-transformers writes beside the weights.

In: a model folder. Out: a Recipe; and the pooling itself, on arrays. Refuses what it could only do wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.inference.worker.engines.base import LoadOrder

_KEY: Final = "engine:onnx"
_INSTEAD: Final = 'set engine = "sentence_transformers"'
_MODES: Final = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
#: Modes by their flags in 1_Pooling/config.json up to sentence-transformers 5.
_FLAGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_NO_LIMIT: Final = 1_000_000  # tokenizers without one say 10^30


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All but the graph. `max_tokens` counts special tokens."""

    pooling: str
    max_tokens: int
    pad_id: int
    pads_left: bool
    truncation_side: str
    lowers: bool
    prompts: Mapping[str, str]


def read_recipe(folder: Path, order: LoadOrder) -> Recipe:
    """Read the recipe of the model in *folder*. Raises Misconfigured (engine:onnx) for what this engine cannot do."""
    words = _json(folder / "tokenizer_config.json")
    own = _json(folder / "sentence_bert_config.json")
    inner = _modules(folder)
    if inner.get("include_prompt") is False and (order.query_prompt or order.document_prompt):
        raise _refused(f"{folder} leaves its prompt out of pooling")
    limits = (
        order.max_tokens,
        own.get("max_seq_length"),
        words.get("model_max_length"),
        _json(folder / "config.json").get("max_position_embeddings"),
    )
    stated = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT]
    return Recipe(
        pooling=_mode(inner, folder),
        max_tokens=min(stated, default=512),
        pad_id=_pad_id(folder, words),
        pads_left=words.get("padding_side") == "left",
        truncation_side=str(words.get("truncation_side") or "right"),
        lowers=bool(own.get("do_lower_case")),
        prompts={"query": order.query_prompt, "document": order.document_prompt},
    )


def pooled(tokens: Any, mask: Any, *, mode: str) -> Any:
    """float[n, dim] from token vectors float[n, width, dim] and mask int[n, width], as sentence-transformers' Pooling."""
    import numpy as np

    rows = np.arange(len(tokens))
    weights = mask[:, :, None].astype(tokens.dtype)
    match mode:
        case "cls":
            return tokens[rows, mask.argmax(axis=1)]
        case "lasttoken":
            return tokens[rows, mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)]
        case "max":
            return np.where(weights > 0, tokens, -1e9).max(axis=1)
        case "weightedmean":
            weights = weights * mask.cumsum(axis=1)[:, :, None].astype(
                tokens.dtype
            )  # the n-th real token counts n times
    total = (tokens * weights).sum(axis=1)
    count = np.maximum(weights.sum(axis=1), 1e-9)
    return total / (np.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)


def _modules(folder: Path) -> dict[str, Any]:
    """The pooling module's settings; empty for a bare checkpoint. Raises Misconfigured for a module that we have not."""
    inner: dict[str, Any] = {}
    for module in _json(folder / "modules.json") or []:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            inner = _json(folder / str(module.get("path", "")) / "config.json")
        elif kind not in {"Transformer", "Normalize", "Dropout"}:
            raise _refused(f"{folder} has a module {kind} after the transformer")
    return inner


def _mode(inner: Mapping[str, Any], folder: Path) -> str:
    said = inner.get("pooling_mode")
    modes = [said] if isinstance(said, str) else list(said or [])
    modes = modes or [mode for flag, mode in _FLAGS.items() if inner.get(flag) is True] or ["mean"]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise _refused(f"{folder} pools by {' and '.join(map(str, modes))}")
    return str(modes[0])


def _pad_id(folder: Path, words: Mapping[str, Any]) -> int:
    """The padding token's id: masked out, but it has to be in the table."""
    token = words.get("pad_token")
    name = token.get("content") if isinstance(token, dict) else token
    tokenizer = _json(folder / "tokenizer.json")
    if not tokenizer:
        raise _refused(f"{folder} has no tokenizer.json")
    for added in tokenizer.get("added_tokens") or []:
        if added.get("content") == name:
            return int(added["id"])
    return int((tokenizer.get("padding") or {}).get("pad_id") or 0)


def _refused(message: str) -> errors.Misconfigured:
    return errors.Misconfigured(f"{message}, which the onnx engine does not do", key=_KEY, hint=_INSTEAD)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
