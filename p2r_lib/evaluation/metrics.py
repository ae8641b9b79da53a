"""What a model's responses show about seeing and reasoning, each figure with its interval.

Every metric is defined once, for one response (`METRICS`): its value, or None where the response
is outside the metric's denominator. Estimates, per problem type too, and paired comparisons of two
models all follow from that.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from p2r_lib.answers import option_letter, score
from p2r_lib.cot.verify import THRESHOLD
from p2r_lib.judges.base import AnswerExtractor, Judge, Verdict
from p2r_lib.rewards import needs_judge
from p2r_lib.samples import VideoQA
from p2r_lib.template import Response, ownership, parse, token_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from p2r_lib.evaluation.answering import Completion

CONFIDENCE = 0.95
CORRECT_FROM = THRESHOLD
"""An answer counts as correct from this score on, as in the verification of traces."""

SUFFICIENCY = ("sufficient", "insufficient", "no observation", "judge failed", "not judged")


# ---------------------------------------------------------------- estimates and their intervals


@dataclass(frozen=True)
class Estimate:
    """A share or mean over `n` responses with its 95 % confidence interval; NaN if n is 0."""

    value: float
    low: float
    high: float
    n: int


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def share(hits: int, n: int) -> Estimate:
    """hits / n with the Wilson score interval, which holds near 0 and 1 and for small n too.

    >>> e = share(8, 10)
    >>> round(e.low, 3), round(e.high, 3)
    (0.49, 0.943)
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n}")
    if n == 0:
        return NOTHING
    z, p = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The ends meet p at 0 and 1, and rounding must not put them on its wrong side.
    low, high = min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))
    return Estimate(p, low, high, n)


def mean(values: Sequence[float], *, seed: int = 0, resamples: int = 2000) -> Estimate:
    """The mean with its percentile bootstrap interval."""
    if not len(values):
        return NOTHING
    means = _resampled_means(np.asarray(values, dtype=float), seed, resamples)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values))


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    rng, n = np.random.default_rng(seed), len(values)
    return np.array([values[rng.integers(0, n, n)].mean() for _ in range(resamples)])


@dataclass(frozen=True)
class Spread:
    """A figure over training seeds: mean, unbiased standard deviation, and the 95 % t interval.

    With one seed the standard deviation and the interval are unknown (NaN).
    """

    mean: float
    sd: float
    low: float
    high: float
    values: tuple[float, ...]


def over_seeds(values: Iterable[float]) -> Spread:
    """Mean and spread of one figure over seeds. Raises ValueError for no value, or a NaN."""
    values = tuple(map(float, values))
    if not values or any(map(math.isnan, values)):
        raise ValueError(f"need a number from every seed, got {values}")
    centre, n = float(np.mean(values)), len(values)
    if n == 1:
        return Spread(centre, math.nan, math.nan, math.nan, values)
    sd = float(np.std(values, ddof=1))
    half = t_quantile(n - 1) * sd / math.sqrt(n)
    return Spread(centre, sd, centre - half, centre + half, values)


def t_quantile(df: int, *, confidence: float = CONFIDENCE) -> float:
    """The t for which P(|T| <= t) = `confidence`, T Student's with `df` degrees of freedom.

    >>> round(t_quantile(2), 3)
    4.303
    """
    low, high = 0.0, 1e6
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, df) < confidence else (low, middle)
    return high


def _t_within(t: float, df: int) -> float:
    """P(|T| <= t), by the finite series for whole degrees of freedom."""
    angle = math.atan(t / math.sqrt(df))
    power = 1.0 if df % 2 == 0 else math.cos(angle)
    term, total = power, 0.0
    for k in range(df % 2, df - 1, 2):  # k = power of the cosine in `term`
        total += term
        term *= math.cos(angle) ** 2 * (k + 1) / (k + 2)
    if df % 2 == 0:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * total)


def pass_at_k(correct: Sequence[Sequence[bool]], *, k: int) -> float:
    """Mean chance that one of k responses is correct, from n >= k sampled ones per question.

    The unbiased estimate 1 - C(n - c, k) / C(n, k), c of the n being correct.
    """
    if not correct or any(len(row) < k for row in correct):
        raise ValueError(f"need at least k={k} responses to every question")
    chances = [1 - math.comb(len(row) - sum(row), k) / math.comb(len(row), k) for row in correct]
    return float(np.mean(chances))


# ---------------------------------------------------------------- one response


@dataclass(frozen=True)
class Row:
    """One response, measured.

    `score` is the task metric in [0, 1]; `sufficiency` one of `SUFFICIENCY`; `problems` the faults
    of form. `think_option` and `answer_option` are the letters that the think and the answer of a
    multiple-choice question settle on, or None. Tokens are those each process owns, tags included,
    or None without a boundary between the two.
    """

    sample_id: str
    problem_type: str
    score: float
    sufficiency: str
    perception_ok: bool
    reasoning_ok: bool
    truncated: bool
    problems: tuple[str, ...] = ()
    think_option: str | None = None
    answer_option: str | None = None
    perception_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True)
class Metric:
    """A metric of one response: `of(row)` is its value, None outside the denominator.

    A `share` is 0 or 1 for each response and gets a Wilson interval; others are means.
    """

    label: str
    of: Callable[[Row], float | None]
    share: bool = True
    unit: str = "%"


def _sufficient(row: Row) -> float | None:
    known = {"sufficient": 1.0, "insufficient": 0.0, "no observation": 0.0}
    return known.get(row.sufficiency)


def _mismatch(row: Row) -> float | None:
    if row.think_option is None or row.answer_option is None:
        return None
    return float(row.think_option != row.answer_option)


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("answer accuracy (mean score)", lambda row: row.score, share=False),
    "correct": Metric(
        f"answers that score at least {CORRECT_FROM}", lambda row: float(row.score >= CORRECT_FROM)
    ),
    "sufficiency": Metric("sufficient observations", _sufficient),
    "format": Metric(
        "both processes well formed", lambda row: float(row.perception_ok and row.reasoning_ok)
    ),
    "perception_format": Metric("perception well formed", lambda row: float(row.perception_ok)),
    "reasoning_format": Metric("reasoning well formed", lambda row: float(row.reasoning_ok)),
    "mismatch": Metric("think-answer mismatch", _mismatch),
    "truncated": Metric("cut off at the token limit", lambda row: float(row.truncated)),
    "perception_tokens": Metric(
        "length of perception", lambda row: row.perception_tokens, share=False, unit="tokens"
    ),
    "reasoning_tokens": Metric(
        "length of reasoning", lambda row: row.reasoning_tokens, share=False, unit="tokens"
    ),
}


def values(rows: Iterable[Row], metric: str) -> list[float]:
    """The metric of each row that is in its denominator."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: use one of {', '.join(METRICS)}")
    found = map(METRICS[metric].of, rows)
    return [float(value) for value in found if value is not None]


def estimate(rows: Iterable[Row], metric: str, *, seed: int = 0, resamples: int = 2000) -> Estimate:
    """The metric over rows, with its interval and denominator.

    Scores that are all 0 or 1, as those of multiple choice, are a share as well.
    """
    found = values(rows, metric)
    if METRICS[metric].share or (metric == "accuracy" and set(found) <= {0.0, 1.0}):
        return share(int(sum(found)), len(found))
    return mean(found, seed=seed, resamples=resamples)


# ---------------------------------------------------------------- all responses


@dataclass(frozen=True)
class Evaluation:
    """`estimates` by metric, the same `by_type` of problem, and the measured `rows`."""

    estimates: Mapping[str, Estimate]
    by_type: Mapping[str, Mapping[str, Estimate]]
    rows: tuple[Row, ...]

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """What the denominators leave out, and where seeing and answering fail together or apart.

        "mismatch: ..." count multiple-choice responses: those whose think settles on no option, and
        those whose think does but whose answer names none. Neither is in the denominator.
        """
        choices = [row for row in self.rows if row.problem_type == "multiple choice"]
        chosen = [row for row in choices if row.think_option is not None]
        judged = [(_sufficient(row), row.score >= CORRECT_FROM) for row in self.rows]
        return {
            **{name: Counter(row.sufficiency for row in self.rows)[name] for name in SUFFICIENCY},
            "no boundary": sum(row.perception_tokens is None for row in self.rows),
            "multiple choice": len(choices),
            "mismatch: no option in think": len(choices) - len(chosen),
            "mismatch: no option in answer": sum(row.answer_option is None for row in chosen),
            "sufficient and correct": judged.count((1.0, True)),
            "sufficient, not correct": judged.count((1.0, False)),
            "correct, not sufficient": judged.count((0.0, True)),
            "neither": judged.count((0.0, False)),
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, `counts` included; None stands for NaN."""
        return _without_nan(asdict(self) | {"counts": self.counts})

    def to_json(self, **options: Any) -> str:
        """`to_dict` as JSON text; `options` are those of `json.dumps`."""
        return json.dumps(self.to_dict(), allow_nan=False, **options)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """What `to_json` gave."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """What `to_dict` gave, or JSON made of it."""
        return cls(
            estimates=_estimates(data["estimates"]),
            by_type={name: _estimates(found) for name, found in data["by_type"].items()},
            rows=tuple(Row(**{**r, "problems": tuple(r["problems"])}) for r in data["rows"]),
        )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _estimates(data: Mapping[str, Any]) -> dict[str, Estimate]:
    return {
        name: Estimate(**{k: math.nan if v is None else v for k, v in fields.items()})
        for name, fields in data.items()
    }


def evaluate(
    samples: Sequence[VideoQA],
    completions: Sequence[Completion],
    verdicts: Sequence[Verdict | None] | None,
    *,
    tokenizer: PreTrainedTokenizerBase,
    extractor: AnswerExtractor | None = None,
    template: bool = True,
    seed: int = 0,
    resamples: int = 2000,
) -> Evaluation:
    """Measure one completion, and its observation's verdict, per sample (see `METRICS`).

    `verdicts` come from `judge_completions`: None where there was no observation to send, which
    counts as insufficient; failed ones are left out and counted. `verdicts=None` leaves sufficiency
    unmeasured, `extractor=None` the mismatch. With `template=False` (the plain prompt) the whole
    response is the answer. `seed` draws the bootstrap of the means.

    Raises ValueError if the three do not belong together.
    """
    rows = []
    given = [None] * len(samples) if verdicts is None else verdicts
    for sample, completion, verdict in zip(samples, completions, given, strict=True):
        _check_pair(sample, completion)
        response = parse(completion.text, truncated=completion.truncated)
        sufficiency = "not judged" if verdicts is None else _sufficiency(sample, response, verdict)
        predicted = response.answer if template or response.answer else completion.text
        rows.append(
            Row(
                sample_id=sample.sample_id,
                problem_type=sample.problem_type,
                score=score(sample.problem_type, predicted, sample.answer, options=sample.options),
                sufficiency=sufficiency,
                perception_ok=response.perception_ok,
                reasoning_ok=response.reasoning_ok,
                truncated=completion.truncated,
                problems=response.problems,
                **_options(sample, response, predicted, extractor),
                **_lengths(tokenizer, completion),
            )
        )
    return summarise(rows, seed=seed, resamples=resamples)


def summarise(rows: Sequence[Row], *, seed: int = 0, resamples: int = 2000) -> Evaluation:
    """The estimates over all rows and over those of each problem type."""

    def over(some: Sequence[Row]) -> dict[str, Estimate]:
        return {name: estimate(some, name, seed=seed, resamples=resamples) for name in METRICS}

    types = sorted({row.problem_type for row in rows})
    by_type = {name: over([row for row in rows if row.problem_type == name]) for name in types}
    return Evaluation(estimates=over(rows), by_type=by_type, rows=tuple(rows))


def judge_completions(
    judge: Judge, samples: Sequence[VideoQA], completions: Sequence[Completion]
) -> list[Verdict | None]:
    """The judge's verdict on each completion's observation; None where it has none to send."""
    from p2r_lib.training.pa_grpo import judged

    return judged(samples, [parse(completion.text) for completion in completions], judge)


def _check_pair(sample: VideoQA, completion: Completion) -> None:
    if sample.sample_id != completion.sample_id:
        raise ValueError(
            f"the completion of sample {completion.sample_id} stands where that of "
            f"{sample.sample_id} should: give samples and completions in one order"
        )


def _sufficiency(sample: VideoQA, response: Response, verdict: Verdict | None) -> str:
    if not needs_judge(response):
        return "no observation"
    if verdict is None:
        raise ValueError(
            f"sample {sample.sample_id} has an observation and no verdict: use judge_completions"
        )
    return {True: "sufficient", False: "insufficient", None: "judge failed"}[verdict.sufficient]


def _options(
    sample: VideoQA, response: Response, predicted: str | None, extractor: AnswerExtractor | None
) -> dict[str, str | None]:
    if sample.problem_type != "multiple choice" or extractor is None:
        return {}
    return {
        "think_option": extractor.extract(sample, response.think) if response.think else None,
        "answer_option": option_letter(predicted or "", sample.options),
    }


def _lengths(tokenizer: PreTrainedTokenizerBase, completion: Completion) -> dict[str, int]:
    weights = ownership(token_bytes(tokenizer, completion.token_ids))
    if not weights or weights[0] == 0.5:
        return {}
    perception = int(sum(weights))
    return {"perception_tokens": perception, "reasoning_tokens": len(weights) - perception}


# ---------------------------------------------------------------- two models


def compare(
    before: Evaluation, after: Evaluation, metric: str, *, seed: int = 0, resamples: int = 2000
) -> Estimate:
    """Mean of `after` - `before` over the same samples, with its paired bootstrap interval.

    Only samples in the metric's denominator for both count; `n` says how many. Raises ValueError if
    the two are not evaluations of the same samples in the same order.
    """
    if [row.sample_id for row in before.rows] != [row.sample_id for row in after.rows]:
        raise ValueError("the two evaluations are not of the same samples in the same order")
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: use one of {', '.join(METRICS)}")
    of = METRICS[metric].of
    pairs = [(of(a), of(b)) for a, b in zip(before.rows, after.rows, strict=True)]
    differences = [b - a for a, b in pairs if a is not None and b is not None]
    return mean(differences, seed=seed, resamples=resamples)
