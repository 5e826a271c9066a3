"""onnxruntime and tokenizers: text to vectors without torch, where a model ships onnx/model.onnx.

90 MiB of imports in a third of a second, instead of 430 in 13: the engine of small machines. Pooling and limits come from
the files of sentence-transformers, so the vectors are the other engines'. Never fetches anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Sample
from msearchd.inference import roster
from msearchd.inference.weights import onnx_file
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, LoadOrder, Prepared, load_errors
from msearchd.inference.worker.engines.onnx_recipe import Recipe, pooled, read_recipe

_KEY: Final = "engine:onnx"
_INPUTS: Final = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})


class OnnxEngine:
    """A text bi-encoder on onnxruntime."""

    def __init__(self) -> None:
        self._session: Any = None
        self._tokenizer: Any = None
        self._recipe: Recipe | None = None
        self._output = ""

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        with load_errors("onnx", extra=roster.ENGINES["onnx"].install_line, folder=order.folder):
            import onnxruntime
            import tokenizers

            folder = Path(order.folder)
            _require_form(folder, order.dtype)
            recipe = read_recipe(folder, order)
            provider = _provider(order.device, onnxruntime.get_available_providers())
            self._session = onnxruntime.InferenceSession(
                str(onnx_file(folder)),
                _options(onnxruntime, order.threads),
                providers=[provider],
                provider_options=[_which(order.device) if provider != "CPUExecutionProvider" else {}],
            )
            self._output = _chosen_output(self._session, folder)
            self._tokenizer = _tokenizer(tokenizers, folder, recipe)
            self._recipe = recipe
            dim = self.embed(self.prepare(["dimension"], role="document"), [0], width=16).data.nbytes // 4
        return EngineFacts(
            dim=dim,
            max_tokens=recipe.max_tokens,
            device="cpu" if provider == "CPUExecutionProvider" else "cuda",
            dtype=order.dtype,
            versions={"onnxruntime": onnxruntime.__version__, "tokenizers": tokenizers.__version__},
        )

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare."""
        recipe = self._ready()
        texts = [recipe.prompts[role] + sample for sample in samples if isinstance(sample, str)]
        if len(texts) != len(samples):
            message = "the onnx engine reads text alone"
            raise errors.BadAsset(message)
        if recipe.lowers:
            texts = [text.lower() for text in texts]
        items = [(encoding.ids, encoding.type_ids) for encoding in self._tokenizer.encode_batch_fast(texts)]
        return Prepared(items, [len(ids) for ids, _ in items], role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import numpy as np

        recipe = self._ready()
        columns = _padded([prepared.items[index] for index in items], width=width, recipe=recipe)
        feed = {
            node.name: columns[node.name].astype(np.int32 if "int32" in node.type else np.int64)
            for node in self._session.get_inputs()
        }
        try:
            (out,) = self._session.run([self._output], feed)
        except Exception as error:
            if "allocate memory" in str(error).lower():  # onnxruntime has no class for it
                raise MemoryError(str(error)) from error
            raise
        rows = pooled(out, columns["attention_mask"], mode=recipe.pooling) if out.ndim == 3 else out
        rows = rows.astype(np.float32)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return Embedded(memoryview(np.ascontiguousarray(rows, dtype="<f4")).cast("B"))

    def close(self) -> None:
        """As Engine.close."""
        self._session = None

    def _ready(self) -> Recipe:
        if self._recipe is None:
            message = "embed before load"
            raise RuntimeError(message)
        return self._recipe


def _require_form(folder: Path, dtype: str) -> None:
    if not onnx_file(folder).is_file():
        message = f"{folder} ships no onnx/model.onnx"
        hint = 'set engine = "auto", or fetch the file onnx/model.onnx of the model into its folder'
        raise errors.Misconfigured(message, key=_KEY, hint=hint)
    if dtype != "float32":
        message = f"onnx/model.onnx computes in float32, and {dtype} is asked for"
        raise errors.Misconfigured(message, key=_KEY, hint='set dtype = "float32", or engine = "sentence_transformers"')


def _options(onnxruntime: Any, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Its threads spin between two operations by default: whole cores for nothing, beside a person at work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _provider(asked: str, available: Sequence[str]) -> str:
    kind = asked.partition(":")[0]
    if kind in {"auto", "cuda"} and "CUDAExecutionProvider" in available:
        return "CUDAExecutionProvider"
    if kind in {"auto", "cpu"}:
        return "CPUExecutionProvider"
    message = f"this onnxruntime has no device {asked!r} ({', '.join(available)})"
    raise errors.Misconfigured(
        message, key=f"device:{asked}", hint='set device = "cpu", or pip install onnxruntime-gpu'
    )


def _which(asked: str) -> dict[str, str]:
    index = asked.partition(":")[2]
    return {"device_id": index} if index.isdecimal() else {}


def _chosen_output(session: Any, folder: Path) -> str:
    """The name of the output to pool: of tokens, or of whole sentences where the graph pools by itself."""
    strange = [node.name for node in session.get_inputs() if node.name not in _INPUTS]
    if strange:
        message = f"onnx/model.onnx of {folder} asks for {', '.join(strange)}, which no text has"
        raise errors.Misconfigured(message, key=_KEY, hint='set engine = "sentence_transformers"')
    names = [node.name for node in session.get_outputs()]
    wanted = ("last_hidden_state", "token_embeddings", "sentence_embedding")
    return next((name for name in wanted if name in names), names[0])


def _tokenizer(tokenizers: Any, folder: Path, recipe: Recipe) -> Any:
    made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.no_padding()
    made.enable_truncation(max_length=recipe.max_tokens, direction=recipe.truncation_side)
    return made


def _padded(items: Sequence[tuple[list[int], list[int]]], *, width: int, recipe: Recipe) -> dict[str, Any]:
    """int64[n, width] of ids, mask, types and positions."""
    import numpy as np

    ids: Any = np.full((len(items), width), recipe.pad_id, dtype=np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for row, (tokens, kinds) in enumerate(items):
        place = slice(width - len(tokens), width) if recipe.pads_left else slice(0, len(tokens))
        ids[row, place], mask[row, place], types[row, place] = tokens, 1, kinds
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "position_ids": positions}
