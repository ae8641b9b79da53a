"""Metrics on hand-made responses whose every figure is known."""

import math

import pytest

from p2r_lib.evaluation.answering import Completion
from p2r_lib.evaluation.metrics import (
    METRICS,
    NOTHING,
    Evaluation,
    Row,
    compare,
    evaluate,
    judge_completions,
    mean,
    over_seeds,
    pass_at_k,
    share,
    summarise,
    t_quantile,
    values,
)
from p2r_lib.judges.base import Verdict
from p2r_lib.samples import VideoQA
from p2r_lib.template import format_response

OPTIONS = ("A. red", "B. blue")
YES, NO, FAILED = Verdict(True), Verdict(False), Verdict(None, error="timeout")


def question(number: int, problem_type: str = "multiple choice", answer: str = "B") -> VideoQA:
    options = OPTIONS if problem_type == "multiple choice" else ()
    text = f"Question {number}?"
    return VideoQA(str(number), text, "video", problem_type, options, answer, f"{number}.mp4")


class FirstLetter:
    """Takes a think that starts with a letter and a colon for a choice, any other for none."""

    def extract(self, sample: VideoQA, think: str) -> str | None:
        return think[0] if think[1:2] == ":" else None


@pytest.fixture(scope="module")
def tokenizer():
    from p2r_lib.toyworld.tiny import build_tokenizer

    return build_tokenizer(["<observation> <think> <answer>"] * 4, vocab_size=320)


@pytest.fixture
def measure(tokenizer):
    """evaluate() on texts, every one tokenised; `verdicts` as given."""

    def run(samples, texts, verdicts, *, truncated=(), **options):
        completions = [
            Completion(s.sample_id, text, tuple(tokenizer(text).input_ids), i in truncated)
            for i, (s, text) in enumerate(zip(samples, texts, strict=True))
        ]
        options = {"extractor": FirstLetter(), "tokenizer": tokenizer} | options
        return evaluate(samples, completions, verdicts, **options)

    return run


# ---------------------------------------------------------------- intervals


def test_wilson_interval_matches_newcombes_published_example():
    # Newcombe (1998), table I: 81 of 263, 95 %: 0.2553 to 0.3662; 0 of 20: 0 to 0.1611.
    estimate = share(81, 263)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)
    assert estimate.value == pytest.approx(81 / 263)
    none = share(0, 20)
    assert (none.low, round(none.high, 4), none.n) == (0.0, 0.1611, 20)


def test_share_of_nothing_is_unknown_and_impossible_shares_are_refused():
    assert share(0, 0) == NOTHING
    assert math.isnan(NOTHING.value)
    with pytest.raises(ValueError, match="3 hits of 2"):
        share(3, 2)


def test_bootstrap_interval_is_seeded_and_near_the_normal_one():
    data = [float(i % 10) for i in range(400)]
    estimate = mean(data, seed=1)
    assert estimate == mean(data, seed=1) != mean(data, seed=2)
    half = 1.96 * 2.8723 / math.sqrt(400)
    assert estimate.value == pytest.approx(4.5)
    assert estimate.low == pytest.approx(4.5 - half, abs=0.04)
    assert estimate.high == pytest.approx(4.5 + half, abs=0.04)


@pytest.mark.parametrize(
    ("df", "t"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (30, 2.04227)],
)
def test_t_quantile_matches_the_tables(df, t):
    assert t_quantile(df) == pytest.approx(t, abs=1e-4)


def test_over_seeds_gives_mean_sd_and_t_interval():
    spread = over_seeds([1, 2, 3])
    assert (spread.mean, spread.sd, spread.values) == (2.0, 1.0, (1.0, 2.0, 3.0))
    assert spread.high - spread.mean == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4)
    one = over_seeds([5])
    assert one.mean == 5 and math.isnan(one.sd) and math.isnan(one.low)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan]])
def test_over_seeds_needs_a_number_from_every_seed(bad):
    with pytest.raises(ValueError, match="every seed"):
        over_seeds(bad)


def test_pass_at_k_matches_counting_by_hand():
    # Of 4 responses 1 is right: a pair drawn from them holds it in 3 of 6 cases.
    assert pass_at_k([[True, False, False, False]], k=2) == pytest.approx(0.5)
    assert pass_at_k([[True, False], [False, False]], k=2) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="at least k=3"):
        pass_at_k([[True, False]], k=3)


# ---------------------------------------------------------------- the metrics, by hand


def test_every_metric_of_five_hand_made_responses(measure):
    samples = [question(i) for i in range(5)]
    texts = [
        format_response("a red ball", "B: it is blue", "B"),  # all right
        format_response("a red ball", "A: it is red", "B"),  # right, but against its think
        format_response("a red ball", "hm", "A"),  # wrong; the think settles on nothing
        "<think>B: blue</think>\n<answer>B</answer>",  # no observation: perception missing
        "",  # nothing at all
    ]
    found = measure(samples, texts, [YES, NO, FAILED, None, None], truncated={4})
    estimates = found.estimates
    assert (estimates["accuracy"].value, estimates["accuracy"].n) == (pytest.approx(3 / 5), 5)
    assert (estimates["correct"].value, estimates["correct"].n) == (pytest.approx(3 / 5), 5)
    # Failed verdict left out; the two without an observation count as insufficient.
    assert (estimates["sufficiency"].value, estimates["sufficiency"].n) == (pytest.approx(1 / 4), 4)
    assert (estimates["format"].value, estimates["format"].n) == (pytest.approx(3 / 5), 5)
    assert estimates["perception_format"].value == pytest.approx(3 / 5)
    assert estimates["reasoning_format"].value == pytest.approx(4 / 5)
    assert estimates["truncated"].value == pytest.approx(1 / 5)
    # Think and answer both name an option in 0, 1 and 3; they differ in 1.
    assert (estimates["mismatch"].value, estimates["mismatch"].n) == (pytest.approx(1 / 3), 3)
    assert found.counts == {
        "sufficient": 1,
        "insufficient": 1,
        "no observation": 2,
        "judge failed": 1,
        "not judged": 0,
        "no boundary": 2,
        "multiple choice": 5,
        "mismatch: no option in think": 2,
        "mismatch: no option in answer": 0,
        "sufficient and correct": 1,
        "sufficient, not correct": 0,
        "correct, not sufficient": 2,
        "neither": 1,
    }


@pytest.mark.parametrize(
    ("think", "answer", "mismatch"),
    [
        ("A: red", "A", 0.0),
        ("A: red", "B", 1.0),
        ("B: blue", "A", 1.0),
        ("B: blue", "blue", 0.0),  # the option's text is its letter
        ("B: blue", "neither", None),  # the answer names no option
        ("unsure", "A", None),  # the think settles on none
    ],
)
def test_mismatch_goes_both_ways_and_has_its_own_denominator(measure, think, answer, mismatch):
    found = measure([question(0)], [format_response("x", think, answer)], [YES])
    assert values(found.rows, "mismatch") == ([] if mismatch is None else [mismatch])


def test_mismatch_is_of_multiple_choice_alone(measure):
    samples = [question(0, "numerical", answer="3")]
    found = measure(samples, [format_response("x", "A: three", "3")], [YES])
    assert found.estimates["mismatch"] == NOTHING
    assert found.counts["multiple choice"] == 0


def test_missing_think_settles_on_nothing(measure):
    found = measure([question(0)], ["<observation>x</observation><answer>B</answer>"], [YES])
    assert found.rows[0].think_option is None and found.rows[0].answer_option == "B"


def test_accuracy_is_the_mean_score_and_correct_the_share_above_the_threshold(measure):
    samples = [question(i, "regression", answer="10") for i in range(3)]
    texts = [format_response("x", "y", number) for number in ("10", "16", "5")]
    found = measure(samples, texts, [YES] * 3)
    assert [row.score for row in found.rows] == [1.0, pytest.approx(0.4), 0.5]
    assert found.estimates["accuracy"].value == pytest.approx(1.9 / 3)
    assert found.estimates["correct"].value == pytest.approx(1 / 3)


def test_estimates_by_type_hold_that_type_alone(measure):
    samples = [question(0), question(1, "numerical", answer="3"), question(2)]
    texts = [format_response("x", "B: y", answer) for answer in ("B", "3", "A")]
    by_type = measure(samples, texts, [YES] * 3).by_type
    assert {name: e["accuracy"].n for name, e in by_type.items()} == {
        "multiple choice": 2,
        "numerical": 1,
    }
    assert by_type["multiple choice"]["accuracy"].value == 0.5
    assert by_type["numerical"]["accuracy"].value == 1.0


def test_scores_that_are_all_right_still_have_a_wilson_interval(measure):
    found = measure([question(0)], [format_response("x", "B: y", "B")], [YES])
    assert found.estimates["accuracy"] == share(1, 1)
    assert found.estimates["accuracy"].low < 0.5


def test_lengths_are_tokens_by_owner_with_tags(measure, tokenizer):
    observation, rest = "<observation>a ball</observation>", "<think>b</think><answer>B</answer>"
    found = measure([question(0), question(1)], [observation + rest, rest], [YES, None])
    row, without = found.rows
    assert row.perception_tokens == len(tokenizer(observation).input_ids)
    assert row.reasoning_tokens == len(tokenizer(rest).input_ids)
    assert without.perception_tokens is None
    assert found.estimates["perception_tokens"].n == 1


def test_plain_responses_are_their_own_answer(measure):
    samples = [question(0), question(1)]
    found = measure(samples, ["B", "<answer>A</answer>"], None, template=False)
    assert [row.score for row in found.rows] == [1.0, 0.0]
    assert found.estimates["sufficiency"] == NOTHING
    assert found.counts["not judged"] == 2
    with_template = measure(samples, ["B", "<answer>A</answer>"], None)
    assert with_template.rows[0].score == 0.0


# ---------------------------------------------------------------- what is refused


def test_observations_without_a_verdict_are_refused(measure):
    with pytest.raises(ValueError, match="judge_completions"):
        measure([question(0)], [format_response("x", "y", "B")], [None])


def test_completions_in_another_order_are_refused(tokenizer):
    samples = [question(0), question(1)]
    completions = [Completion(s.sample_id, "", (), False) for s in reversed(samples)]
    with pytest.raises(ValueError, match="one order"):
        evaluate(samples, completions, None, tokenizer=tokenizer)


def test_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="accuracy, correct"):
        values([], "acuracy")
    with pytest.raises(ValueError, match="unknown metric"):
        compare(summarise([]), summarise([]), "acuracy")


# ---------------------------------------------------------------- judge, JSON, comparison


class CountingJudge:
    id = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def judge(self, requests):
        self.asked += [request.observation for request in requests]
        return [Verdict("blue" in request.observation) for request in requests]


def test_only_observations_go_to_the_judge_and_verdicts_come_back_in_place():
    samples = [question(i) for i in range(3)]
    texts = ["nothing", format_response("blue", "y", "B"), format_response("red", "y", "B")]
    completions = [
        Completion(s.sample_id, t, (), False) for s, t in zip(samples, texts, strict=True)
    ]
    judge = CountingJudge()
    verdicts = judge_completions(judge, samples, completions)
    assert judge.asked == ["blue", "red"]
    assert [v and v.sufficient for v in verdicts] == [None, True, False]


def test_json_round_trip_is_exact_and_strict(measure):
    samples = [question(0), question(1, "numerical", answer="3")]
    found = measure(samples, [format_response("x", "A: y", "B"), ""], [FAILED, None])
    again = Evaluation.from_json(found.to_json(indent=1))
    assert again.rows == found.rows
    assert again.to_dict() == found.to_dict()
    assert again.estimates["accuracy"] == found.estimates["accuracy"]
    assert math.isnan(again.by_type["numerical"]["mismatch"].value)


def row(number: int, score: float, sufficiency: str = "sufficient") -> Row:
    return Row(str(number), "numerical", score, sufficiency, True, True, False)


def test_paired_difference_is_narrower_than_the_spread_of_the_scores():
    before = summarise([row(i, (i % 10) / 10) for i in range(60)])
    after = summarise([row(i, (i % 10) / 10 + 0.1) for i in range(60)])
    difference = compare(before, after, "accuracy")
    assert difference.value == pytest.approx(0.1)
    assert difference.low == pytest.approx(0.1) and difference.high == pytest.approx(0.1)
    assert difference.n == 60
    assert compare(after, before, "accuracy").value == pytest.approx(-0.1)


def test_paired_difference_counts_only_pairs_that_both_have():
    before = summarise([row(0, 1), row(1, 1, "judge failed"), row(2, 1, "insufficient")])
    after = summarise([row(0, 1), row(1, 1), row(2, 1)])
    difference = compare(before, after, "sufficiency")
    assert (difference.value, difference.n) == (0.5, 2)


def test_comparison_of_other_samples_is_refused():
    with pytest.raises(ValueError, match="same samples"):
        compare(summarise([row(0, 1)]), summarise([row(1, 1)]), "accuracy")


def test_evaluation_of_nothing_has_no_values():
    empty = summarise([])
    assert empty.n == 0 and not empty.by_type
    assert all(empty.estimates[name] == NOTHING for name in METRICS)


@pytest.mark.parametrize("n", range(1, 600, 7))
def test_a_share_of_none_or_all_lies_within_its_interval(n):
    for hits in (0, n):
        estimate = share(hits, n)
        assert estimate.low <= estimate.value <= estimate.high
