"""A tiny random Whisper of English form, in CTranslate2's format: it writes nonsense, in the right places.

Two layers of 32 numbers; a byte-level vocabulary with all of Whisper's own tokens. Biased towards a full stop and the end
of the text, so that it stops as a trained one does.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

#: In the order of OpenAI's tokenizer for English: the end first, time stamps every 20 ms last.
_SPECIAL = [
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>", *(f"<|{index / 50:.2f}|>" for index in range(1501)),
]  # fmt: skip


def save_transformers(folder: Path, *, seed: int = 0) -> Path:
    """A checkpoint as transformers saves one."""
    from transformers import (
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    ids = {token: tokenizer.token_to_id(token) for token in _SPECIAL}
    end = ids["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=80,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config.alignment_heads = [[1, 0]]
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    ).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def save(folder: Path, *, seed: int = 0) -> Path:
    """The same, converted: what faster-whisper reads."""
    from ctranslate2.converters import TransformersConverter

    source = folder.with_name(folder.name + "-transformers")
    save_transformers(source, seed=seed)
    converter = TransformersConverter(str(source), copy_files=["tokenizer.json", "preprocessor_config.json"])
    converter.convert(str(folder), quantization="int8", force=True)
    shutil.rmtree(source)
    return folder


def _tokenizer() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    return made
