"""Answers of a model to questions about clips and images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2r_lib.samples import VideoQA
from p2r_lib.template import build_prompt, plain_prompt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

    from p2r_lib.training.data import Encoded, Encoder

PROMPTS: dict[str, Callable[..., str]] = {
    "process-aware": build_prompt,
    "plain": plain_prompt,
}

# The paper's setting for inference; its training shows 16 frames of 128 * 28 * 28 pixels.
PAPER_NUM_FRAMES = 32
PAPER_MAX_PIXELS = 256 * 28 * 28
PAPER_TEMPERATURE = 0.01
PAPER_TOP_P = 0.001
MAX_NEW_TOKENS = 1024
"""The paper states no limit; its length targets, 320 + 512 tokens, must fit."""


@dataclass(frozen=True)
class Completion:
    """A model's response to one sample.

    `token_ids` end with the end-of-turn token, unless the response was `truncated` by the limit on
    new tokens; `text` is what they say, without special tokens.
    """

    sample_id: str
    text: str
    token_ids: tuple[int, ...]
    truncated: bool


def answer(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    samples: Sequence[VideoQA],
    *,
    media_root: str | Path | None,
    on_batch: Callable[[list[Completion]], None] | None = None,
    progress: bool = True,
    **settings: Any,
) -> list[Completion]:
    """One completion per sample, in the samples' order.

    `on_batch` is given each batch as it is finished, to be stored: nothing is lost if a later one
    fails. `settings` are those of `answer_batches`.
    """
    from tqdm.auto import tqdm

    found: dict[int, Completion] = {}
    batches = answer_batches(model, processor, samples, media_root=media_root, **settings)
    with tqdm(total=len(samples), desc="answering", unit="sample", disable=not progress) as bar:
        for indices, completions in batches:
            found.update(zip(indices, completions, strict=True))
            if on_batch is not None:
                on_batch(completions)
            bar.update(len(completions))
    return [found[index] for index in range(len(samples))]


def answer_batches(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    samples: Sequence[VideoQA],
    *,
    media_root: str | Path | None,
    prompt: str | Callable[..., str] = "process-aware",
    num_frames: int = PAPER_NUM_FRAMES,
    max_pixels: int = PAPER_MAX_PIXELS,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = PAPER_TEMPERATURE,
    top_p: float = PAPER_TOP_P,
    batch_size: int = 8,
    seed: int = 0,
) -> Iterator[tuple[list[int], list[Completion]]]:
    """Yields (indices into `samples`, their completions), batch by batch; videos and images apart.

    `prompt` names one of `PROMPTS` or is a function like `template.build_prompt`. Temperature 0 is
    greedy. Only `temperature` and `top_p` shape the sampling: the top-k and repetition penalty that
    a model's own generation config may hold are switched off. Each batch draws from its own seed
    and leaves the global random state as it was.

    Raises ValueError for an unknown prompt or settings out of range.
    """
    from p2r_lib.models import use_trained_positions
    from p2r_lib.training.data import Encoder, load_media, row

    if temperature < 0 or not 0 < top_p <= 1 or batch_size < 1:
        raise ValueError(
            f"temperature={temperature}, top_p={top_p}, batch_size={batch_size}: "
            "use temperature >= 0, 0 < top_p <= 1 and batch_size >= 1"
        )
    write = _prompt_function(prompt)
    use_trained_positions(model)
    load = functools.partial(load_media, num_frames=num_frames, max_pixels=max_pixels)
    encode: Encoder = Encoder(processor, load, size=batch_size)
    settings = _generation_settings(model, processor.tokenizer, temperature, top_p)
    settings["max_new_tokens"] = max_new_tokens
    order = sorted(range(len(samples)), key=lambda index: samples[index].data_type)
    for start, indices in _batches(order, samples, batch_size):
        rows = [row(samples[i], media_root=media_root, prompt=write) for i in indices]
        with _evaluating(model, seed=seed + start):
            responses = _generate(model, processor.tokenizer, encode(rows), settings)
        ids = [samples[i].sample_id for i in indices]
        yield (
            indices,
            [Completion(i, *response) for i, response in zip(ids, responses, strict=True)],
        )


def _prompt_function(prompt: str | Callable[..., str]) -> Callable[..., str]:
    if callable(prompt):
        return prompt
    if prompt not in PROMPTS:
        raise ValueError(f"unknown prompt {prompt!r}: use one of {', '.join(map(repr, PROMPTS))}")
    return PROMPTS[prompt]


def _batches(
    order: Sequence[int], samples: Sequence[VideoQA], size: int
) -> Iterator[tuple[int, list[int]]]:
    """(position in `order`, indices) of batches of one data type each."""
    start = 0
    while start < len(order):
        kind = samples[order[start]].data_type
        batch = [i for i in order[start : start + size] if samples[i].data_type == kind]
        yield start, batch
        start += len(batch)


def _generation_settings(
    model: PreTrainedModel, tokenizer: Any, temperature: float, top_p: float
) -> dict[str, Any]:
    """Arguments of `generate`. A vision token in a response would stand for a picture not there."""
    from p2r_lib.training.video_grpo import VISION_TOKENS

    vocabulary = tokenizer.get_vocab()
    sampling = temperature > 0
    return {
        "do_sample": sampling,
        "temperature": temperature if sampling else 1.0,
        "top_p": top_p if sampling else 1.0,
        "top_k": 0 if sampling else 50,  # 50 is the library's default, which greedy search ignores
        "repetition_penalty": 1.0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": _end_ids(model, tokenizer),
        "suppress_tokens": sorted(vocabulary[t] for t in VISION_TOKENS if t in vocabulary),
    }


def _end_ids(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    """Ids that end a response: the tokenizer's, and those that the model was released with."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return sorted({tokenizer.eos_token_id, *own} - {None})


@contextmanager
def _evaluating(model: PreTrainedModel, *, seed: int) -> Iterator[None]:
    """Evaluation mode without gradients, random draws from `seed`; all put back afterwards."""
    import torch

    training = model.training
    device = model.device
    forked = [device] if device.type != "cpu" else []
    with torch.no_grad(), torch.random.fork_rng(forked, device_type=_fork_type(device)):
        torch.manual_seed(seed)
        model.eval()
        try:
            yield
        except torch.OutOfMemoryError as error:
            error.add_note("Lower batch_size, num_frames, max_pixels or max_new_tokens.")
            raise
        finally:
            model.train(training)


def _fork_type(device: Any) -> str:
    return "cuda" if device.type == "cpu" else device.type


def _generate(
    model: PreTrainedModel, tokenizer: Any, prompts: Sequence[Encoded], settings: dict[str, Any]
) -> list[tuple[str, tuple[int, ...], bool]]:
    """(text, token ids, truncated) of one response per prompt."""
    inputs = {name: tensor.to(model.device) for name, tensor in _inputs(tokenizer, prompts).items()}
    output = model.generate(**inputs, **settings)
    completions = output[:, inputs["input_ids"].shape[1] :].tolist()
    return [_trim(tokenizer, ids, settings["eos_token_id"]) for ids in completions]


def _inputs(tokenizer: Any, prompts: Sequence[Encoded]) -> dict[str, Tensor]:
    """The model's inputs for a batch, padded on the left so that every response starts at once."""
    import torch

    from p2r_lib.training.data import vision_inputs

    width = max(len(prompt.input_ids) for prompt in prompts)

    def padded(rows: list[list[int]], value: int) -> Tensor:
        return torch.tensor([[value] * (width - len(row)) + row for row in rows])

    return {
        "input_ids": padded([p.input_ids for p in prompts], tokenizer.pad_token_id),
        "attention_mask": padded([[1] * len(p.input_ids) for p in prompts], 0),
        "mm_token_type_ids": padded([p.token_types for p in prompts], 0),
        **vision_inputs(prompts),
    }


def _trim(
    tokenizer: Any, ids: list[int], end_ids: Sequence[int]
) -> tuple[str, tuple[int, ...], bool]:
    """A response up to its end; past it stands padding only."""
    ends = [place for place, token in enumerate(ids) if token in end_ids]
    finished = bool(ends)
    ids = ids[: ends[0] + 1] if finished else ids
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text, tuple(ids), not finished
