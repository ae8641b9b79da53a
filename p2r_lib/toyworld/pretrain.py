"""Pretraining of the tiny base: it learns to see, to answer and to reason a little, no template.

It stands where the paper has Qwen2.5-VL-Instruct. Each example is a short chat: turns about one
clip (list the facts, find one fact, answer a question plainly) or, without a clip, reasoning from
stated facts. Tags of the process-aware template appear nowhere in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from p2r_lib.template import build_prompt, plain_prompt
from p2r_lib.toyworld.annotator import NO_ERRORS, Annotator, go_through, think_text
from p2r_lib.toyworld.language import say, say_all
from p2r_lib.toyworld.questions import (
    IMAGE_KINDS,
    KINDS,
    SIDES,
    Question,
    needed_facts,
    sample_question,
    solve,
)
from p2r_lib.toyworld.render import Look, render
from p2r_lib.toyworld.world import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    Fact,
    Motion,
    Place,
    Shown,
    Total,
    World,
    facts_of,
    sample_world,
)

if TYPE_CHECKING:
    import torch

Turn = tuple[str, str]
"""What the user says and what the assistant replies."""


@dataclass(frozen=True)
class Chat:
    """Turns about a world's clip, or about nothing but text when `world` is None."""

    turns: tuple[Turn, ...]
    world: World | None = None


@dataclass(frozen=True)
class Stage:
    """So many steps of one mix of chats.

    Attributes:
        single: worlds hold one thing, or words and nothing else.
        text_share: share of the chats that reason from stated facts, without a clip.
        drill_share: share of the chats that repeat text or look options up.
        step_share: share of the chats about a clip that answer a question step by step.
    """

    steps: int
    single: bool = False
    text_share: float = 0.15
    drill_share: float = 0.0
    step_share: float = 0.0


@dataclass(frozen=True)
class Course:
    """Stages under one learning rate schedule: warm-up, then cosine to zero."""

    name: str
    stages: tuple[Stage, ...]
    learning_rate: float


SEE = Course("learning to see", (Stage(360, single=True), Stage(2040)), 0.01)
READ = Course(
    "learning to read",
    (
        Stage(2000, text_share=0.8, drill_share=0.25, step_share=0.7),
        Stage(600, text_share=0.3, drill_share=0.15, step_share=0.5),
    ),
    0.01,
)

_ORDINARY = [
    "a",
    "an",
    "the",
    "is",
    "are",
    "at",
    "on",
    "in",
    "of",
    "and",
    "but",
    "not",
    "one",
    "two",
    "three",
    "I",
    "need",
    "to",
    "notice",
    "based",
    "question",
    "observation",
    "observations",
    "think",
    "answer",
    "reason",
    "from",
    "video",
    "image",
    "objects",
    "actions",
    "text",
    "shows",
    "positions",
    "what",
    "you",
    "see",
    "them",
    "check",
    "yourself",
    "letter",
    "number",
    "word",
    "words",
    "sentence",
    "part",
    "after",
    "first",
    "Based",
    "Only",
    "Write",
    "Reason",
    "right",
    "left",
    "option",
    "red",
    "blue",
    "circle",
    "square",
    "row",
    "column",
    "second",
    "1",
    "2",
    "3",
    "4",
]
_MARKUP = ("note", "list", "b", "i", "word", "name", "item", "text", "p")


def draw_chat(rng: random.Random, stage: Stage) -> Chat:
    """One chat of a stage of pretraining."""
    if stage.single:
        things, signs = rng.choice([(1, 0), (1, 0), (0, 1), (0, 2)])
        world = sample_world(rng, things=things, movers=rng.randint(0, things), signs=signs)
        return Chat((_listing(rng, world), *_probes(rng, world, 1)), world)
    if rng.random() < stage.drill_share:
        return Chat(rng.choice((_echoes, _look_ups))(rng))
    kind = rng.choice(KINDS)
    image = kind in IMAGE_KINDS and rng.random() < 0.5
    world, question = sample_question(rng, kind, data_type="image" if image else "video")
    if rng.random() < stage.text_share:
        return Chat((_reasoning(rng, world, question),))
    if rng.random() < stage.step_share:
        return Chat((_step_by_step(rng, world, question),), world)
    if rng.random() < 0.25:
        return Chat((_plain(world, question),), world)
    return Chat((*_probes(rng, world, 2), _listing(rng, world)), world)


def _echoes(rng: random.Random) -> tuple[Turn, ...]:
    """Words and markup of any kind, repeated: what a language model has met in ordinary text."""
    words = rng.choices(_ORDINARY, k=rng.randint(8, 20))
    for _ in range(2):
        first, last = sorted(rng.sample(range(len(words) + 1), 2))
        tag = rng.choice(_MARKUP)
        words[first:last] = [f"<{tag}>{' '.join(words[first:last])}</{tag}>"]
    text = " ".join(words) if rng.random() < 0.5 else "\n".join(words)
    return ((f"Repeat this.\n{text}", text),)


def _look_ups(rng: random.Random) -> tuple[Turn, ...]:
    """Which letter stands before an option, several times over one list."""
    names = [f"{colour} {rng.choice(SHAPES)}" for colour in COLOURS]
    options = tuple(rng.sample(rng.choice((names, list(DIRECTIONS), SIDES)), 4))
    question = Question("order", (), options)
    turns = [
        (f"Which option is {wanted}?", go_through(question, wanted))
        for wanted in rng.choices(options, k=3)
    ]
    listed = "\n".join([*question.lettered_options, *_filler(rng)])
    return ((f"{listed}\n{turns[0][0]}", turns[0][1]), *turns[1:])


def _filler(rng: random.Random) -> list[str]:
    """Lines of words about nothing, so that what matters may stand far back; or no line."""
    if rng.random() < 0.4:
        return []
    lines = [
        " ".join(rng.choices(_ORDINARY, k=rng.randint(1, 30))) for _ in range(rng.randint(1, 4))
    ]
    if rng.random() < 0.5:
        lines = ["", *(f"{i}. {line}." for i, line in enumerate(lines, 1))]
    for index in range(len(lines)):
        if lines[index] and rng.random() < 0.5:
            tag = rng.choice(_MARKUP)
            lines[index] += f" <{tag}>{rng.choice(_ORDINARY)} ...</{tag}>"
    return lines


def _listing(rng: random.Random, world: World) -> Turn:
    facts = facts_of(world)
    return f"List what the {world.data_type} shows.", say_all(rng.sample(facts, len(facts)))


def _probes(rng: random.Random, world: World, count: int) -> list[Turn]:
    facts = facts_of(world)
    return [(_probe(fact), say(fact)) for fact in rng.sample(facts, min(count, len(facts)))]


def _probe(fact: Fact) -> str:
    match fact:
        case Place(name):
            return f"Where is the {name} at the start?"
        case Motion(name):
            return f"What does the {name} do?"
        case Shown(_, second):
            return f"Which word appears at second {second}?"
        case Total():
            return "How many objects are there?"
    raise TypeError(f"not a fact: {fact!r}")


def _plain(world: World, question: Question) -> Turn:
    prompt = plain_prompt(
        question.text,
        question.lettered_options,
        problem_type=question.problem_type,
        data_type=world.data_type,
    )
    return prompt, question.answer(solve(question, world))


def _reasoning(rng: random.Random, world: World, question: Question) -> Turn:
    """Facts and a question in words, answered with reasoning; no clip."""
    facts = needed_facts(question, world)
    rng.shuffle(facts)
    asked = [say_all(facts), question.text, *question.lettered_options, *_filler(rng)]
    return "\n".join(asked), _steps_to(question, facts, world)


def _step_by_step(rng: random.Random, world: World, question: Question) -> Turn:
    """A question about a clip, answered with the facts it needs and reasoning from them."""
    facts = needed_facts(question, world)
    rng.shuffle(facts)
    asked = [question.text, *question.lettered_options, *_filler(rng), "Think step by step."]
    return "\n".join(asked), f"{say_all(facts)} {_steps_to(question, facts, world)}"


def _steps_to(question: Question, facts: list[Fact], world: World) -> str:
    conclusion = solve(question, world)
    steps = think_text(question, facts, conclusion)
    return f"{steps[0].upper()}{steps[1:]} Answer: {question.answer(conclusion)}"


def corpus(size: int = 4000, *, seed: int = 0) -> Iterator[str]:
    """Texts that the tokenizer is trained on: chats, prompts and process-aware responses."""
    rng = random.Random(seed)
    for index in range(size):
        for user, assistant in draw_chat(rng, Stage(1)).turns:
            yield from (user, assistant)
        world, question = sample_question(rng, KINDS[index % len(KINDS)])
        yield build_prompt(
            question.text, question.lettered_options, problem_type=question.problem_type
        )
        yield Annotator(NO_ERRORS).annotate(question, world, seed=index).text


def through_codec(frames: np.ndarray) -> np.ndarray:
    """Frames with colour at half resolution, as an mp4 keeps it."""
    return np.stack([_subsample(frame) for frame in frames])


def _subsample(frame: np.ndarray) -> np.ndarray:
    luma, *chroma = Image.fromarray(frame).convert("YCbCr").split()
    size = luma.size
    small = [c.resize((size[0] // 2, size[1] // 2), Image.Resampling.BOX) for c in chroma]
    back = [c.resize(size, Image.Resampling.BILINEAR) for c in small]
    return np.asarray(Image.merge("YCbCr", (luma, *back)).convert("RGB"))


def encode_chats(chats: list[Chat], processor, *, seed: int, look: Look) -> dict[str, torch.Tensor]:
    """Model inputs of a batch; labels (B, T) are the assistant's words, -100 elsewhere."""
    from transformers.video_utils import VideoMetadata

    media = [_media(chat, seed + i, look) for i, chat in enumerate(chats)]
    videos = [frames for kind, frames in media if kind == "video"]
    images = [frames[0] for kind, frames in media if kind == "image"]
    texts = [_chat_text(chat, kind) for chat, (kind, _) in zip(chats, media, strict=True)]
    clock = VideoMetadata(total_num_frames=4, fps=1.0, frames_indices=[0, 1, 2, 3], duration=4.0)
    batch = processor(
        text=texts,
        videos=videos or None,
        images=images or None,
        video_metadata=[clock] * len(videos) if videos else None,
        do_sample_frames=False,
        do_resize=False,
        cap_pixels_per_frame=False,
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    batch["labels"] = _labels(batch["input_ids"], processor.tokenizer)
    return dict(batch)


def _media(chat: Chat, seed: int, look: Look) -> tuple[str, np.ndarray | None]:
    if chat.world is None:
        return "text", None
    frames = render(chat.world, look=look, seed=seed)
    if chat.world.data_type == "image":
        return "image", frames
    return "video", through_codec(frames)


def _chat_text(chat: Chat, kind: str) -> str:
    pad = {"video": "<|video_pad|>", "image": "<|image_pad|>"}.get(kind)
    text = ""
    for index, (user, assistant) in enumerate(chat.turns):
        seen = f"<|vision_start|>{pad}<|vision_end|>" if pad and index == 0 else ""
        text += f"<|im_start|>user\n{seen}{user}<|im_end|>\n"
        text += f"<|im_start|>assistant\n{assistant}<|im_end|>\n"
    return text


def _labels(ids: torch.Tensor, tokenizer) -> torch.Tensor:
    """Copy of ids (B, T) with everything but the assistant's words and end tokens set to -100."""
    import torch

    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    role = tokenizer("assistant", add_special_tokens=False)["input_ids"]
    labels = torch.full_like(ids, -100)
    for row, sequence in enumerate(ids.tolist()):
        position = 0
        while start in sequence[position:]:
            begin = sequence.index(start, position) + 1
            stop = sequence.index(end, begin) + 1 if end in sequence[begin:] else len(sequence)
            if sequence[begin : begin + len(role)] == role:
                first = begin + len(role) + 1  # the line break after the role
                labels[row, first:stop] = ids[row, first:stop]
            position = stop
    return labels


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of `pretrain`; the defaults made the shipped base.

    Attributes:
        adam_ratio: AdamW's rate (embeddings, norms, biases) relative to Muon's (layers' matrices).
        bfloat16: compute in bfloat16 under autocast; weights stay float32.
    """

    courses: tuple[Course, ...] = (SEE, READ)
    batch_size: int = 48
    adam_ratio: float = 0.2
    bfloat16: bool = True
    seed: int = 0


class _Batches:
    """The encoded batches of one course, for a DataLoader; each depends on seed and step alone."""

    def __init__(self, course: Course, config: PretrainConfig, processor) -> None:
        self.course, self.config, self.processor = course, config, processor
        self.stages = [stage for stage in course.stages for _ in range(stage.steps)]

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{self.config.seed}/{self.course.name}/{step}")
        chats = [draw_chat(rng, self.stages[step]) for _ in range(self.config.batch_size)]
        look = Look(noise=rng.uniform(0, 6))
        return encode_chats(chats, self.processor, seed=rng.getrandbits(31), look=look)


def pretrain(output: Path, config: PretrainConfig = PretrainConfig(), *, workers: int = 1) -> None:
    """Train the tiny base from nothing and save model and processor (safetensors) to a folder."""
    from p2r_lib.toyworld.tiny import build_model, build_processor, build_tokenizer

    processor = build_processor(build_tokenizer(corpus(seed=config.seed)))
    model = build_model(processor.tokenizer, seed=config.seed)
    for course in config.courses:
        take(model, processor, course, config, workers=workers)
    model.save_pretrained(output)
    processor.save_pretrained(output)


def take(model, processor, course: Course, config: PretrainConfig, *, workers: int = 1) -> None:
    """Train a model through one course, in place."""
    import torch
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    steppers = _optimisers(model.train(), course, config)
    batches = DataLoader(_Batches(course, config, processor), batch_size=None, num_workers=workers)
    for batch in (progress := tqdm(batches, desc=course.name, unit="step", mininterval=5)):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
        model.zero_grad(set_to_none=True)
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


def _optimisers(model, course: Course, config: PretrainConfig) -> list:
    """Muon for the layers' matrices (it finds look-up circuits many times sooner), else AdamW."""
    import torch

    matrices, others = [], []
    for name, parameter in model.named_parameters():
        layer = parameter.ndim == 2 and "embed" not in name
        (matrices if layer else others).append(parameter)
    rate, steps = course.learning_rate, sum(stage.steps for stage in course.stages)
    optimisers = [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=config.adam_ratio * rate, betas=(0.9, 0.98)),
    ]
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            optimiser.param_groups[0]["lr"],
            total_steps=steps,
            pct_start=0.08,
            cycle_momentum=False,
        )
        for optimiser in optimisers
    ]
    return [*optimisers, *schedules]
