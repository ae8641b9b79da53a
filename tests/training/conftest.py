"""A tiny random model, clips made on the spot, and trainers whose completions can be scripted."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from datasets import Dataset

from p2r_lib import models
from p2r_lib.judges.base import Verdict
from p2r_lib.media import Clip
from p2r_lib.rewards import RewardConfig
from p2r_lib.samples import VideoQA
from p2r_lib.template import build_prompt, format_response
from p2r_lib.training.data import dataset, row

torch.set_num_threads(1)

QUESTIONS = (  # kind, seconds between frames, question
    ("video", 0.5, "What colour is the ball?"),
    ("image", None, "Which word is written on the card that lies to the left of the ball?"),
    ("video", 1.0, "Where is it?"),
    ("video", 0.25, "Does the red square move before the blue ball does, or after it?"),
)


def make_samples(count):
    kinds = [QUESTIONS[i % len(QUESTIONS)] for i in range(count)]
    return [
        VideoQA(
            problem_id=str(i),
            problem=question,
            data_type=kind,
            problem_type="free-form",
            options=(),
            answer="red",
            path=f"{i}.mp4",
        )
        for i, (kind, _, question) in enumerate(kinds)
    ]


@pytest.fixture
def mixed(samples):
    """Five clips, two images and one question without a picture."""
    return Dataset.from_list(
        [row(sample, show_media=sample is not samples[-1]) for sample in samples]
    )


def make_media(row):
    """A clip of 4 to 8 random frames, or a random image, that depends on the row's id alone."""
    if row["prompt"][0]["content"][0]["type"] == "text":
        return None
    i = int(row["problem_id"])
    kind, spacing, _ = QUESTIONS[i % len(QUESTIONS)]
    rng = np.random.default_rng(i)
    if kind == "image":
        return rng.integers(0, 255, (84, 56, 3), dtype=np.uint8)
    count = 4 + 2 * (i % 3)
    times = spacing * np.arange(count)
    return Clip(
        frames=rng.integers(0, 255, (count, 56, 84, 3), dtype=np.uint8),
        timestamps=times,
        fps=1 / spacing,
        total_frames=count,
        duration=spacing * count,
        indices=np.arange(count),
        path=row["path"],
    )


def script(rng):
    """A response as a policy in training writes them: well formed, broken, or cut short."""

    def words():
        return " ".join(rng.choices(["the", "red", "ball", "is", "left", "of", "a", "square"], k=5))

    whole = format_response(words(), words(), rng.choice(["red", "blue"]))
    return rng.choice([whole, whole, whole[: rng.randrange(20, 120)], words()])


class ScriptedJudge:
    """Answers by the observation's length: yes, no, and now and then a failure."""

    id = "scripted"

    def __init__(self):
        self.calls = []

    def judge(self, requests):
        self.calls.append(list(requests))
        return [self._verdict(request.observation) for request in requests]

    def _verdict(self, observation):
        verdict = {0: True, 1: False, 2: True}.get(len(observation) % 4)
        error = "timeout" if verdict is None else None
        return Verdict(verdict, judge=self.id, error=error, latency=0.5, cost=0.25)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A saved tiny model whose attention is sharp enough for positions and pixels to matter."""
    from p2r_lib.toyworld.tiny import build_model, build_processor, build_tokenizer

    prompts = [build_prompt(question, data_type=kind) for kind, _, question in QUESTIONS]
    tokenizer = build_tokenizer([*prompts, script(random.Random(0))] * 4, vocab_size=400)
    model = build_model(tokenizer, hidden_size=64, layers=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name or "visual.merger" in name:
                parameter.mul_(8)
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def samples():
    return make_samples(8)


@pytest.fixture
def media():
    return make_media


@pytest.fixture
def judge():
    return ScriptedJudge()


def settings(tmp_path, **changes):
    """Arguments of a quick run in fp32 on one CPU: 4 prompts of 4 responses, 4 steps each."""
    return {
        "output_dir": str(tmp_path / "run"),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "num_generations": 4,
        "max_completion_length": 12,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **changes,
    }


class Scripted:
    """Replaces a trainer's completions by scripted ones, the same for the same seed and step."""

    script_seed = None

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        if self.script_seed is None:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        rank = self.accelerator.process_index
        rng = random.Random(1000 * self.script_seed + 10 * self.state.global_step + rank)
        rows = []
        for _ in prompt_ids:
            ids = self._tokenizer(script(rng)).input_ids
            rows.append(ids + [self._tokenizer.eos_token_id] * (rng.random() < 0.8))
        return rows, None


def make_rewards_equal(patch):
    """Perception's reward becomes reasoning's, in every response that a PAGRPOTrainer scores."""
    from p2r_lib.training import pa_grpo

    score = pa_grpo.score

    def same(*args, **kwargs):
        return [dataclasses.replace(s, perception=s.reasoning) for s in score(*args, **kwargs)]

    patch.setattr(pa_grpo, "score", same)


@pytest.fixture
def rewards_equal(monkeypatch):
    make_rewards_equal(monkeypatch)


def reasoning_reward(trainer_of):
    """R_R as a plain reward function for TRL; `trainer_of()` gives the trainer that calls it."""
    from p2r_lib.training.pa_grpo import sample_of, score

    names = {field.name for field in dataclasses.fields(VideoQA)}

    def reasoning(completion_ids, **columns):
        columns = {name: column for name, column in columns.items() if name in names}
        samples = [
            sample_of({name: column[i] for name, column in columns.items()})
            for i in range(len(completion_ids))
        ]
        tokenizer = trainer_of()._tokenizer
        ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
        options = {"tokenizer": tokenizer, "end_ids": ends, "config": RewardConfig()}
        scored = score(samples, completion_ids, judge=None, **options)
        return [one.reasoning.total for one in scored]

    return reasoning


@pytest.fixture
def reasoning_rewards():
    return reasoning_reward


@pytest.fixture
def make_pa(tiny_folder, samples, tmp_path):
    """Builds a PAGRPOTrainer; `texts` (a seed) replaces its completions by scripted ones."""

    def make(
        *, judge, texts=None, load_media=make_media, data=None, lora=None, nf4=False, **arguments
    ):
        from p2r_lib.training.pa_grpo import PAGRPOConfig, PAGRPOTrainer

        others = {k: arguments.pop(k) for k in ("eval_dataset",) if k in arguments}
        model, processor = models.load(tiny_folder, lora=lora, load_in_4bit=nf4)
        trainer = type("Trainer", (Scripted, PAGRPOTrainer), {})(
            model,
            PAGRPOConfig(**settings(tmp_path, **arguments)),
            dataset(samples) if data is None else data,
            judge=judge,
            processing_class=processor,
            load_media=load_media,
            **others,
        )
        trainer.script_seed = texts
        return trainer

    return make


def some_reward(completion_ids, **_):
    return [float(sum(ids) % 7) for ids in completion_ids]


@pytest.fixture
def make_grpo(tiny_folder, samples, tmp_path):
    """Builds a VideoGRPOTrainer with a reward that differs among the completions of a group."""

    def make(
        *, texts=None, lora=None, load_media=make_media, data=None, reward=some_reward, **arguments
    ):
        from p2r_lib.training.video_grpo import VideoGRPOConfig, VideoGRPOTrainer

        model, processor = models.load(tiny_folder, lora=lora)
        trl_arguments = {k: arguments.pop(k) for k in ("tools",) if k in arguments}
        trainer = type("Trainer", (Scripted, VideoGRPOTrainer), {})(
            model,
            reward,
            VideoGRPOConfig(**settings(tmp_path, **arguments)),
            train_dataset=dataset(samples) if data is None else data,
            processing_class=processor,
            load_media=load_media,
            **trl_arguments,
        )
        trainer.script_seed = texts
        return trainer

    return make
