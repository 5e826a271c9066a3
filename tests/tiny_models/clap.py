"""A CLAP of 0.2 M parameters: HTSAT of 64 x 64 patches of 4, one layer a stage, trained on simple sounds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, RobertaTokenizer

from tiny_models import common, sounds

_STEPS = 250
_EACH = 4  # sounds of a caption in a batch
_SEEDS = 40
_HELD_OUT = 10_000  # seeds from here on are never trained on


def make(place: Path) -> dict[str, float]:
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    sentences = [form.format(caption) for form in sounds.TEMPLATES for caption in sounds.CAPTIONS]
    common.byte_pairs(sentences, special=special, suffix=None, place=place)
    tokenizer = RobertaTokenizer.from_pretrained(place, model_max_length=32)
    # 32 mel bands, 127 frames in 10 s: what an HTSAT of 64 x 64 folds into its square.
    hearing = ClapFeatureExtractor(
        feature_size=32,
        hop_length=3840,
        fft_window_size=4096,
        sampling_rate=sounds.RATE,
        max_length_s=10,
        truncation="rand_trunc",
        padding="repeatpad",
        frequency_min=50,
        frequency_max=14_000,
    )
    model = ClapModel(_config(tokenizer))
    pool = _heard(hearing, seeds=range(_SEEDS))
    dice = random.Random(1)
    labels = torch.arange(len(sounds.CAPTIONS)).repeat_interleave(_EACH)

    def loss(_step: int) -> torch.Tensor:
        texts = [dice.choice(sounds.TEMPLATES).format(caption) for caption in sounds.CAPTIONS]
        chosen = torch.cat([torch.randint(_SEEDS, (_EACH,)) for _ in sounds.CAPTIONS])
        return common.contrast(_hear(model, pool[labels, chosen]), _read(model, tokenizer, texts), labels)

    final = common.train(model, loss, steps=_STEPS, rate=2e-3)
    model.save_pretrained(place)
    ClapProcessor(feature_extractor=hearing, tokenizer=tokenizer).save_pretrained(place)
    recall = _judge(model, tokenizer, hearing)
    if recall < 0.9:
        message = f"recall@1 on held-out sounds is {recall}"
        raise SystemExit(message)
    return {"loss": final, "recall_at_1": recall}


def _config(tokenizer: Any) -> ClapConfig:
    return ClapConfig(
        text_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 36,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "projection_dim": 64,
        },
        audio_config={
            "spec_size": 64,
            "num_mel_bins": 32,
            "patch_size": 4,
            "patch_stride": [4, 4],
            "window_size": 8,
            "patch_embeds_hidden_size": 32,
            "hidden_size": 64,
            "depths": [1, 1],
            "num_attention_heads": [2, 4],
            "projection_dim": 64,
            "drop_path_rate": 0.0,
            "num_classes": len(sounds.CAPTIONS),
        },
        projection_dim=64,
    )


def _heard(hearing: Any, *, seeds: range) -> torch.Tensor:
    """float32[caption, seed, 1, frames, bands]."""
    made = [[sounds.make(caption, seed=seed) for seed in seeds] for caption in sounds.CAPTIONS]
    return torch.stack([hearing(row, sampling_rate=sounds.RATE, return_tensors="pt")["input_features"] for row in made])


def _hear(model: Any, features: torch.Tensor) -> torch.Tensor:
    longer = torch.zeros(features.shape[0], 1, dtype=torch.bool)
    return model.audio_projection(model.audio_model(input_features=features, is_longer=longer).pooler_output)


def _read(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    return model.text_projection(model.text_model(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output)


def _judge(model: Any, tokenizer: Any, hearing: Any) -> float:
    held_out = _heard(hearing, seeds=range(_HELD_OUT, _HELD_OUT + 5))
    with torch.inference_mode():
        heard = torch.nn.functional.normalize(_hear(model, held_out.flatten(0, 1)), dim=1)
        read = torch.nn.functional.normalize(_read(model, tokenizer, list(sounds.CAPTIONS)), dim=1)
    labels = torch.arange(len(sounds.CAPTIONS)).repeat_interleave(5)
    print("sounds that find their caption", float(((heard @ read.T).argmax(1) == labels).float().mean()))
    return common.recall_at_1(read, heard, labels)
