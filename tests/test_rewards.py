"""The rewards of the two processes: the design's table, part by part."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2r_lib.rewards import (
    RewardConfig,
    RewardParts,
    needs_judge,
    perception_reward,
    reasoning_reward,
)
from p2r_lib.template import format_response, parse

GOOD = format_response("a red ball", "it is red", "A")
RESPONSES = {
    "good": parse(GOOD),
    "truncated": parse(GOOD, truncated=True),
    "no observation": parse("<think>t</think><answer>A</answer>"),
    "observation never closed": parse("<observation>o<think>t</think><answer>A</answer>"),
    "observation never opened": parse("o</observation><think>t</think><answer>A</answer>"),
    "observation empty": parse("<observation></observation><think>t</think><answer>A</answer>"),
    "text before observation": parse("hm " + GOOD),
    "no think": parse("<observation>o</observation><answer>A</answer>"),
    "no answer": parse("<observation>o</observation><think>t</think>"),
    "nothing": parse(""),
}


def parts(reward):
    return (reward.accuracy, reward.format, reward.length)


@pytest.mark.parametrize(
    "name, sufficient, tokens, want",
    [
        ("good", True, 200, (1.0, 1.0, 0.2)),
        ("good", True, 128, (1.0, 1.0, 0.2)),
        ("good", True, 320, (1.0, 1.0, 0.2)),
        ("good", True, 127, (1.0, 1.0, 0.0)),
        ("good", True, 321, (1.0, 1.0, 0.0)),
        ("good", False, 200, (0.0, 1.0, 0.0)),
        ("truncated", True, 200, (1.0, 1.0, 0.2)),
        ("text before observation", True, 200, (1.0, 0.0, 0.0)),
        ("no think", True, 200, (1.0, 1.0, 0.2)),
        ("no observation", True, 200, (0.0, 0.0, 0.0)),
        ("no observation", None, 200, (0.0, 0.0, 0.0)),
        ("observation never closed", True, 200, (0.0, 0.0, 0.0)),
        ("observation never opened", None, 200, (0.0, 0.0, 0.0)),
        ("observation empty", None, 200, (0.0, 0.0, 0.0)),
        ("nothing", None, 0, (0.0, 0.0, 0.0)),
    ],
)
def test_perception(name, sufficient, tokens, want):
    got = perception_reward(RESPONSES[name], sufficient=sufficient, num_tokens=tokens)
    assert parts(got) == want and got.total == pytest.approx(sum(want))


@pytest.mark.parametrize(
    "name, accuracy, tokens, want",
    [
        ("good", 1.0, 400, (1.0, 1.0, 0.2)),
        ("good", 0.3, 320, (0.3, 1.0, 0.2)),  # a partial score is not zero
        ("good", 1.0, 512, (1.0, 1.0, 0.2)),
        ("good", 1.0, 319, (1.0, 1.0, 0.0)),
        ("good", 1.0, 513, (1.0, 1.0, 0.0)),
        ("good", 0.0, 400, (0.0, 1.0, 0.0)),
        ("truncated", 1.0, 400, (1.0, 0.0, 0.0)),
        ("no think", 1.0, 400, (1.0, 0.0, 0.0)),
        ("no answer", 1.0, 400, (0.0, 0.0, 0.0)),  # no answer earns nothing
        ("no observation", 1.0, 400, (1.0, 1.0, 0.2)),  # perception's fault alone
        ("observation never closed", 1.0, 400, (1.0, 1.0, 0.2)),
        ("nothing", 0.0, 0, (0.0, 0.0, 0.0)),
    ],
)
def test_reasoning(name, accuracy, tokens, want):
    got = reasoning_reward(RESPONSES[name], accuracy=accuracy, num_tokens=tokens)
    assert parts(got) == want and got.total == pytest.approx(sum(want))


def test_only_an_observation_is_judged():
    judged = {name for name, response in RESPONSES.items() if needs_judge(response)}
    assert judged == {"good", "truncated", "text before observation", "no think", "no answer"}


def test_a_failed_judge_is_unknown_not_zero():
    got = perception_reward(RESPONSES["good"], sufficient=None, num_tokens=200)
    assert math.isnan(got.accuracy) and math.isnan(got.length) and math.isnan(got.total)
    assert got.format == 1.0


@pytest.mark.parametrize(
    "name, tokens, length_is_known",
    [("good", 200, False), ("good", 1, True), ("text before observation", 200, True)],
)
def test_length_is_unknown_only_if_the_failed_verdict_decides_it(name, tokens, length_is_known):
    got = perception_reward(RESPONSES[name], sufficient=None, num_tokens=tokens)
    assert got.length == 0.0 if length_is_known else math.isnan(got.length)


@pytest.mark.parametrize("switches", list(itertools.product([True, False], repeat=3)))
def test_switches_take_parts_out_of_the_total_only(switches):
    config = RewardConfig(**dict(zip(("accuracy", "format", "length"), switches, strict=True)))
    got = perception_reward(RESPONSES["good"], sufficient=True, num_tokens=200, config=config)
    assert parts(got) == (1.0, 1.0, 0.2)
    want = sum(x for x, on in zip((1.0, 1.0, 0.2), switches, strict=True) if on)
    assert got.total == pytest.approx(want)


def test_length_asks_for_accuracy_and_format_even_if_they_are_switched_off():
    only_length = RewardConfig(accuracy=False, format=False)
    insufficient = perception_reward(
        RESPONSES["good"], sufficient=False, num_tokens=200, config=only_length
    )
    malformed = reasoning_reward(
        RESPONSES["truncated"], accuracy=1.0, num_tokens=400, config=only_length
    )
    assert insufficient.total == malformed.total == 0.0


def test_a_failed_judge_spreads_only_through_parts_that_are_on():
    def total(**switches):
        config = RewardConfig(**switches)
        return perception_reward(
            RESPONSES["good"], sufficient=None, num_tokens=200, config=config
        ).total

    assert math.isnan(total(length=False))
    assert math.isnan(total(accuracy=False))
    assert total(accuracy=False, length=False) == 1.0


def test_each_process_has_its_own_range():
    config = RewardConfig(perception_length=(1, 2), reasoning_length=(3, 4), length_bonus=0.5)
    p = [perception_reward(RESPONSES["good"], sufficient=True, num_tokens=n, config=config)
         for n in range(6)]  # fmt: skip
    r = [reasoning_reward(RESPONSES["good"], accuracy=1.0, num_tokens=n, config=config)
         for n in range(6)]  # fmt: skip
    assert [x.length for x in p] == [0, 0.5, 0.5, 0, 0, 0]
    assert [x.length for x in r] == [0, 0, 0, 0.5, 0.5, 0]


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="perception_length"):
        RewardConfig(perception_length=(320, 128))
    for accuracy in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            reasoning_reward(RESPONSES["good"], accuracy=accuracy, num_tokens=1)


def test_parts_alone_sum_to_their_total():
    assert RewardParts(1.0, 1.0, 0.2).total == pytest.approx(2.2)
    assert RewardParts(0.0, 0.0, 0.0).total == 0.0


tags = st.sampled_from(
    ["<observation>", "</observation>", "<think>", "</think>", "<answer>", "</answer>", "a", " "]
)


@given(
    st.lists(tags, max_size=12).map("".join),
    st.booleans(),
    st.sampled_from([True, False, None]),
    st.floats(0, 1),
    st.integers(0, 1024),
)
def test_rewards_of_any_response_are_bounded(text, truncated, sufficient, accuracy, tokens):
    response = parse(text, truncated=truncated)
    p = perception_reward(response, sufficient=sufficient, num_tokens=tokens)
    r = reasoning_reward(response, accuracy=accuracy, num_tokens=tokens)
    assert math.isnan(p.total) == (sufficient is None and needs_judge(response))
    assert math.isnan(p.total) or 0 <= p.total <= 2.2
    assert 0 <= r.total <= 2.2
    for parts in (p, r):
        assert not parts.length or (parts.accuracy and parts.format)
    if "</observation>" not in text:
        assert p.total == 0
