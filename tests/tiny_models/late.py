"""A late-interaction model (ColBERT's form), saved by sentence-transformers: 32 numbers a token, matched by words.

Not trained: untrained word vectors are far apart, and so "the same word" is what it matches.
"""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Transformer

from tiny_models import common
from tiny_models.text import encoder


def make(place: Path) -> dict[str, float]:
    backbone = place.with_name(place.name + ".backbone")
    encoder(backbone)
    dense = Dense(64, 32, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
    model = MultiVectorEncoder(modules=[Transformer(str(backbone), max_seq_length=64), dense], device="cpu")
    model.save(str(place))
    common.make_portable(place)
    return {}
