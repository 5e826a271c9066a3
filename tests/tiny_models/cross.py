"""A cross-encoder of 0.1 M parameters with one label: high where the text has the query's words, low where it has not."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tiny_models import common

#: What it knows; other words it spells out and never learned.
WORDS = (
    "ferry",
    "island",
    "harbour",
    "invoice",
    "payment",
    "bank",
    "garden",
    "tomato",
    "recipe",
    "oven",
    "violin",
    "concert",
    "guitar",
    "mountain",
    "snow",
    "valley",
    "engine",
    "wheel",
    "bridge",
    "river",
    "school",
    "teacher",
    "exam",
    "doctor",
    "medicine",
    "clinic",
    "letter",
    "stamp",
    "office",
)
_STEPS = 200
_BATCH = 64


def make(place: Path) -> dict[str, float]:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=common.word_tokenizer(WORDS), model_max_length=64, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_attention_heads=4, num_hidden_layers=2,
            max_position_embeddings=64, num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            initializer_range=0.1,
        )
    )  # fmt: skip
    with torch.no_grad():  # queries that begin as keys see equal words at once; from chance that takes minutes
        for layer in model.bert.encoder.layer:
            layer.attention.self.query.weight.copy_(layer.attention.self.key.weight.mul_(2))
    dice = random.Random(1)

    def loss(_step: int) -> torch.Tensor:
        pairs = [pair_of(dice, is_relevant=row % 2 == 0) for row in range(_BATCH)]
        wanted = torch.tensor([[1.0 - row % 2] for row in range(_BATCH)])
        return torch.nn.functional.binary_cross_entropy_with_logits(_score(model, tokenizer, pairs), wanted)

    final = common.train(model, loss, steps=_STEPS, rate=2e-3)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    common.make_portable(place)
    held_out = random.Random(2)
    with torch.inference_mode():
        scores = _score(model, tokenizer, [pair_of(held_out, is_relevant=row % 2 == 0) for row in range(400)])
    right = float(((scores[:, 0] > 0) == (torch.arange(400) % 2 == 0)).float().mean())
    if right < 0.95:
        message = f"only {right} of the held-out pairs are judged rightly"
        raise SystemExit(message)
    return {"loss": final, "accuracy": right}


def pair_of(dice: random.Random, *, is_relevant: bool) -> tuple[str, str]:
    """A query of one word, and a text of three to eight words with or without it."""
    query, *others = dice.sample(WORDS, dice.randint(4, 9))
    text = [*others[:-1], query if is_relevant else others[-1]]
    dice.shuffle(text)
    return query, " ".join(text)


def _score(model, tokenizer, pairs) -> torch.Tensor:
    features = tokenizer([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt")
    return model(**features).logits
