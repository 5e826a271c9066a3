"""What ColPali's kin need in every engine: words that are only words, costs of pages, rows without padding.

In: a processor of colpali-engine, and its tensors. Out: texts cut at the limit and free of the model's own marks; patches of
a page; one batch of the tensors of several samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msearchd.inference.worker.engines import decoded

QUESTION_TOKENS: Final = 512  # of a text, where the settings say nothing
_TOKENS: Final = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_OWN_WORDS: Final = 16  # tokens that the model puts around a text


class PlainWords:
    """Makes texts ready: the role's prompt before them, no mark of the model in them, cut at *limit* tokens.

    Uses the processor's tokenizer: whoever calls has the processor for itself.
    """

    def __init__(self, processor: Any, *, prompts: Mapping[str, str], limit: int) -> None:
        self._tokenizer = processor.tokenizer
        self._prompts = prompts
        self._limit = limit
        self._marks = tuple(mark for mark in _marks(processor) if len(mark) > 2)

    def ready(self, text: str, *, role: str) -> tuple[str, int]:
        """*text* as the processor may have it, and its cost in tokens."""
        whole = self._prompts[role] + text
        for mark in self._marks:
            whole = whole.replace(mark, " ")
        ids = self._tokenizer(whole, add_special_tokens=False)["input_ids"]
        if len(ids) > self._limit:
            ids = ids[: self._limit]
            whole = self._tokenizer.decode(ids)
        return whole, len(ids) + _OWN_WORDS


def page_cost(size: tuple[int, int], *, most_patches: int) -> int:
    """Patches of 16 x 16 that the model looks at of a picture of *size*."""
    cost = decoded.patches(*size)
    return min(cost, most_patches) if most_patches else cost


def most_patches(processor: Any) -> int:
    """Patches of 16 x 16 of the largest picture that the model looks at; 0 where the processor does not say."""
    looks = processor.image_processor
    size: Any = getattr(looks, "size", None) or {}
    if size.get("height") and size.get("width"):  # a dict, or transformers' own, which has no `in`
        return decoded.patches(size["width"], size["height"])
    most = int(size.get("longest_edge") or getattr(looks, "max_pixels", 0) or 0)
    return most // 256 if most > 100_000 else 0  # pixels of the whole picture, in Qwen's processors


def kept(features: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors among *features* but for labels: with them a model computes a loss that nobody reads."""
    return {name: value for name, value in features.items() if name != "labels" and hasattr(value, "shape")}


def joined(each: Sequence[dict[str, Any]], tokenizer: Any) -> dict[str, Any]:
    """One batch of the tensors of several samples: tokens padded at the tokenizer's side, anything else at its end.

    Equal to what the processor makes of all of them at once (a test compares).
    """
    import torch

    def padded(name: str, tensors: list[Any]) -> list[Any]:
        wide = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        is_left = name in _TOKENS and tokenizer.padding_side == "left"
        fill = tokenizer.pad_token_id if name == "input_ids" else 0
        answer = []
        for tensor in tensors:
            missing = [size - own for size, own in zip(wide, tensor.shape[1:], strict=True)]
            around = [side for one in reversed(missing) for side in ((one, 0) if is_left else (0, one))]
            answer.append(torch.nn.functional.pad(tensor, around, value=fill) if any(missing) else tensor)
        return answer

    return {name: torch.cat(padded(name, [one[name] for one in each])) for name in each[0]}


def _marks(processor: Any) -> list[str]:
    """Tokens that mean something to the model: in a text they are only characters."""
    found = {str(token) for token in processor.tokenizer.all_special_tokens}
    found |= {str(getattr(processor, name)) for name in ("image_token", "audio_token") if getattr(processor, name, "")}
    return sorted(found, key=len, reverse=True)
