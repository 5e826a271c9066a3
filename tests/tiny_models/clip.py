"""A CLIP of 0.2 M parameters: ViT 48 px / 24, two layers a tower, trained on drawings."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from tiny_models import common, drawings

_STEPS = 700
_EACH = 4  # pictures of a caption in a batch
_HELD_OUT = 10_000  # seeds from here on are never trained on


def make(place: Path) -> dict[str, float]:
    special = ("<|startoftext|>", "<|endoftext|>")
    sentences = [form.format(caption) for form in drawings.TEMPLATES for caption in drawings.CAPTIONS]
    common.byte_pairs(sentences, special=special, suffix="</w>", place=place)
    tokenizer = CLIPTokenizer.from_pretrained(place, model_max_length=32)
    pixels = CLIPImageProcessor(
        size={"height": 48, "width": 48}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor = CLIPProcessor(image_processor=pixels, tokenizer=tokenizer)
    model = CLIPModel(_config(tokenizer))
    with torch.no_grad():  # the usual start is for pictures of 224 px; so small, it learns shapes five times as slowly
        model.vision_model.embeddings.patch_embedding.weight.mul_(3)
    pool = _pictures(pixels, seeds=range(200))
    dice = random.Random(1)
    labels = torch.arange(len(drawings.CAPTIONS)).repeat_interleave(_EACH)

    def loss(_step: int) -> torch.Tensor:
        texts = [dice.choice(drawings.TEMPLATES).format(caption) for caption in drawings.CAPTIONS]
        chosen = torch.cat([torch.randint(pool.shape[1], (_EACH,)) for _ in drawings.CAPTIONS])
        pictures = pool[labels, chosen]
        if dice.random() < 0.5:  # every shape is its own mirror image
            pictures = pictures.flip(-1)
        return common.contrast(_see(model, pictures), _read(model, tokenizer, texts), labels)

    final = common.train(model, loss, steps=_STEPS, rate=2e-3)
    model.save_pretrained(place)
    processor.save_pretrained(place)
    recall = _judge(model, tokenizer, pixels)
    if recall < 0.95:
        message = f"recall@1 on held-out drawings is {recall}"
        raise SystemExit(message)
    return {"loss": final, "recall_at_1": recall}


def _config(tokenizer: Any) -> CLIPConfig:
    shared = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    return CLIPConfig(
        text_config=shared
        | {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=shared | {"image_size": 48, "patch_size": 24},
        projection_dim=64,
    )


def _pictures(pixels: Any, *, seeds: range) -> torch.Tensor:
    """float32[caption, seed, 3, 48, 48]; drawn in many sizes, as files have them."""
    sizes = ((64, 64), (96, 64), (200, 160), (120, 160))
    rows = [
        [drawings.draw(caption, seed=seed, size=sizes[seed % len(sizes)]) for seed in seeds]
        for caption in drawings.CAPTIONS
    ]
    return torch.stack([pixels(row, return_tensors="pt")["pixel_values"] for row in rows])


def _see(model: Any, pictures: torch.Tensor) -> torch.Tensor:
    return model.visual_projection(model.vision_model(pictures).pooler_output)


def _read(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    return model.text_projection(model.text_model(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output)


def _judge(model: Any, tokenizer: Any, pixels: Any) -> float:
    held_out = _pictures(pixels, seeds=range(_HELD_OUT, _HELD_OUT + 5))
    with torch.inference_mode():
        seen = torch.nn.functional.normalize(_see(model, held_out.flatten(0, 1)), dim=1)
        read = torch.nn.functional.normalize(_read(model, tokenizer, list(drawings.CAPTIONS)), dim=1)
    labels = torch.arange(len(drawings.CAPTIONS)).repeat_interleave(5)
    all_first = ((seen @ read.T).argmax(1) == labels).float().mean()  # the harder way round: each picture names itself
    print("pictures that find their caption", float(all_first))
    return common.recall_at_1(read, seen, labels)
