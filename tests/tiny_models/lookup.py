"""An inference-free sparse encoder, saved by sentence-transformers: passages by the model of sparse.py, questions looked up.

A question is its words, each with a weight out of a table; no forward pass. Saved with a router, so without a config.json.
"""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

import tiny_models


def make(place: Path) -> dict[str, float]:
    passages = SparseEncoder(str(tiny_models.folder("sparse")), device="cpu", local_files_only=True)
    table = SparseStaticEmbedding(passages.tokenizer, weight=1 + torch.rand(len(passages.tokenizer)))
    router = Router.for_query_document(query_modules=[table], document_modules=list(passages))
    SparseEncoder(modules=[router], device="cpu").save(str(place))
    return {}
