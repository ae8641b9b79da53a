"""Process-aware GRPO: perception and reasoning are rewarded apart, each on its own tokens.

For every generation batch the responses are parsed, all observations go to the judge in one call,
each process gets its reward (Eq. 5), the rewards are normalised per process within each group
(Eq. 6), and every token gets the advantage of the process that owns it:

    advantages (B, T) = w_P A_P + w_R A_R

which takes the place of TRL's (B,) advantages in TRL's own loss (Eq. 7). With `credit="outcome"`
the very same trainer is plain GRPO on the reasoning reward.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from p2r_lib import answers
from p2r_lib.advantages import (
    CREDITS,
    collapsed_groups,
    ownership_tensors,
    process_advantages,
    token_advantages,
)
from p2r_lib.judges.base import Judge, JudgeRequest, Verdict
from p2r_lib.rewards import (
    RewardConfig,
    RewardParts,
    needs_judge,
    perception_reward,
    reasoning_reward,
)
from p2r_lib.samples import VideoQA
from p2r_lib.template import Response, ownership, parse, token_bytes
from p2r_lib.training.data import sample_of
from p2r_lib.training.video_grpo import VideoGRPOConfig, VideoGRPOTrainer, refuse

REWARD_WEIGHTS = {
    "process": (1.0, 1.0),
    "outcome": (0.0, 1.0),
    "perception": (1.0, 0.0),
    "pooled": (1.0, 1.0),
}
"""What TRL's own sum over (R_P, R_R), which it logs as `reward`, counts under each credit."""


@dataclass
class PAGRPOConfig(VideoGRPOConfig):
    """VideoGRPOConfig, where credit goes, and the parts of each process's reward."""

    credit: str = field(
        default="process",
        metadata={
            "help": "Which reward speaks for which tokens: 'process' (PA-GRPO: each its own), "
            "'outcome' (GRPO: the reasoning reward on all), 'perception', or 'pooled' (their sum)."
        },
    )
    reward_accuracy: bool = field(default=True, metadata={"help": "Count the accuracy parts."})
    reward_format: bool = field(default=True, metadata={"help": "Count the format parts."})
    reward_length: bool = field(default=True, metadata={"help": "Count the length parts."})
    length_bonus: float = field(default=0.2, metadata={"help": "The length part's value."})
    perception_length_min: int = field(
        default=128, metadata={"help": "Fewest tokens of perception that earn the length bonus."}
    )
    perception_length_max: int = field(
        default=320, metadata={"help": "Most tokens of perception that earn the length bonus."}
    )
    reasoning_length_min: int = field(
        default=320, metadata={"help": "Fewest tokens of reasoning that earn the length bonus."}
    )
    reasoning_length_max: int = field(
        default=512, metadata={"help": "Most tokens of reasoning that earn the length bonus."}
    )
    log_rollouts_steps: int = field(
        default=0,
        metadata={
            "help": "Append a batch's rollouts to rollouts.jsonl every so many steps; 0: no."
        },
    )

    def reward_config(self) -> RewardConfig:
        """The settings above as `rewards` takes them."""
        return RewardConfig(
            accuracy=self.reward_accuracy,
            format=self.reward_format,
            length=self.reward_length,
            length_bonus=self.length_bonus,
            perception_length=(self.perception_length_min, self.perception_length_max),
            reasoning_length=(self.reasoning_length_min, self.reasoning_length_max),
        )


@dataclass(frozen=True)
class Scored:
    """One response, read and rewarded.

    `tokens` are the bytes of each token and `ownership` perception's weight w_P of each (T,).
    `verdict` is None where the judge was not asked.
    """

    sample: VideoQA
    token_ids: list[int]
    tokens: list[bytes]
    ownership: list[float]
    response: Response
    verdict: Verdict | None
    perception: RewardParts
    reasoning: RewardParts

    @property
    def perception_tokens(self) -> float:
        return sum(self.ownership)

    @property
    def reasoning_tokens(self) -> float:
        return len(self.ownership) - self.perception_tokens


@dataclass(frozen=True)
class Rollout:
    """A response with all that was made of it: what figures and logs show.

    `advantages` has one value per token; the rewards' parts are accuracy, format, length, total.
    """

    step: int
    problem_id: str
    sample_id: str
    text: str
    truncated: bool
    token_ids: list[int]
    tokens: list[str]
    ownership: list[float]
    problems: list[str]
    sufficient: bool | None
    explanation: str
    perception: dict[str, float]
    reasoning: dict[str, float]
    advantage_perception: float
    advantage_reasoning: float
    advantages: list[float]


class PAGRPOTrainer(VideoGRPOTrainer):
    """GRPO whose credit goes to the process that earned it.

    `train_dataset` holds `data.row`s. `judge` says whether an observation suffices; it may be None
    under `credit="outcome"` alone, and perception's accuracy is then unknown (NaN) in the log. The
    last batch's rollouts of this process stay in `last_rollouts`.
    """

    def __init__(
        self,
        model: Any,
        args: PAGRPOConfig,
        train_dataset: Any,
        *,
        judge: Judge | None,
        **arguments: Any,
    ) -> None:
        refuse(credit_conflicts(args, judge))
        super().__init__(
            model,
            [self._reward_function("perception"), self._reward_function("reasoning")],
            args,
            train_dataset=train_dataset,
            **arguments,
        )
        self.reward_weights = torch.tensor(REWARD_WEIGHTS[args.credit])
        self.judge = judge
        self.last_rollouts: list[Rollout] = []
        self._reward_config = args.reward_config()
        self._scored: list[Scored] = []
        self._advantages: tuple[Tensor, Tensor] | None = None
        self._next_rollout_log = 0

    def _reward_function(self, process: str) -> Any:
        """R_P or R_R as TRL calls it; both are made together, in `_calculate_rewards`."""

        def reward(**kwargs: Any) -> list[float]:
            return [getattr(scored, process).total for scored in self._scored]

        reward.__name__ = process
        return reward

    def _calculate_rewards(
        self, inputs: list, prompts: list, completions: list, completion_ids_list: list
    ) -> Tensor:
        self._scored = score(
            [sample_of(row) for row in inputs],
            completion_ids_list,
            tokenizer=self._tokenizer,
            end_ids=[*self.eos_token_ids, self._tokenizer.pad_token_id],
            judge=self.judge,
            config=self._reward_config,
        )
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        train = self.model.training
        group_size = self.num_generations if train else self.num_generations_eval
        everyone = process_advantages(*rewards.T, group_size=group_size, credit=self.args.credit)
        first = self.accelerator.process_index * len(inputs)
        own = slice(first, first + len(inputs))
        self._advantages = everyone[0][own], everyone[1][own]
        self._log_batch("train" if train else "eval", rewards, group_size)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        mask = output["completion_mask"]
        w_p, _ = ownership_tensors(
            [scored.tokens for scored in self._scored], length=mask.shape[1], device=mask.device
        )
        output["advantages"] = token_advantages(*self._advantages, w_p, mask)
        self.last_rollouts = self._rollouts(output["advantages"])
        self._write_rollouts()
        return output

    def _log_batch(self, mode: str, rewards: Tensor, group_size: int) -> None:
        """TRL's metrics, plus ours: means over all rows that have a value, on all processes."""
        rows = [row_metrics(scored) for scored in self._scored]
        table = torch.tensor([list(row.values()) for row in rows], device=rewards.device)
        table = self.accelerator.gather(table)
        metrics = dict(zip(rows[0], table.nanmean(dim=0).tolist(), strict=True))
        metrics["judge/cost"] *= metrics["judge/asked"] * len(table)  # of the whole batch
        metrics |= collapse_metrics(rewards, group_size=group_size, credit=self.args.credit)
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)
        for process, values in zip(("perception", "reasoning"), self._advantages, strict=True):
            self._log_completion_extra(f"advantage_{process}", values.tolist())

    def _rollouts(self, advantages: Tensor) -> list[Rollout]:
        a_p, a_r = (values.tolist() for values in self._advantages)
        rows = zip(self._scored, a_p, a_r, advantages.tolist(), strict=True)
        return [rollout(self.state.global_step, *row) for row in rows]

    def _write_rollouts(self) -> None:
        every, step = self.args.log_rollouts_steps, self.state.global_step
        if not every or not self.model.training or step < self._next_rollout_log:
            return
        self._next_rollout_log = step + every
        rollouts = gather_object(self.last_rollouts)
        if self.accelerator.is_main_process:
            folder = Path(self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / "rollouts.jsonl", "a", encoding="utf-8") as file:
                file.writelines(rollout_json(rollout) + "\n" for rollout in rollouts)


def score(
    samples: Sequence[VideoQA],
    completion_ids: Sequence[list[int]],
    *,
    tokenizer: Any,
    end_ids: Sequence[int],
    judge: Judge | None,
    config: RewardConfig,
) -> list[Scored]:
    """Parses, judges and rewards the responses to `samples`, given as token ids.

    A response that ends in none of `end_ids` is truncated. The judge is asked once, about every
    response with an observation; without a judge their accuracy is NaN.
    """
    pieces = [token_bytes(tokenizer, ids) for ids in completion_ids]
    responses = [
        parse(b"".join(row).decode("utf-8", "replace"), truncated=ids[-1] not in end_ids)
        for row, ids in zip(pieces, completion_ids, strict=True)
    ]
    verdicts = judged(samples, responses, judge)
    rows = zip(samples, completion_ids, pieces, responses, verdicts, strict=True)
    return [_scored(*row, config=config) for row in rows]


def judged(
    samples: Sequence[VideoQA], responses: Sequence[Response], judge: Judge | None
) -> list[Verdict | None]:
    """The verdict on each response, None for those that have no observation to judge."""
    verdicts: list[Verdict | None] = [None] * len(responses)
    asked = [i for i, response in enumerate(responses) if needs_judge(response)]
    if judge is None or not asked:
        return verdicts
    requests = [JudgeRequest(samples[i], responses[i].observation) for i in asked]
    given = judge.judge(requests)
    if len(given) != len(requests):
        raise RuntimeError(f"judge {judge.id}: {len(given)} verdicts on {len(requests)} requests")
    for i, verdict in zip(asked, given, strict=True):
        verdicts[i] = verdict
    return verdicts


def _scored(
    sample: VideoQA,
    token_ids: list[int],
    pieces: list[bytes],
    response: Response,
    verdict: Verdict | None,
    *,
    config: RewardConfig,
) -> Scored:
    weights = ownership(pieces)
    tokens_p = sum(weights)
    accuracy = answers.score(
        sample.problem_type, response.answer, sample.answer, options=sample.options
    )
    return Scored(
        sample=sample,
        token_ids=token_ids,
        tokens=pieces,
        ownership=weights,
        response=response,
        verdict=verdict,
        perception=perception_reward(
            response,
            sufficient=None if verdict is None else verdict.sufficient,
            num_tokens=tokens_p,
            config=config,
        ),
        reasoning=reasoning_reward(
            response, accuracy=accuracy, num_tokens=len(weights) - tokens_p, config=config
        ),
    )


def row_metrics(scored: Scored) -> dict[str, float]:
    """What is logged of one response; NaN where there is nothing to count."""
    response, verdict = scored.response, scored.verdict
    asked = verdict is not None
    metrics = {
        "perception/malformed": float(not response.perception_ok),
        "reasoning/malformed": float(not response.reasoning_ok),
        "perception/tokens": scored.perception_tokens,
        "reasoning/tokens": scored.reasoning_tokens,
        "perception/ownership": scored.perception_tokens / len(scored.ownership),
        "reasoning/ownership": scored.reasoning_tokens / len(scored.ownership),
        "truncated": float(response.truncated),
        "judge/asked": float(asked),
        "judge/failed": float(verdict.sufficient is None) if asked else math.nan,
        "judge/cached": float(verdict.cached) if asked else math.nan,
        "judge/latency": verdict.latency if asked else math.nan,
        "judge/cost": verdict.cost if asked else math.nan,
    }
    for process in ("perception", "reasoning"):
        parts = getattr(scored, process)
        for name in ("accuracy", "format", "length"):
            metrics[f"{process}/{name}"] = getattr(parts, name)
    return metrics


def collapse_metrics(rewards: Tensor, *, group_size: int, credit: str) -> dict[str, float]:
    """Fractions of groups that teach nothing, from (R_P, R_R) of all responses (N, 2).

    `collapsed/used` counts groups without any signal under `credit`.
    """
    p, r = rewards.T
    dead_p, dead_r, dead_sum = (
        collapsed_groups(values, group_size=group_size) for values in (p, r, p + r)
    )
    both = dead_p & dead_r
    used = {"process": both, "outcome": dead_r, "perception": dead_p, "pooled": dead_sum}[credit]
    counted = {"perception": dead_p, "reasoning": dead_r, "both": both, "used": used}
    return {f"collapsed/{name}": dead.float().mean().item() for name, dead in counted.items()}


def rollout(
    step: int,
    scored: Scored,
    advantage_p: float,
    advantage_r: float,
    advantages: Sequence[float],
) -> Rollout:
    """The record of one response; `advantages` may be padded."""
    verdict = scored.verdict
    return Rollout(
        step=step,
        problem_id=scored.sample.problem_id,
        sample_id=scored.sample.sample_id,
        text=scored.response.text,
        truncated=scored.response.truncated,
        token_ids=scored.token_ids,
        tokens=[piece.decode("utf-8", "replace") for piece in scored.tokens],
        ownership=scored.ownership,
        problems=list(scored.response.problems),
        sufficient=None if verdict is None else verdict.sufficient,
        explanation="" if verdict is None else verdict.error or verdict.explanation,
        perception=_parts(scored.perception),
        reasoning=_parts(scored.reasoning),
        advantage_perception=advantage_p,
        advantage_reasoning=advantage_r,
        advantages=list(advantages[: len(scored.token_ids)]),
    )


def _parts(parts: RewardParts) -> dict[str, float]:
    return {name: getattr(parts, name) for name in ("accuracy", "format", "length", "total")}


def rollout_json(rollout: Rollout) -> str:
    """One JSON line; NaN, which JSON has not, becomes null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(clean(asdict(rollout)), ensure_ascii=False)


def credit_conflicts(args: PAGRPOConfig, judge: Judge | None) -> Iterator[str]:
    """Reasons why these settings do not fit advantages per token and process."""
    if args.credit not in CREDITS:
        yield f"credit={args.credit!r}: use one of {', '.join(CREDITS)}"
        return
    if judge is None and args.credit != "outcome":
        yield f"judge=None: credit={args.credit!r} needs perception's reward; use 'outcome'"
    if args.importance_sampling_level != "token":
        yield (
            f"importance_sampling_level={args.importance_sampling_level!r}: one ratio for the "
            "whole response would mix the processes again; use 'token'"
        )
    if args.loss_type in ("luspo", "vespo"):
        yield (
            f"loss_type={args.loss_type!r}: it weights the whole response by one ratio, over both "
            "processes; use grpo, bnpo, dr_grpo, dapo, cispo or sapo"
        )
    if args.off_policy_mask_threshold is not None:
        yield (
            "off_policy_mask_threshold: it drops a response by the sign of its one advantage, and "
            "here a response has two"
        )
    if args.scale_rewards != "group" or args.multi_objective_aggregation != "sum_then_normalize":
        yield (
            "scale_rewards and multi_objective_aggregation: rewards are normalised per process "
            "within each group (Eq. 6); leave 'group' and 'sum_then_normalize'"
        )
    if args.reward_weights is not None:
        yield "reward_weights: `credit` sets them"
