"""The reward of each process: accuracy + format + length (Eq. 5). Pure functions, no model.

The two processes are rewarded apart, each from its own segment of the response:

    part      perception                          reasoning
    accuracy  1 if the judge finds the            the task metric of the answer,
              observation sufficient, else 0      in [0, 1]
    format    one well-formed observation         one well-formed think and answer, not truncated
    length    0.2 if the process's length is in its range and its accuracy and format are not 0
"""

import math
from dataclasses import dataclass

from p2r_lib.template import Response


@dataclass(frozen=True)
class RewardConfig:
    """Which parts count, and the length bonus with its ranges in tokens (both ends included).

    Switching a part off takes it out of the total and changes nothing else: the length part goes on
    asking for the process's accuracy and format, as measured.
    """

    accuracy: bool = True
    format: bool = True
    length: bool = True
    length_bonus: float = 0.2
    perception_length: tuple[int, int] = (128, 320)
    reasoning_length: tuple[int, int] = (320, 512)

    def __post_init__(self) -> None:
        for name in ("perception_length", "reasoning_length"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name}={low, high}: give (least, most) tokens, least first")


@dataclass(frozen=True)
class RewardParts:
    """The measured parts of one process's reward.

    `accuracy` is NaN if the judge failed, and `length` is NaN if it depends on that verdict. Parts
    are kept for the log also when `config` switches them off; `total` leaves those out.
    """

    accuracy: float
    format: float
    length: float
    config: RewardConfig = RewardConfig()

    @property
    def total(self) -> float:
        """R_k = R_acc,k + R_form,k + R_len,k over the parts that are on (Eq. 5); NaN spreads."""
        parts = {name: getattr(self, name) for name in ("accuracy", "format", "length")}
        return sum((value for name, value in parts.items() if getattr(self.config, name)), 0.0)


def needs_judge(response: Response) -> bool:
    """Whether there is an observation to judge; without one perception's accuracy is 0."""
    return response.observation is not None


def perception_reward(
    response: Response,
    *,
    sufficient: bool | None,
    num_tokens: float,
    config: RewardConfig = RewardConfig(),
) -> RewardParts:
    """R_P and its parts (Eq. 3 and 5).

    `sufficient` is the judge's verdict, None if the judge failed: the accuracy is then NaN, never
    0. Without an observation to judge (see `needs_judge`) it is ignored and the accuracy is 0.
    `num_tokens` is how many tokens perception owns, tags included.
    """
    accuracy = 0.0
    if needs_judge(response):
        accuracy = math.nan if sufficient is None else float(sufficient)
    return _parts(
        accuracy, response.perception_ok, num_tokens, bounds=config.perception_length, config=config
    )


def reasoning_reward(
    response: Response,
    *,
    accuracy: float,
    num_tokens: float,
    config: RewardConfig = RewardConfig(),
) -> RewardParts:
    """R_R and its parts (Eq. 4 and 5).

    `accuracy` is the task metric of `response.answer`, in [0, 1]; a response without an answer gets
    0 whatever the metric says. A truncated response has a format of 0. `num_tokens` is how many
    tokens reasoning owns. Raises ValueError if `accuracy` is outside [0, 1].
    """
    if not 0.0 <= accuracy <= 1.0:
        raise ValueError(f"accuracy={accuracy}: a task metric lies in [0, 1]")
    if response.answer is None:
        accuracy = 0.0
    return _parts(
        accuracy, response.reasoning_ok, num_tokens, bounds=config.reasoning_length, config=config
    )


def _parts(
    accuracy: float,
    well_formed: bool,
    num_tokens: float,
    *,
    bounds: tuple[int, int],
    config: RewardConfig,
) -> RewardParts:
    length = 0.0
    if well_formed and accuracy != 0 and bounds[0] <= num_tokens <= bounds[1]:
        length = math.nan if math.isnan(accuracy) else config.length_bonus
    return RewardParts(float(accuracy), float(well_formed), length, config)
