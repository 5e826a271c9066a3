"""Tiny random ColPali and ColQwen2_5Omni: the real classes, saved as theirs are.

usage, in an environment with colpali-engine: python colpali.py OUT [NAME ...]. Makes OUT/colpali and OUT/omni. A ColPali that
infinity's environment saves (transformers 4.57, as the published ones are) loads in both, one of colpali's in that alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torchvision_shim

torchvision_shim.install()

import torch  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers  # noqa: E402


def tokenizer(special: list[str], **roles: object):
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=made, **roles)


def words_of_gemma():
    """Gemma's way with text, over letters and bytes: each transformers builds its tokenizer in its own way, alike."""
    from transformers import GemmaTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "\n", *map(chr, range(97, 123))]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(token, special=True) for token in [*special, "<image>"]])
    return GemmaTokenizerFast(tokenizer_object=made, additional_special_tokens=["<image>"])


def save_colpali(folder: Path, *, seed: int = 1) -> None:
    from colpali_engine.models import ColPali, ColPaliProcessor
    from transformers import PaliGemmaConfig, SiglipImageProcessor

    torch.manual_seed(seed)
    words = words_of_gemma()
    looks = SiglipImageProcessor(size={"height": 56, "width": 56})
    looks.image_seq_length = 16
    processor = ColPaliProcessor(image_processor=looks, tokenizer=words)
    config = PaliGemmaConfig(
        text_config={
            "model_type": "gemma", "vocab_size": len(words) + 64, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "pad_token_id": words.pad_token_id, "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id,
        },
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "projection_dim": 32,
        },
        image_token_index=words.convert_tokens_to_ids("<image>"), projection_dim=32,
    )  # fmt: skip
    ColPali(config).eval().save_pretrained(folder)
    processor.save_pretrained(folder)


_QWEN_MARKS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>",
]  # fmt: skip
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_omni(folder: Path) -> None:
    from colpali_engine.models import ColQwen2_5Omni, ColQwen2_5OmniProcessor
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor, WhisperFeatureExtractor
    from transformers.models.qwen2_5_omni import Qwen2_5OmniThinkerConfig

    torch.manual_seed(2)
    words = tokenizer(
        _QWEN_MARKS, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=_QWEN_MARKS,
        extra_special_tokens={
            "image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>",
            "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
            "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
        },
    )  # fmt: skip
    words.chat_template = _CHAT
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64}
    processor = ColQwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels, patch_size=14, merge_size=2, temporal_patch_size=2),
        video_processor=Qwen2VLVideoProcessor(size=pixels, patch_size=14, merge_size=2, temporal_patch_size=2),
        feature_extractor=WhisperFeatureExtractor(feature_size=128, chunk_length=300),
        tokenizer=words,
        chat_template=_CHAT,
    )
    ids = {mark: words.convert_tokens_to_ids(mark) for mark in _QWEN_MARKS}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "output_dim": 32,
            "num_mel_bins": 128, "n_window": 100,
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "fullatt_block_indexes": [1],
        },
        text_config={
            "vocab_size": len(words) + 16, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        audio_token_index=ids["<|AUDIO|>"], audio_token_id=ids["<|AUDIO|>"],
        image_token_index=ids["<|IMAGE|>"], image_token_id=ids["<|IMAGE|>"],
        video_token_index=ids["<|VIDEO|>"], video_token_id=ids["<|VIDEO|>"],
        audio_start_token_id=ids["<|audio_bos|>"], audio_end_token_id=ids["<|audio_eos|>"],
        vision_start_token_id=ids["<|vision_bos|>"], vision_end_token_id=ids["<|vision_eos|>"],
    )  # fmt: skip
    config.vision_start_token_id = ids["<|vision_bos|>"]
    ColQwen2_5Omni(config).eval().save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    out, wanted = Path(sys.argv[1]), sys.argv[2:] or ["colpali", "omni"]
    if "colpali" in wanted:
        save_colpali(out / "colpali")
    if "other" in wanted:  # the same with other weights
        save_colpali(out / "other", seed=7)
    if "omni" in wanted:
        save_omni(out / "omni")
