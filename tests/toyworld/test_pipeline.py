"""The simulated annotator in the pipeline: what the filters catch of its errors, and what not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from p2r_lib.cot.pipeline import PipelineResult, run_pipeline
from p2r_lib.judges.base import JudgeRequest, Verdict
from p2r_lib.samples import VideoQA
from p2r_lib.template import format_response, parse
from p2r_lib.toyworld.annotator import ERRORS, NO_ERRORS, Annotator, ErrorRates
from p2r_lib.toyworld.judge import ReaderJudge, RuleJudge
from p2r_lib.toyworld.language import say_all
from p2r_lib.toyworld.questions import KINDS, Question, sample_question, solve
from p2r_lib.toyworld.simulated import DROPS, SimulatedAnnotator, fault, filter_quality, slips
from p2r_lib.toyworld.world import Motion, Place, Thing, World


def record(question: Question, world: World, path: str) -> VideoQA:
    return VideoQA(
        problem_id=path,
        problem=question.text,
        data_type=world.data_type,
        problem_type=question.problem_type,
        options=question.lettered_options,
        answer=question.answer(solve(question, world)),
        path=path,
    )


def toy_samples(count: int) -> tuple[list[VideoQA], dict[str, World]]:
    rng = random.Random(0)
    samples, worlds = [], {}
    for number in range(count):
        world, question = sample_question(rng, KINDS[number % len(KINDS)])
        path = f"clips/{number}.mp4"
        samples.append(record(question, world, path))
        worlds[path] = world
    return samples, worlds


SAMPLES, WORLDS = toy_samples(600)
ANNOTATOR = SimulatedAnnotator(WORLDS, Annotator(ErrorRates().harder(2)))
PLANTED = ANNOTATOR.planted(SAMPLES)


def run(folder, annotator=ANNOTATOR, judge=None, samples=SAMPLES, **options) -> PipelineResult:
    judge = judge or RuleJudge(WORLDS)
    return run_pipeline(samples, annotator, judge, output_dir=folder, progress=False, **options)


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> PipelineResult:
    return run(tmp_path_factory.mktemp("run"))


def quality(result: PipelineResult, planted=PLANTED) -> dict[str, dict]:
    return {row["planted"]: row for row in filter_quality(result, planted, worlds=WORLDS)}


# ---------------------------------------------------------------- the annotator


def test_traces_do_not_depend_on_batches_or_order(tmp_path, result):
    backwards = run(tmp_path, samples=SAMPLES[::-1], batch_size=7)
    assert backwards.outcomes[::-1] == result.outcomes
    assert [annotation.text for annotation in ANNOTATOR.annotate(SAMPLES[5:9])] == [
        outcome.text for outcome in result.outcomes[5:9]
    ]


def test_the_id_names_every_setting():
    others = [
        ANNOTATOR,
        SimulatedAnnotator(WORLDS),
        replace(ANNOTATOR, seed=1),
        replace(ANNOTATOR, annotator=Annotator(hardship={"order": 2.0})),
        replace(ANNOTATOR, annotator=Annotator(ErrorRates(leak=0.5))),
    ]
    assert len({annotator.id for annotator in others}) == len(others)
    assert replace(ANNOTATOR, worlds={}).id == ANNOTATOR.id
    texts = [
        annotation.text for a in (ANNOTATOR, others[2]) for annotation in a.annotate(SAMPLES[:50])
    ]
    assert len(set(texts)) > 60  # another seed, other traces


def test_planted_errors_are_known_without_the_annotator_having_run(result):
    fresh = SimulatedAnnotator(WORLDS, Annotator(ErrorRates().harder(2)))
    assert fresh.planted(SAMPLES) == PLANTED
    assert {error for errors in PLANTED.values() for error in errors} == set(ERRORS)
    for outcome in result.outcomes:
        is_broken = "broken_template" in PLANTED[outcome.sample.sample_id]
        assert (outcome.reason == "broken template") == is_broken


def test_what_it_cannot_annotate_is_a_failure(tmp_path):
    strange = replace(SAMPLES[1], problem="Why?")
    unknown = replace(SAMPLES[2], path="elsewhere.mp4")
    result = run(tmp_path, samples=[SAMPLES[0], strange, unknown])
    assert [outcome.status for outcome in result.outcomes[1:]] == ["failed", "failed"]
    assert "Why?" in result.outcomes[1].explanation
    assert "elsewhere.mp4" in result.outcomes[2].explanation
    assert set(ANNOTATOR.planted([SAMPLES[0], unknown])) == {SAMPLES[0].sample_id}
    rows = quality(result)
    assert rows["all"]["traces"] == 1  # failures decide nothing


def test_without_errors_everything_is_kept(tmp_path):
    result = run(tmp_path, SimulatedAnnotator(WORLDS, Annotator(NO_ERRORS)))
    assert len(result.kept) == len(SAMPLES)


# ---------------------------------------------------------------- the truth, by hand

WORLD = World((Thing("red", "circle", 1, 1, "right", 2), Thing("blue", "square", 3, 3, "up", 1)))
ORDER = Question("order", ("red circle", "blue square", "first"),
                 ("red circle", "blue square", "green circle", "red square"))  # fmt: skip
MOTION = Question("motion", ("red circle", "blue square"))
DISTANCE = Question("distance", ("red circle", "blue square"))
MOVES = say_all([Motion("red circle", "right", 2), Motion("blue square", "up", 1)])
PLACES = say_all([Place("red circle", 1, 1), Place("blue square", 3, 3)])
NARRATED = "The blue square moves up, then the red circle moves right."


@pytest.mark.parametrize(
    ("question", "observation", "answer", "expected"),
    [
        (ORDER, MOVES, "B", None),
        (ORDER, MOVES, "A", "answer below threshold"),
        (ORDER, "The blue square is quicker.", "B", "insufficient observation"),
        (ORDER, f"{MOVES} There are 3 objects in total.", "B", "insufficient observation"),
        (ORDER, "The right option is B.", "B", "insufficient observation"),
        (ORDER, "", "B", "broken template"),
        (ORDER, "The blue square moves up at second 1.", "B", None),  # no move comes before that
        (DISTANCE, PLACES, "4", None),
        (DISTANCE, PLACES, "3", None),  # scores 0.75
        (DISTANCE, PLACES, "2", "answer below threshold"),
        (MOTION, MOVES, NARRATED, None),
        (MOTION, MOVES, "The red circle moves right, then the blue square moves up.", None),
        (MOTION, MOVES, "Both move.", "answer below threshold"),
    ],
)
def test_fault_by_hand(question, observation, answer, expected):
    sample = record(question, WORLD, "a.mp4")
    text = format_response(observation, "so", answer)
    assert fault(sample, text, WORLD, threshold=0.6) == expected


def test_the_first_fault_counts():
    sample = record(ORDER, WORLD, "a.mp4")
    text = format_response("", "so", "A")
    assert fault(sample, text, WORLD, threshold=0.6) == DROPS[0]
    text = format_response("I see nothing.", "so", "A")
    assert fault(sample, text, WORLD, threshold=0.6) == DROPS[1]


# ---------------------------------------------------------------- what the filters catch


def test_with_the_rule_judge_nothing_harmful_is_kept_and_nothing_else_dropped(result):
    for row in quality(result).values():
        assert row["recall"] in (None, 1.0)
        assert row["precision"] in (None, 1.0)
        assert row["slipped"] == 0
        assert row["harmful"] + row["harmless"] == row["traces"]
        assert sum(row[reason] for reason in DROPS) == row["harmful"]


def test_every_kind_of_error_is_met_and_where_it_is_caught(result):
    rows = quality(result)
    assert list(rows) == [*ERRORS, "none", "all"]
    assert rows["all"]["traces"] == len(SAMPLES)
    assert rows["none"]["harmful"] == 0 < rows["none"]["traces"]
    broken = rows["broken_template"]
    assert broken["traces"] == broken["broken template"] == broken["harmful"] > 20
    for kind in ("wrong_fact", "missing_fact"):  # caught by the answer, or else by the judge
        assert min(rows[kind][reason] for reason in DROPS[1:]) > 5
    assert rows["wrong_fact"]["harmless"] == rows["leak"]["harmless"] == 0
    assert rows["missing_fact"]["harmless"] > 0  # what was left out was not needed
    assert rows["wrong_answer"]["harmless"] > 0  # near enough to score


def only(error: str, result: PipelineResult) -> list:
    return [outcome for outcome in result.outcomes if PLANTED[outcome.sample.sample_id] == (error,)]


def test_one_error_alone_is_caught_by_the_step_that_can_see_it(result):
    assert {outcome.reason for outcome in only("leak", result)} == {"insufficient observation"}
    assert {o.reason for o in only("wrong_answer", result)} == {"answer below threshold", "kept"}
    assert {o.reason for o in only("wrong_reasoning", result)} == {"answer below threshold", "kept"}
    assert "kept" not in {outcome.reason for outcome in only("wrong_fact", result)}


def test_what_slips_through_and_why(result):
    """Nothing checks the think: a lucky guess is kept, and what is nearly right."""
    table = slips(result, PLANTED, worlds=WORLDS)
    reasons = {row["why it was kept"] for row in table}
    assert reasons == {
        "the fact left out was not needed",
        "the wrong answer is near enough to score",
        "the guess happens to be right",
    }
    rows = quality(result)
    assert sum(row["traces"] for row in table) == sum(
        outcome.status == "kept" and bool(PLANTED[outcome.sample.sample_id])
        for outcome in result.outcomes
    )
    assert sum(row["traces"] for row in table) + rows["none"]["traces"] == len(result.kept)


def test_two_errors_that_cancel_out_are_a_think_answer_mismatch(tmp_path):
    """The reasoning ends elsewhere and the answer is right: no filter sees it."""
    rates = replace(NO_ERRORS, wrong_reasoning=1.0, wrong_answer=1.0)
    annotator = SimulatedAnnotator(WORLDS, Annotator(rates))
    result = run(tmp_path, annotator)
    planted = annotator.planted(SAMPLES)
    right = [
        outcome
        for outcome in result.outcomes
        if outcome.score == 1.0 and len(planted[outcome.sample.sample_id]) == 2
    ]
    assert len(right) > 30
    for outcome in right:
        assert outcome.status == "kept"
        if outcome.sample.options:
            option = f"The answer is {outcome.sample.answer}."
            assert option not in parse(outcome.text).think
    table = slips(result, planted, worlds=WORLDS)
    counts = {row["why it was kept"]: row["traces"] for row in table}
    assert counts["the reasoning ends elsewhere, but the answer is right"] == len(right)


# ---------------------------------------------------------------- a judge that errs


@dataclass(frozen=True)
class ErringJudge:
    """The rule judge, turned round on every `every`-th sample of a kind of verdict."""

    lenient: bool
    id: str = "erring"

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        return [self._err(verdict) for verdict in RuleJudge(WORLDS).judge(requests)]

    def _err(self, verdict: Verdict) -> Verdict:
        return verdict if verdict.sufficient is self.lenient else Verdict(self.lenient)


def test_a_judge_that_finds_all_sufficient_lets_harm_slip(tmp_path, result):
    lenient = run(tmp_path, judge=ErringJudge(lenient=True))
    rows, strict = quality(lenient), quality(result)
    assert rows["all"]["precision"] == 1.0
    assert rows["all"]["slipped"] == strict["all"]["insufficient observation"] > 20
    assert rows["all"]["recall"] == pytest.approx(
        1 - rows["all"]["slipped"] / rows["all"]["harmful"]
    )
    assert rows["leak"]["recall"] < strict["leak"]["recall"] == 1.0
    why = {row["why it was kept"] for row in slips(lenient, PLANTED, worlds=WORLDS)}
    assert "the judge let it pass" in why


def test_a_reader_without_the_clip_misses_what_is_invented(tmp_path, result):
    rows, strict = quality(run(tmp_path, judge=ReaderJudge())), quality(result)
    assert rows["leak"]["slipped"] == 0
    assert rows["invented_fact"]["slipped"] > 20
    assert rows["invented_fact"]["recall"] < 0.7
    assert strict["invented_fact"]["recall"] == 1.0


def test_a_judge_that_finds_none_sufficient_drops_the_good(tmp_path):
    rows = quality(run(tmp_path, judge=ErringJudge(lenient=False)))
    assert rows["all"]["recall"] == 1.0
    assert rows["none"]["precision"] == 0.0
    assert rows["all"]["precision"] == rows["all"]["harmful"] / len(SAMPLES)
    assert rows["none"]["recall"] is None


def test_failures_of_the_judge_decide_nothing(tmp_path):
    class Silent:
        id = "silent"

        def judge(self, requests):
            return [Verdict(None, error="no reply") for _ in requests]

    result = run(tmp_path, judge=Silent())
    rows = quality(result)
    assert result.counts["judge failed"] > 0
    assert rows["all"]["traces"] == len(SAMPLES) - result.counts["judge failed"]
    assert rows["all"]["insufficient observation"] == 0
    assert rows["all"]["precision"] == 1.0
