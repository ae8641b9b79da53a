"""From the rewards of a group to the advantage of each token: pure tensor functions.

N responses are N // G groups of G, one group after the other. A reward of NaN is a failure of the
judge: such a response stays out of its group's mean and std, and its advantage is 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from p2r_lib.template import ownership

EPSILON = 1e-4
CREDITS = ("process", "outcome", "perception", "pooled")


def group_normalise(rewards: Tensor, *, group_size: int) -> Tensor:
    """(R_i - mean) / (std + 1e-4) within each group: Eq. 1 and 6, with the unbiased std.

    `rewards` (N,) -> (N,). NaN rewards get 0 and count for nothing. A collapsed group (all rewards
    equal, or fewer than two of them) gets exactly 0, whatever rounding does to its mean. The
    arithmetic is TRL's, so equal rewards give TRL's own advantages. Raises ValueError if N is not
    a multiple of `group_size` or a reward is infinite.

    >>> group_normalise(torch.tensor([1.0, 0.0]), group_size=2)
    tensor([ 0.7070, -0.7070])
    """
    groups = _groups(rewards, group_size)
    mean = groups.nanmean(dim=1, keepdim=True)
    count = (~groups.isnan()).sum(dim=1, keepdim=True).to(groups.dtype)
    variance = ((groups - mean) ** 2).nanmean(dim=1, keepdim=True) * (count / (count - 1))
    advantages = (groups - mean) / (variance.sqrt() + EPSILON)
    silent = groups.isnan() | _collapsed(groups).unsqueeze(1)
    return advantages.masked_fill(silent, 0.0).view(-1)


def collapsed_groups(rewards: Tensor, *, group_size: int) -> Tensor:
    """Which groups teach nothing: `rewards` (N,) -> bool (N // G,).

    A group has collapsed if the rewards that are not NaN are all equal; one left, or none, counts
    too, since nothing is there to compare it with.
    """
    return _collapsed(_groups(rewards, group_size))


def _collapsed(groups: Tensor) -> Tensor:
    missing = groups.isnan()
    highest = groups.masked_fill(missing, -torch.inf).amax(dim=1)
    lowest = groups.masked_fill(missing, torch.inf).amin(dim=1)
    return highest <= lowest  # below it where every reward is missing


def _groups(rewards: Tensor, group_size: int) -> Tensor:
    """`rewards` (N,) as floats (N // G, G)."""
    if rewards.dim() != 1 or group_size < 1 or len(rewards) % group_size:
        raise ValueError(
            f"rewards of shape {tuple(rewards.shape)} do not divide into groups of {group_size}: "
            "give one row of N rewards, N a multiple of group_size"
        )
    rewards = rewards if rewards.is_floating_point() else rewards.float()
    if rewards.isinf().any():
        raise ValueError("a reward is infinite: rewards must be finite, or NaN for a failed judge")
    return rewards.view(-1, group_size)


def process_advantages(
    perception: Tensor, reasoning: Tensor, *, group_size: int, credit: str = "process"
) -> tuple[Tensor, Tensor]:
    """(A_P, A_R), each (N,), from the process rewards R_P and R_R, each (N,).

    `credit` says which reward speaks for which tokens:

    - "process": R_P for perception's, R_R for reasoning's, normalised apart. PA-GRPO, Eq. 6.
    - "outcome": R_R for all. GRPO with the outcome reward ("without R_P").
    - "perception": R_P for all ("without R_R").
    - "pooled": R_P + R_R, normalised once, for all ("without separation"). A response whose judge
      failed has no such sum, so it is left out of the group.
    """
    if credit not in CREDITS:
        raise ValueError(f"unknown credit {credit!r}: use one of {', '.join(CREDITS)}")
    if perception.shape != reasoning.shape:
        raise ValueError(f"{tuple(perception.shape)} rewards against {tuple(reasoning.shape)}")
    if credit == "process":
        return (
            group_normalise(perception, group_size=group_size),
            group_normalise(reasoning, group_size=group_size),
        )
    shared = {"outcome": reasoning, "perception": perception, "pooled": perception + reasoning}
    advantage = group_normalise(shared[credit], group_size=group_size)
    return advantage, advantage


def token_advantages(
    advantage_P: Tensor,
    advantage_R: Tensor,
    ownership_P: Tensor,
    mask: Tensor,
) -> Tensor:
    """w_P A_P + w_R A_R of every token, w_R = 1 - w_P, and 0 on padding.

    `advantage_P`, `advantage_R` (N,); `ownership_P` and `mask` (N, T), the mask non-zero on real
    tokens; returns (N, T). Where A_P equals A_R the result is that number to the last bit, so
    PA-GRPO with equal rewards is GRPO.
    """
    a_p, a_r = advantage_P.unsqueeze(1), advantage_R.unsqueeze(1)
    mixed = ownership_P * a_p + (1 - ownership_P) * a_r
    mixed = torch.where(a_p == a_r, a_p.to(mixed.dtype), mixed)
    return mixed.masked_fill(mask == 0, 0.0)


def ownership_tensors(
    pieces: Sequence[Sequence[bytes]],
    *,
    length: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """(w_P, w_R), each (B, T), of B completions given as the bytes of their tokens.

    Right-padded to T = `length` tokens (default: the longest completion). The two sum to 1 on every
    real token and are both 0 on padding. Raises ValueError if a completion is longer than `length`.
    """
    longest = max((len(row) for row in pieces), default=0)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"a completion has {longest} tokens, more than length={length}")
    w_p, real = torch.zeros(2, len(pieces), length, dtype=dtype)
    for i, row in enumerate(pieces):
        w_p[i, : len(row)] = torch.tensor(ownership(row), dtype=dtype)
        real[i, : len(row)] = 1
    return w_p.to(device), (real - w_p).to(device)
