"""What the recipes share: tokenizers trained on a few sentences, one training loop, one contrastive loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers


def train(model: Any, loss_of: Callable[[int], torch.Tensor], *, steps: int, rate: float) -> float:
    """AdamW with a warm-up of a tenth and a cosine decline. Returns the mean loss of the last tenth."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps, pct_start=0.1)
    model.train()
    tail: list[float] = []
    for step in range(steps):
        loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step >= steps * 0.9:
            tail.append(loss.item())
        if step % 100 == 0:
            print(step, round(loss.item(), 3), flush=True)
    model.eval()
    return sum(tail) / len(tail)


def contrast(items: torch.Tensor, texts: torch.Tensor, labels: torch.Tensor, *, scale: float = 20.0) -> torch.Tensor:
    """Each item (float32[n, d]) chooses its text among all (float32[k, d]), and each text its items."""
    items = torch.nn.functional.normalize(items, dim=1)
    texts = torch.nn.functional.normalize(texts, dim=1)
    scores = scale * items @ texts.T
    belongs = torch.nn.functional.one_hot(labels, texts.shape[0]).float()
    share = belongs / belongs.sum(0, keepdim=True).clamp(min=1)
    back = -(share * torch.log_softmax(scores, dim=0)).sum(0).mean()
    return (torch.nn.functional.cross_entropy(scores, labels) + back) / 2


def recall_at_1(texts: torch.Tensor, items: torch.Tensor, labels: torch.Tensor) -> float:
    """Of the texts (row k is caption k), how many have an item of their own label first."""
    best = (texts @ items.T).argmax(1)
    return float((labels[best] == torch.arange(texts.shape[0])).float().mean())


def word_tokenizer(sentences: Sequence[str]) -> Tokenizer:
    """BERT's: lower case, words of the sentences, letters for the rest, [CLS] a [SEP] b [SEP]."""
    words = sorted({word for sentence in sentences for word in sentence.lower().split()})
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += list(dict.fromkeys([*words, *letters, *(f"##{letter}" for letter in letters)]))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_pairs(sentences: Sequence[str], *, special: Sequence[str], suffix: str | None, place: Path) -> None:
    """Write vocab.json and merges.txt of a byte-level BPE; *special* tokens come first, *suffix* ends a word."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=suffix or ""))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        if suffix
        else [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        initial_alphabet=alphabet,
        end_of_word_suffix=suffix or "",
        special_tokens=list(special),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    made = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = {}
    ends = [letter + suffix for letter in sorted(alphabet)] if suffix else []
    for token in [*special, *sorted(alphabet), *ends, *sorted(made["vocab"], key=made["vocab"].get)]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in made["merges"]]
    (place / "vocab.json").write_text(json.dumps(vocabulary))
    (place / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")


def make_portable(place: Path) -> None:
    """Name the tokenizer as transformers 4 does too; 5 writes a class that only 5 knows."""
    file = place / "tokenizer_config.json"
    card = json.loads(file.read_text())
    if card.get("tokenizer_class") == "TokenizersBackend":
        file.write_text(json.dumps(card | {"tokenizer_class": "PreTrainedTokenizerFast"}))
