"""The vLLM engine against a stand-in with the signatures of vLLM's sources (entrypoints/pooling/offline.py, 0.2x to 0.33)."""

import math
import struct
import sys
from types import ModuleType, SimpleNamespace

import pytest

from msearchd import errors
from msearchd.domain.sample import Pair
from msearchd.inference.worker.engines.base import LoadOrder
from msearchd.inference.worker.engines.vllm import VllmEngine

pytest.importorskip("numpy")
LIMIT = 8


class PoolingParams:
    def __init__(self, *, use_activation=None):
        self.use_activation, self.task = use_activation, None


class LLM:
    def __init__(
        self,
        *,
        model,
        runner,
        convert,
        dtype,
        max_model_len,
        gpu_memory_utilization,
        trust_remote_code,
        disable_log_stats,
    ):
        assert (runner, trust_remote_code) == ("pooling", False)
        self.convert = convert
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=max_model_len or LIMIT))

    def get_tokenizer(self):
        return lambda texts, *, truncation, max_length: {
            "input_ids": [[len(w) for w in t.split()][: max_length if truncation else None] for t in texts]
        }

    def embed(self, prompts, *, use_tqdm=True, pooling_params=None, lora_request=None, tokenization_kwargs=None):
        assert self.convert == "embed"
        each = [prompt["prompt_token_ids"] for prompt in prompts]
        assert all(len(ids) <= LIMIT for ids in each)
        return [SimpleNamespace(outputs=SimpleNamespace(embedding=[3.0 * sum(ids), 4.0 * sum(ids)])) for ids in each]

    def score(self, data_1, data_2, /, *, use_tqdm=True, pooling_params=None, tokenization_kwargs=None):
        assert self.convert == "classify"
        assert pooling_params.task is None, "used twice: it is written into"
        pooling_params.task = "classify"
        answers = []
        for query, text in zip(data_1, data_2, strict=True):
            tokens = query.split() + text.split()
            if len(tokens) > LIMIT and (tokenization_kwargs or {}).get("truncate_prompt_tokens") != -1:
                raise ValueError("longer than the maximum model length")
            raw = float(len(set(query.split()) & set(text.split())) * 40 - 20)
            score = 1 / (1 + math.exp(-raw)) if pooling_params.use_activation is not False else raw
            answers.append(SimpleNamespace(outputs=SimpleNamespace(score=score)))
        return answers


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    torch, vllm = ModuleType("torch"), ModuleType("vllm")
    torch.cuda, torch.__version__ = SimpleNamespace(is_available=lambda: True), "0"
    vllm.LLM, vllm.PoolingParams, vllm.__version__ = LLM, PoolingParams, "0"
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    return torch


def loaded(serves):
    engine = VllmEngine()
    facts = engine.load(LoadOrder(folder="/models/m", serves=serves, device="cuda"))
    return engine, facts


def test_vectors_have_length_one_and_long_texts_are_cut():
    engine, facts = loaded("text")
    assert (facts.dim, facts.max_tokens, facts.kinds) == (2, LIMIT, ("text",))
    out = engine.embed(engine.prepare(["a b", "word " * 50], role="document"), [1, 0], width=16)
    assert struct.unpack("<4f", out.data) == pytest.approx([0.6, 0.8, 0.6, 0.8])


def test_scores_are_raw_however_high_and_a_long_pair_is_cut():
    engine, facts = loaded("rerank")
    assert (facts.dim, facts.kinds) == (1, ("pair",))
    pairs = [Pair("a b", "a b"), Pair("a", "b " * 50)]
    for _ in range(2):
        out = engine.embed(engine.prepare(pairs, role="query"), [0, 1], width=16)
        assert struct.unpack("<2f", out.data) == (60.0, -20.0)  # a sigmoid would have made 1 of it


def test_without_a_gpu_the_ways_that_there_are_get_told(modules):
    modules.cuda = SimpleNamespace(is_available=lambda: False)
    with pytest.raises(errors.Misconfigured, match="NVIDIA GPU") as caught:
        loaded("text")
    assert "urls" in caught.value.hint


def test_a_kind_that_it_does_not_serve_is_told():
    with pytest.raises(errors.Misconfigured, match="text and rerank"):
        loaded("image")
