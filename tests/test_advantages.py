"""Advantages: hand-computed cases, the invariants of the design, and TRL's own formula."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from p2r_lib.advantages import (
    CREDITS,
    EPSILON,
    collapsed_groups,
    group_normalise,
    ownership_tensors,
    process_advantages,
    token_advantages,
)

settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault
settings.load_profile("no deadline")

NAN = math.nan
reward = st.sampled_from([0.0, 1.0, 2.0, 2.2, 0.1 + 0.2, 0.3, 1 / 3]) | st.floats(-3, 3, width=32)


@st.composite
def grouped(draw, rewards=reward, pairs=False):
    size, groups = draw(st.integers(2, 8)), draw(st.integers(1, 4))
    rows = st.lists(rewards, min_size=size * groups, max_size=size * groups)
    values = [torch.tensor(draw(rows), dtype=torch.float64) for _ in range(2 if pairs else 1)]
    return (*values, size)


with_failures = st.one_of(reward, st.just(NAN))


@pytest.fixture(scope="module")
def nanstd():
    from trl.trainer.utils import nanstd

    return nanstd


# Group normalisation


def test_hand_computed_group():
    # mean 1, deviations 1, -1, 0, 0; unbiased variance 2 / 3
    got = group_normalise(torch.tensor([2.0, 0.0, 1.0, 1.0]), group_size=4)
    want = 1 / (math.sqrt(2 / 3) + 1e-4)
    torch.testing.assert_close(got, torch.tensor([want, -want, 0.0, 0.0]))


def test_groups_do_not_see_each_other():
    both = group_normalise(torch.tensor([1.0, 0.0, 30.0, 10.0]), group_size=2)
    apart = [group_normalise(torch.tensor(r), group_size=2) for r in ([1.0, 0.0], [30.0, 10.0])]
    assert torch.equal(both, torch.cat(apart))


def test_hand_computed_group_with_a_failure():
    # the failed row is out: the rest is 1, 0 with mean 0.5 and unbiased std sqrt(0.5)
    got = group_normalise(torch.tensor([1.0, NAN, 0.0]), group_size=3)
    want = 0.5 / (math.sqrt(0.5) + 1e-4)
    torch.testing.assert_close(got, torch.tensor([want, 0.0, -want]))


@given(grouped())
def test_advantages_sum_to_zero_and_have_unit_spread(case):
    rewards, size = case
    groups = group_normalise(rewards, group_size=size).view(-1, size)
    assert groups.sum(dim=1).abs().max() < 1e-9
    std = rewards.view(-1, size).std(dim=1)
    varied = ~collapsed_groups(rewards, group_size=size)
    torch.testing.assert_close(groups.std(dim=1)[varied], (std / (std + EPSILON))[varied])


@given(grouped(with_failures))
def test_failures_get_zero_and_the_others_what_they_would_get_alone(case):
    rewards, size = case
    got = group_normalise(rewards, group_size=size)
    assert got.isfinite().all()
    for row, advantages in zip(rewards.view(-1, size), got.view(-1, size), strict=True):
        kept = ~row.isnan()
        assert (advantages[~kept] == 0).all()
        if kept.sum() >= 2:
            alone = group_normalise(row[kept], group_size=int(kept.sum()))
            torch.testing.assert_close(advantages[kept], alone)
        else:
            assert (advantages == 0).all()


@given(reward, st.integers(1, 16), st.sampled_from([torch.float32, torch.float64]))
def test_equal_rewards_give_exactly_zero(value, size, dtype):
    rewards = torch.full((2 * size,), value, dtype=dtype)
    assert (group_normalise(rewards, group_size=size) == 0).all()
    assert collapsed_groups(rewards, group_size=size).all()


@pytest.mark.parametrize("value", [0.1 + 0.2, 2.2, 1 / 3])
@pytest.mark.parametrize("size", [3, 7, 8, 10])
def test_exact_zero_is_not_left_to_rounding(value, size):
    """Some of these means differ from the value itself, and the formula alone gives no zero."""
    rewards = torch.full((size,), value, dtype=torch.float64)
    assert (group_normalise(rewards, group_size=size) == 0).all()


@given(grouped(), st.floats(-5, 5))
def test_a_shift_of_all_rewards_changes_nothing(case, shift):
    rewards, size = case
    rewards = (rewards * 64).round() / 64  # so that adding the shift cannot make values collide
    shift = round(shift * 64) / 64
    got = group_normalise(rewards + shift, group_size=size)
    torch.testing.assert_close(got, group_normalise(rewards, group_size=size), atol=1e-6, rtol=1e-6)


@given(grouped(with_failures), st.randoms(use_true_random=False))
def test_order_within_a_group_does_not_matter(case, rng):
    rewards, size = case
    order = list(range(size))
    rng.shuffle(order)
    shuffled = rewards.view(-1, size)[:, order].reshape(-1)
    got = group_normalise(shuffled, group_size=size).view(-1, size)
    want = group_normalise(rewards, group_size=size).view(-1, size)[:, order]
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)


def test_bad_shapes_and_infinities_are_refused():
    with pytest.raises(ValueError, match="multiple of group_size"):
        group_normalise(torch.zeros(5), group_size=2)
    with pytest.raises(ValueError, match="multiple of group_size"):
        group_normalise(torch.zeros(2, 2), group_size=2)
    with pytest.raises(ValueError, match="infinite"):
        group_normalise(torch.tensor([1.0, math.inf]), group_size=2)


def test_whole_numbers_are_rewards_too():
    got = group_normalise(torch.tensor([1, 0]), group_size=2)
    assert torch.equal(got, group_normalise(torch.tensor([1.0, 0.0]), group_size=2))


def test_collapsed_groups():
    rewards = torch.tensor([1.0, 1.0, 1.0, 0.0, NAN, 1.0, NAN, NAN])
    assert collapsed_groups(rewards, group_size=2).tolist() == [True, False, True, True]
    assert collapsed_groups(rewards, group_size=4).tolist() == [False, True]


# Credit


def normal(rewards):
    return group_normalise(torch.tensor(rewards), group_size=4)


PERCEPTION, REASONING = [1.0, 1.0, 0.0, 0.0], [2.0, 0.0, 2.2, 0.0]


@pytest.mark.parametrize(
    "credit, for_p, for_r",
    [
        ("process", PERCEPTION, REASONING),
        ("outcome", REASONING, REASONING),
        ("perception", PERCEPTION, PERCEPTION),
        ("pooled", [3.0, 1.0, 2.2, 0.0], [3.0, 1.0, 2.2, 0.0]),
    ],
)
def test_credit_table(credit, for_p, for_r):
    got_p, got_r = process_advantages(
        torch.tensor(PERCEPTION), torch.tensor(REASONING), group_size=4, credit=credit
    )
    assert torch.equal(got_p, normal(for_p)) and torch.equal(got_r, normal(for_r))


def test_process_credit_is_the_default_and_others_are_refused():
    p, r = torch.tensor(PERCEPTION), torch.tensor(REASONING)
    got = process_advantages(p, r, group_size=4)
    assert torch.equal(got[0], normal(PERCEPTION)) and torch.equal(got[1], normal(REASONING))
    with pytest.raises(ValueError, match="pooled"):
        process_advantages(p, r, group_size=4, credit="both")
    with pytest.raises(ValueError, match="against"):
        process_advantages(p, r[:3], group_size=1)


def test_a_failed_judge_silences_perception_alone_unless_the_rewards_are_pooled():
    p, r = torch.tensor([NAN, 1.0, 0.0, 1.0]), torch.tensor(REASONING)
    a_p, a_r = process_advantages(p, r, group_size=4)
    assert a_p[0] == 0 and torch.equal(a_r, normal(REASONING))
    torch.testing.assert_close(
        a_p[1:], group_normalise(torch.tensor([1.0, 0.0, 1.0]), group_size=3)
    )
    pooled, _ = process_advantages(p, r, group_size=4, credit="pooled")
    assert pooled[0] == 0
    torch.testing.assert_close(
        pooled[1:], group_normalise(torch.tensor([1.0, 2.2, 1.0]), group_size=3)
    )


def test_one_process_may_collapse_while_the_other_teaches():
    ones = torch.ones(4)
    a_p, a_r = process_advantages(ones, torch.tensor(REASONING), group_size=4)
    assert (a_p == 0).all() and (a_r != 0).any()


@given(grouped())
def test_outcome_credit_is_trls_formula(case):
    rewards, size = case
    groups = rewards.view(-1, size)
    trl = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    got, _ = process_advantages(rewards * 0, rewards, group_size=size, credit="outcome")
    torch.testing.assert_close(got, trl.view(-1), atol=1e-9, rtol=1e-9)


@given(case=grouped())
def test_outcome_credit_is_trl_bit_for_bit_where_the_group_has_not_collapsed(nanstd, case):
    rewards, size = case[0].float(), case[1]
    groups = rewards.view(-1, size)
    mean, std = groups.nanmean(dim=1, keepdim=True), nanstd(groups, dim=1, keepdim=True)
    trl = (groups - mean) / (std + 1e-4)
    varied = ~collapsed_groups(rewards, group_size=size)
    got = group_normalise(rewards, group_size=size).view(-1, size)
    assert torch.equal(got[varied], trl[varied])


# Tokens


def test_hand_computed_tokens():
    ownership = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    got = token_advantages(torch.tensor([2.0, 1.0]), torch.tensor([-1.0, 3.0]), ownership, mask)
    assert got.tolist() == [[2.0, 2.0, -1.0, 0.0], [2.0, 2.0, 0.0, 0.0]]


byte_rows = st.lists(
    st.lists(
        st.sampled_from(
            [b"<observation>", b"</obser", b"vation>", b"</observation>", b"a", b"", b"<"]
        )
        | st.binary(max_size=4),
        max_size=12,
    ),
    min_size=1,
    max_size=5,
)


@given(byte_rows, st.integers(0, 3))
def test_ownership_sums_to_one_on_real_tokens_and_to_zero_on_padding(rows, extra):
    length = max(map(len, rows)) + extra
    w_p, w_r = ownership_tensors(rows, length=length)
    assert w_p.shape == w_r.shape == (len(rows), length)
    for i, row in enumerate(rows):
        assert (w_p[i] + w_r[i]).tolist() == [1.0] * len(row) + [0.0] * (length - len(row))
        assert set((w_p[i] - w_r[i])[: len(row)].tolist()) in ({0.0}, {1.0}, {-1.0, 1.0}, set())


@given(byte_rows, st.integers(0, 10**6))
def test_equal_rewards_make_process_aware_grpo_plain_grpo_bit_for_bit(rows, seed):
    w_p, w_r = ownership_tensors(rows)
    rng = random.Random(seed)
    rewards = torch.tensor([rng.choice([0.0, 1.0, 2.2, NAN]) for _ in rows])
    a_p, a_r = process_advantages(rewards, rewards, group_size=len(rows))
    plain, _ = process_advantages(rewards, rewards, group_size=len(rows), credit="outcome")
    got = token_advantages(a_p, a_r, w_p, w_p + w_r)
    assert torch.equal(got, plain.unsqueeze(1) * (w_p + w_r))


@given(st.floats(0, 1, width=32), st.floats(-3, 3, width=32))
def test_equal_advantages_survive_any_weight_to_the_last_bit(weight, advantage):
    a = torch.tensor([advantage])
    got = token_advantages(a, a, torch.tensor([[weight]]), torch.ones(1, 1))
    assert got.item() == a.item()


@given(byte_rows, st.floats(-3, 3, width=32), st.floats(-3, 3, width=32))
def test_token_advantages_are_the_weighted_sum(rows, for_p, for_r):
    w_p, w_r = ownership_tensors(rows)
    a_p, a_r = torch.full((len(rows),), for_p), torch.full((len(rows),), for_r)
    got = token_advantages(a_p, a_r, w_p, w_p + w_r)
    torch.testing.assert_close(got, w_p * for_p + w_r * for_r)


def test_ownership_tensors_length():
    w_p, w_r = ownership_tensors([[b"a</observation>", b"b"], [b"c"]])
    assert w_p.tolist() == [[1.0, 0.0], [0.5, 0.0]] and w_r.tolist() == [[0.0, 1.0], [0.5, 0.0]]
    assert ownership_tensors([])[0].shape == (0, 0)
    with pytest.raises(ValueError, match="length=1"):
        ownership_tensors([[b"a", b"b"]], length=1)


def test_credits_are_the_four_of_the_ablation():
    assert CREDITS == ("process", "outcome", "perception", "pooled")
