"""The figures read what the trainer writes: its metrics' names, its rollouts' fields."""

from dataclasses import asdict

import pytest
import torch

from p2r_lib.advantages import token_advantages
from p2r_lib.course.figures import PARTS, PROCESSES, credit_lanes, token_credit_figure
from p2r_lib.rewards import RewardConfig
from p2r_lib.samples import VideoQA
from p2r_lib.template import format_response
from p2r_lib.toyworld.tiny import build_tokenizer
from p2r_lib.training.pa_grpo import collapse_metrics, rollout, row_metrics, score


@pytest.fixture(scope="module")
def scored():
    tokenizer = build_tokenizer(["<observation> <think> <answer>"] * 4, vocab_size=320)
    sample = VideoQA("1", "What?", "video", "free-form", (), "blue", "a.mp4")
    ids = tokenizer(format_response("a ball", "so blue", "blue") + "<|im_end|>").input_ids
    end_ids = [tokenizer.eos_token_id]
    config = RewardConfig()
    return score([sample], [ids], tokenizer=tokenizer, end_ids=end_ids, judge=None, config=config)[
        0
    ]


def test_every_metric_that_the_figures_read_is_logged(scored):
    logged = set(row_metrics(scored))
    assert {f"{process}/{part}" for process in PROCESSES for part in PARTS} <= logged
    shares = collapse_metrics(torch.zeros(4, 2), group_size=2, credit="process")
    assert {"collapsed/used", "collapsed/perception", "collapsed/reasoning"} <= set(shares)


def test_a_rollouts_lanes_are_the_advantages_the_trainer_used(scored):
    a_p, a_r = 1.25, -0.5
    weights = torch.tensor([scored.ownership])
    used = token_advantages(
        torch.tensor([a_p]), torch.tensor([a_r]), weights, torch.ones_like(weights)
    )[0].tolist()
    record = asdict(rollout(7, scored, a_p, a_r, used))
    lanes = credit_lanes(record)
    assert lanes["PA-GRPO"] == pytest.approx(record["advantages"]) == used
    assert set(lanes["GRPO"]) == {a_r}
    _, alt = token_credit_figure(record["tokens"], record["ownership"], lanes)
    assert f"{len(used)} tokens" in alt and "+1.25 for perception" in alt
