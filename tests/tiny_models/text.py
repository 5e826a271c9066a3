"""A bi-encoder of 0.1 M parameters with prompts, saved by sentence-transformers: texts that share words are near."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from tiny_models import common
from tiny_models.cross import WORDS, pair_of

PROMPTS = {"query": "query: ", "document": "passage: "}
_STEPS = 100
_BATCH = 24


def make(place: Path) -> dict[str, float]:
    backbone = place.with_name(place.name + ".backbone")
    encoder(backbone)
    modules = [Transformer(str(backbone), max_seq_length=64), Pooling(64), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS)
    dice = random.Random(1)

    def loss(_step: int) -> torch.Tensor:
        pairs = [pair_of(dice, is_relevant=True) for _ in range(_BATCH)]
        sides = []
        for role, texts in zip(PROMPTS, zip(*pairs, strict=True), strict=True):
            features = model.preprocess([PROMPTS[role] + text for text in texts])
            sides.append(model(features)["sentence_embedding"])
        return torch.nn.functional.cross_entropy(10 * sides[0] @ sides[1].T, torch.arange(_BATCH))

    final = common.train(model, loss, steps=_STEPS, rate=1e-3)
    model.save(str(place))
    common.make_portable(place)
    _as_hub_models_are(place)
    return {"loss": final}


def _as_hub_models_are(place: Path) -> None:
    """Write the files of modules as sentence-transformers 2 to 5 did, and nearly every model of the hub has them."""
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    rows = [
        {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for name, path, kind in modules
    ]
    (place / "modules.json").write_text(json.dumps(rows))
    (place / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))
    pooling = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
    (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (place / "2_Normalize").mkdir(exist_ok=True)


def encoder(place: Path) -> None:
    """Save an untrained BERT of two layers that knows WORDS."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=common.word_tokenizer([*WORDS, "query", "passage"]), model_max_length=64, pad_token="[PAD]",
        unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_attention_heads=4, num_hidden_layers=2,
            max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1,
        )
    )  # fmt: skip
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
