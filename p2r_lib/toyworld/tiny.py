"""A tiny Qwen2.5-VL: the real classes, processor and chat format, about a million parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import (
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2Tokenizer,
    )

CELL_PIXELS = 28
"""One grid cell is one visual token: a patch of 14 pixels, merged two by two."""

_END_OF_TEXT = "<|endoftext|>"
_SPECIAL = (
    _END_OF_TEXT,
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(corpus: Iterable[str], *, vocab_size: int = 768) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer of Qwen's class, trained on a corpus.

    Template tags are ordinary text, cut into several tokens as Qwen's own tokenizer cuts them.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    shell = Qwen2Tokenizer()
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = shell.backend_tokenizer.pre_tokenizer
    trained.normalizer, trained.decoder = normalizers.NFC(), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(corpus, trainer)
    return _as_qwen(trained)


def _as_qwen(trained) -> Qwen2Tokenizer:
    import json

    from transformers import Qwen2Tokenizer

    model = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        eos_token="<|im_end|>",
        pad_token=_END_OF_TEXT,
        extra_special_tokens=list(_SPECIAL),
        padding_side="left",
        model_max_length=2048,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def build_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """The real processor around a tokenizer; clips reach it already sampled and sized."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = {"shortest_edge": CELL_PIXELS**2, "longest_edge": 16 * 64 * CELL_PIXELS**2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        tokenizer=tokenizer,
        chat_template=_CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: Qwen2Tokenizer, *, seed: int = 0, hidden_size: int = 128, layers: int = 4
) -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised Qwen2.5-VL that reads this tokenizer's ids (float32, on the CPU)."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from p2r_lib.models import use_trained_positions

    ids = dict(zip(_SPECIAL, tokenizer.convert_tokens_to_ids(list(_SPECIAL)), strict=True))
    heads = hidden_size // 32
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden_size,
            "intermediate_size": 3 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": ids[_END_OF_TEXT],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids[_END_OF_TEXT],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": hidden_size // 2,
            "intermediate_size": hidden_size,
            "num_heads": 4,
            "out_hidden_size": hidden_size,
            "fullatt_block_indexes": [1],
            "window_size": 4 * CELL_PIXELS,
            "tokens_per_second": 2,
        },
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids[_END_OF_TEXT]
    return use_trained_positions(model.eval())
