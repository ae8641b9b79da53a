"""TRL's GRPO, with eyes.

TRL's GRPOTrainer hands clips to generation and drops them everywhere else: the log-probs of the
policy, the old policy and the reference are then taken of placeholder tokens without a picture, and
nothing fails. `VideoGRPOTrainer` keeps each row's processed clip or image beside the row and gives
it to every forward pass. It overrides four methods and copies none of TRL's code:

    _tokenize_prompts                   process each prompt with its clip, once per group
    _get_per_token_logps_and_entropies  pass the clips, row by row, to each forward pass
    _generate_and_score_completions     put the clips into the batch that is shuffled and split
    _compute_loss                       take them out again

Clips, images and text-only prompts may share a batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import IterableDataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from p2r_lib.models import use_trained_positions
from p2r_lib.training.checkpoints import ExactResume
from p2r_lib.training.data import (
    VISION_TOKENS,
    Encoded,
    Encoder,
    LoadMedia,
    default_loader,
    vision_inputs,
)


@dataclass
class VideoGRPOConfig(GRPOConfig):
    """TRL's GRPOConfig and how clips are read."""

    num_frames: int = field(
        default=16, metadata={"help": "Frames sampled uniformly from each clip."}
    )
    max_pixels_per_frame: int = field(
        default=128 * 28 * 28,
        metadata={"help": "Most pixels of a frame (or an image); larger ones are scaled down."},
    )
    prompt_cache_size: int = field(
        default=32,
        metadata={"help": "Processed prompts kept in memory, clips included, besides the batch's."},
    )


class VideoGRPOTrainer(ExactResume, GRPOTrainer):
    """TRL's GRPOTrainer for rows with a clip or an image (see `data.row`).

    `load_media(row)` reads a row's clip; by default from the row's `media` file with the config's
    `num_frames` and `max_pixels_per_frame`. The other arguments are TRL's, without tools, rollout
    functions and environments, whose turns have no place for clips.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: VideoGRPOConfig,
        *,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        load_media: LoadMedia | None = None,
        **trl_arguments: Any,
    ) -> None:
        refuse(video_conflicts(args, trl_arguments, train_dataset, eval_dataset))
        refuse(save_conflicts(args))
        if not isinstance(train_dataset, IterableDataset):
            refuse(size_conflicts(args, len(train_dataset)))
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **trl_arguments,
        )
        for policy in filter(None, (self.model, self.ref_model)):
            use_trained_positions(policy)
        self._suppress_vision_tokens()
        self._encode = Encoder(
            self.processing_class,
            load_media or default_loader(args.num_frames, args.max_pixels_per_frame),
            size=args.prompt_cache_size,
            **self.chat_template_kwargs,
        )
        self._rows: list[dict[str, Any]] = []
        self._vision: list[Encoded] = []

    def _suppress_vision_tokens(self) -> None:
        vocabulary = self._tokenizer.get_vocab()
        ids = {vocabulary[token] for token in VISION_TOKENS if token in vocabulary}
        self._vision_ids = torch.tensor(sorted(ids))
        ids |= set(self.generation_kwargs.get("suppress_tokens") or ())
        self.generation_kwargs["suppress_tokens"] = sorted(ids)
        self.generation_config.suppress_tokens = sorted(ids)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = inputs
        output = super()._generate_and_score_completions(inputs)
        output["vision"] = self._vision
        self._rows, self._vision = [], []
        return output

    def _tokenize_prompts(self, prompts: list) -> tuple[list, None, dict[str, Any]]:
        if len(prompts) != len(self._rows):
            raise RuntimeError(f"{len(prompts)} prompts for {len(self._rows)} rows")
        self._vision = self._encode(self._rows)
        self._require_one_kind_if_sharded()
        fields = vision_inputs(self._vision)
        fields["mm_token_type_ids"] = [prompt.token_types for prompt in self._vision]
        return [prompt.input_ids for prompt in self._vision], None, fields

    def _require_one_kind_if_sharded(self) -> None:
        """Sharded parameters are gathered in step: all processes must run the same modules."""
        if not (self.is_fsdp_enabled or self._dist.is_zero3):
            return
        found = gather_object([(prompt.kind or "text", prompt.name) for prompt in self._vision])
        example = dict(found)
        if len(example) > 1:
            rows = "; ".join(f"{kind}: {name}" for kind, name in example.items())
            raise ValueError(
                "under FSDP or ZeRO-3 all rows of a generation batch must be of one kind, else "
                f"the processes wait for each other forever; found {rows}. Sort the data by kind "
                "with shuffle_dataset=False, or train on one kind"
            )

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if len(self._vision) != len(input_ids):
            raise RuntimeError(f"{len(input_ids)} rows, but the clips of {len(self._vision)}")
        kwargs.pop("mm_token_type_ids", None)
        self._check_completions(input_ids[:, -logits_to_keep:])
        types = token_types(self._vision, input_ids, logits_to_keep)
        chunks = []
        size = batch_size or len(input_ids)
        for start in range(0, len(input_ids), size):
            rows = slice(start, start + size)
            vision = vision_inputs(self._vision[rows])
            vision = {name: value.to(input_ids.device) for name, value in vision.items()}
            chunks.append(
                super()._get_per_token_logps_and_entropies(
                    functools.partial(model, **vision),
                    input_ids[rows],
                    attention_mask[rows],
                    logits_to_keep,
                    mm_token_type_ids=types[rows],
                    **kwargs,
                )
            )
        logps, entropies, aux_losses = zip(*chunks, strict=True)
        return (
            torch.cat(logps),
            None if entropies[0] is None else torch.cat(entropies),
            None if aux_losses[0] is None else torch.stack(aux_losses).mean(),
        )

    def _check_completions(self, completion_ids: Tensor) -> None:
        """Raises ValueError, naming the sample, if a completion holds a vision token."""
        found = torch.isin(completion_ids, self._vision_ids.to(completion_ids.device)).any(dim=1)
        for row in found.nonzero().flatten().tolist():
            raise ValueError(
                f"{self._vision[row].name}: its completion holds a vision token, which has no "
                f"picture; these must be suppressed while generating: {', '.join(VISION_TOKENS)}"
            )

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._vision = inputs["vision"]
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._vision = []


def token_types(prompts: Sequence[Encoded], input_ids: Tensor, completion_length: int) -> Tensor:
    """mm_token_type_ids (B, T) of left-padded prompts and their completions, which are text."""
    types = torch.zeros_like(input_ids)
    end = input_ids.shape[1] - completion_length
    for row, prompt in enumerate(prompts):
        own = torch.tensor(prompt.token_types, device=types.device)
        types[row, end - len(own) : end] = own
    return types


def video_conflicts(args: Any, trl_arguments: dict, *datasets: Any) -> Iterator[str]:
    """Reasons why these settings cannot train on clips."""
    for name in ("tools", "rollout_func", "environment_factory"):
        if trl_arguments.get(name):
            yield f"{name}: clips are given once, with the prompt, and turns that follow see none"
    if args.use_vllm:
        yield "use_vllm=True: TRL hands vLLM images only, so it would generate without the clip"
    for columns in (getattr(data, "column_names", None) or () for data in datasets):
        for name in {"image", "images"} & set(columns):
            yield f"column {name!r}: TRL would add it to the prompt again; name the file in 'media'"


def save_conflicts(args: Any) -> Iterator[str]:
    """The reason why checkpoints would lose responses: a generation batch feeds whole windows."""
    window, update = (
        args.steps_per_generation * args.num_iterations,
        args.gradient_accumulation_steps,
    )
    every = math.lcm(window, update) // update
    if args.save_strategy == "steps" and args.save_steps % every:
        yield (
            f"save_steps={args.save_steps}: responses serve every {every} updates "
            f"(steps_per_generation {args.steps_per_generation} x num_iterations "
            f"{args.num_iterations} / gradient_accumulation_steps {update}), and those of a window "
            f"that a checkpoint cuts are lost; use a multiple of {every}"
        )


def size_conflicts(args: Any, prompts: int) -> Iterator[str]:
    """The reason why a training set is too small; TRL would take no step and say nothing."""
    needed = args.generation_batch_size // args.num_generations
    if prompts < needed:
        yield (
            f"{prompts} prompts, but a generation batch takes {needed} (generation_batch_size "
            f"{args.generation_batch_size} / num_generations {args.num_generations})"
        )


def refuse(reasons: Iterator[str]) -> None:
    """Raises ValueError with all the reasons, if there are any."""
    reasons = list(reasons)
    if reasons:
        raise ValueError("cannot train with these settings:\n- " + "\n- ".join(reasons))
