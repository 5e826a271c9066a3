"""A SPLADE of 0.1 M parameters, saved by sentence-transformers: the words of a text, weighted, and their kin beside them.

Words of WORDS come in pairs of kin (ferry and island, oven and recipe). A passage is trained to light up also the kin of
its words, so that "island" finds "ferry": what no list of words can. Other words it spells out, letter by letter.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from tiny_models import common
from tiny_models.cross import WORDS

#: Each word and its kin, both ways; the last word of an odd number is alone.
KIN = dict(zip(WORDS[0:-1:2], WORDS[1::2], strict=False)) | dict(zip(WORDS[1::2], WORDS[0:-1:2], strict=False))
_STEPS = 300
_BATCH = 32


def make(place: Path) -> dict[str, float]:
    backbone = place.with_name(place.name + ".backbone")
    _masked(backbone)
    model = SparseEncoder(
        modules=[Transformer(str(backbone), max_seq_length=64, transformer_task="fill-mask"), SpladePooling("max")],
        device="cpu",
    )
    dice = random.Random(1)

    def loss(step: int) -> torch.Tensor:
        queries, texts = zip(*(pair_of(dice) for _ in range(_BATCH)), strict=True)
        asked, held = (model(model.preprocess(list(side)))["sentence_embedding"] for side in (queries, texts))
        wanted = torch.tensor([[float(is_kin(query, text)) for text in texts] for query in queries])
        # Few words light up (Paria et al. 2020), asked for little by little: at once, none would.
        flops = (asked.mean(0) ** 2).sum() + (held.mean(0) ** 2).sum()
        judged = torch.nn.functional.binary_cross_entropy_with_logits(
            asked @ held.T - 2, wanted, pos_weight=torch.tensor(4.0)
        )
        return judged + 0.02 * min(1.0, step / _STEPS) ** 2 * flops

    final = common.train(model, loss, steps=_STEPS, rate=1e-3)
    model.save(str(place))
    common.make_portable(place)
    found, active = _held_out(model)
    if found < 0.9 or active > 40:
        message = f"only {found} of the held-out questions find their passage, with {active} words lit up"
        raise SystemExit(message)
    return {"loss": final, "recall": found, "active": active}


def pair_of(dice: random.Random) -> tuple[str, str]:
    """A word, and a text of two to five words that has it, or more often its kin."""
    query, *others = dice.sample(WORDS, dice.randint(2, 5))
    own = query if query not in KIN or dice.random() < 0.35 else KIN[query]
    text = [own, *(word for word in others if KIN.get(word) != query)]
    dice.shuffle(text)
    return query, " ".join(text)


def is_kin(query: str, text: str) -> bool:
    """True where the text has the word or its kin."""
    return bool({query, KIN.get(query, query)} & set(text.split()))


def _held_out(model: SparseEncoder) -> tuple[float, float]:
    """Of single words asked, how many have a passage with their kin before all passages without; words lit up a passage."""
    passages = [f"{one} {other}" for one in WORDS[::2] for other in WORDS[1::2] if KIN.get(one) != other]
    with torch.inference_mode():
        held = model.encode_document(passages).to_dense()
        asked = model.encode_query(list(KIN)).to_dense()
    best = (asked @ held.T).argmax(1)
    right = [is_kin(word, passages[place]) for word, place in zip(KIN, best.tolist(), strict=True)]
    return sum(right) / len(right), float((held > 0).sum(1).float().mean())


def _masked(place: Path) -> None:
    """Save an untrained BERT with a head that names words; the head begins with the words' own vectors (tied)."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=common.word_tokenizer(WORDS), model_max_length=64, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_attention_heads=4, num_hidden_layers=2,
            max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1,
        )
    )  # fmt: skip
    with torch.no_grad():  # from chance it would learn to light up nothing; so each word begins by naming itself
        head = model.cls.predictions
        head.transform.dense.weight.copy_(torch.eye(64))
        head.bias.fill_(-2.0)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
