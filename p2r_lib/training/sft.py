"""Supervised fine-tuning on process-aware responses: TRL's SFTTrainer with a collator for clips.

TRL prepares datasets of text and images; clips it does not know. So its preparation is skipped, and
`ResponseCollator` builds each batch from paths and text with the real processor. The loss, fused
head, adapters, logging and checkpoints stay TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from p2r_lib.models import use_trained_positions
from p2r_lib.training.checkpoints import ExactResume
from p2r_lib.training.data import (
    Encoded,
    Encoder,
    LoadMedia,
    Row,
    default_loader,
    name_of,
    vision_inputs,
)

IGNORED = -100
"""The label of a token that is not learnt."""


@dataclass
class VideoSFTConfig(SFTConfig):
    """TRL's SFTConfig and how clips are read. `max_length` is None: nothing is cut."""

    max_length: int | None = field(
        default=None,
        metadata={"help": "Most tokens of a row. A longer row loses the end of its response."},
    )
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Must stay False: the collator reads paths and text."}
    )
    num_frames: int = field(
        default=16, metadata={"help": "Frames sampled uniformly from each clip."}
    )
    max_pixels_per_frame: int = field(
        default=128 * 28 * 28,
        metadata={"help": "Most pixels of a frame (or an image); larger ones are scaled down."},
    )
    prompt_cache_size: int = field(
        default=0, metadata={"help": "Processed prompts kept in memory from batch to batch."}
    )


class VideoSFTTrainer(ExactResume, SFTTrainer):
    """TRL's SFTTrainer for `data.row`s, whose `response` it learns: clips, images or text alone.

    `load_media(row)` reads a row's clip; by default from the row's `media` file with the config's
    `num_frames` and `max_pixels_per_frame`.
    """

    def __init__(
        self,
        model: Any,
        args: VideoSFTConfig,
        train_dataset: Any,
        *,
        processing_class: Any,
        load_media: LoadMedia | None = None,
        **trl_arguments: Any,
    ) -> None:
        for name in ("packing", "padding_free", "assistant_only_loss", "remove_unused_columns"):
            if getattr(args, name):
                raise ValueError(f"{name}=True: rows with clips are padded, one response each")
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        encoder = Encoder(
            processing_class,
            load_media or default_loader(args.num_frames, args.max_pixels_per_frame),
            size=args.prompt_cache_size,
        )
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            data_collator=ResponseCollator(
                encoder, processing_class.tokenizer, max_length=args.max_length
            ),
            **trl_arguments,
        )
        use_trained_positions(self.model)


class ResponseCollator:
    """Rows -> the model's inputs and labels, right-padded; only responses have labels.

    A sequence is the prompt up to where its response begins, the response, and the end token. It is
    put together from ids, so that the response is cut into tokens as the policy will emit them.
    """

    def __init__(self, encoder: Encoder, tokenizer: Any, *, max_length: int | None = None) -> None:
        self._encode, self._tokenizer, self._max_length = encoder, tokenizer, max_length

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        prompts = self._encode(rows)
        pairs = zip(prompts, rows, strict=True)
        responses = [self._response(prompt, row) for prompt, row in pairs]
        return {
            **padded(prompts, responses, self._tokenizer.pad_token_id),
            **vision_inputs(prompts),
        }

    def _response(self, prompt: Encoded, row: Row) -> list[int]:
        """The response's ids and the end token, cut to `max_length` together with the prompt."""
        if not row.get("response"):
            raise ValueError(f"{name_of(row)}: no response to learn")
        ids = self._tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        if special := set(ids) & set(self._tokenizer.all_special_ids):
            names = self._tokenizer.convert_ids_to_tokens(sorted(special))
            raise ValueError(f"{name_of(row)}: special tokens in the response: {', '.join(names)}")
        ids = [*ids, self._tokenizer.eos_token_id]
        room = len(ids) if self._max_length is None else self._max_length - len(prompt.input_ids)
        if room <= 0:
            raise ValueError(
                f"{name_of(row)}: the prompt alone has {len(prompt.input_ids)} tokens; raise "
                f"max_length={self._max_length}, or take fewer frames or pixels"
            )
        return ids[:room]


def padded(
    prompts: Sequence[Encoded], responses: Sequence[Sequence[int]], pad_id: int
) -> dict[str, Tensor]:
    """input_ids, attention_mask, mm_token_type_ids and labels, each (B, T), padded on the right."""
    rows = {"input_ids": [], "attention_mask": [], "mm_token_type_ids": [], "labels": []}
    for prompt, response in zip(prompts, responses, strict=True):
        rows["input_ids"].append([*prompt.input_ids, *response])
        rows["attention_mask"].append([1] * (len(prompt.input_ids) + len(response)))
        rows["mm_token_type_ids"].append([*prompt.token_types, *[0] * len(response)])
        rows["labels"].append([IGNORED] * len(prompt.input_ids) + list(response))
    fill = {"input_ids": pad_id, "labels": IGNORED}
    return {
        name: torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(value) for value in values],
            batch_first=True,
            padding_value=fill.get(name, 0),
        )
        for name, values in rows.items()
    }
