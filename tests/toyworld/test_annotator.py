"""Planted errors are in the trace as described, and those without room are not listed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2r_lib.template import parse
from p2r_lib.toyworld.annotator import (
    ERRORS,
    NO_ERRORS,
    Annotator,
    ErrorRates,
    Trace,
    think_text,
    write_trace,
)
from p2r_lib.toyworld.language import read
from p2r_lib.toyworld.questions import (
    KINDS,
    Question,
    conclusions,
    needed_facts,
    sample_question,
    solve,
)
from p2r_lib.toyworld.world import WORDS, Motion, Shown, Sign, Thing, World


def planted(kind: str, errors: list[str], seed: int) -> tuple[Question, World, Trace]:
    rng = random.Random(f"{kind} {seed}")
    world, question = sample_question(rng, kind)
    return question, world, write_trace(question, world, errors, rng)


def many(kind: str, *errors: str) -> list[tuple[Question, World, Trace]]:
    return [planted(kind, list(errors), seed) for seed in range(40)]


@pytest.mark.parametrize("kind", KINDS)
def test_without_errors_everything_is_right(kind):
    for question, world, trace in many(kind):
        response = parse(trace.text)
        assert trace.errors == () == response.problems
        assert sorted(map(str, read(response.observation))) == sorted(
            map(str, needed_facts(question, world))
        )
        assert response.answer == question.answer(solve(question, world))
        assert response.think.startswith("Based on the observations, ")
        assert response.observation.startswith("Based on the question, I need to notice ")


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_fact(kind):
    for question, world, trace in many(kind, "wrong_fact"):
        facts = read(parse(trace.text).observation)
        assert trace.errors == ("wrong_fact",)
        assert len(facts) == len(needed_facts(question, world))
        assert sum(not fact.holds(world) for fact in facts) == 1
        assert conclusions(question, facts)  # it fits with what else is said


@pytest.mark.parametrize("kind", KINDS)
def test_missing_fact(kind):
    for question, world, trace in many(kind, "missing_fact"):
        response = parse(trace.text)
        facts, needed = read(response.observation), needed_facts(question, world)
        assert trace.errors == ("missing_fact",)
        assert set(facts) < set(needed)
        assert len(facts) == len(needed) - 1
        assert response.answer in map(question.answer, possible(question, facts))


def possible(question: Question, facts: list) -> list[str]:
    """Conclusions that the facts leave and that an answer can state."""
    ends = conclusions(question, facts)
    return [end for end in ends if not question.options or end in question.options]


@pytest.mark.parametrize("kind", KINDS)
def test_leak(kind):
    for question, world, trace in many(kind, "leak", "wrong_fact", "missing_fact"):
        response = parse(trace.text)
        assert trace.errors == ("leak",)
        assert read(response.observation) == []
        assert response.answer.rstrip(".") in response.observation
        assert response.answer == question.answer(solve(question, world))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_reasoning_draws_what_the_facts_exclude(kind):
    for question, world, trace in many(kind, "wrong_reasoning"):
        response = parse(trace.text)
        facts = read(response.observation)
        truth = solve(question, world)
        assert trace.errors == ("wrong_reasoning",)
        assert conclusions(question, facts) == {truth}
        assert response.answer != question.answer(truth)
        assert response.think != f"Based on the observations, {think_text(question, facts, truth)}"


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_answer_differs_from_right_reasoning(kind):
    for question, world, trace in many(kind, "wrong_answer"):
        response = parse(trace.text)
        facts = read(response.observation)
        truth = solve(question, world)
        assert trace.errors == ("wrong_answer",)
        assert response.answer != question.answer(truth)
        assert response.think == f"Based on the observations, {think_text(question, facts, truth)}"


@pytest.mark.parametrize("kind", KINDS)
def test_invented_fact_is_false_and_changes_nothing(kind):
    for question, world, trace in many(kind, "invented_fact"):
        response = parse(trace.text)
        facts, needed = read(response.observation), needed_facts(question, world)
        if world.data_type == "image" and kind == "count":
            assert trace.errors == ()  # whatever else an image may show would change the count
            continue
        assert trace.errors == ("invented_fact",)
        (lie,) = [fact for fact in facts if fact not in needed]
        assert len(facts) == len(needed) + 1
        assert not lie.holds(world)
        assert conclusions(question, facts) == {solve(question, world)}
        assert response.answer == question.answer(solve(question, world))


@pytest.mark.parametrize("kind", KINDS)
def test_guess_combines_no_facts(kind):
    right = 0
    for question, world, trace in many(kind, "guess", "wrong_reasoning"):
        response = parse(trace.text)
        assert trace.errors == ("guess",)
        assert response.think.startswith("Based on the observations, I cannot tell for sure.")
        assert set(read(response.observation)) == set(needed_facts(question, world))
        right += response.answer == question.answer(solve(question, world))
    assert right < 25  # of 40: some guesses are lucky


def test_every_broken_template_is_caught_and_each_way_occurs():
    problems = Counter()
    for kind in KINDS:
        for _, _, trace in many(kind, "broken_template"):
            assert trace.errors == ("broken_template",)
            problems[parse(trace.text).problems] += 1
    assert set(problems) == {
        ("observation missing",),
        ("observation not closed",),
        ("think missing",),
        ("think not closed",),
        ("answer missing",),
    }


def test_errors_without_room_are_not_listed():
    rng = random.Random(0)
    world = World((Thing("red", "circle", 1, 1, "right", 2),))
    question = Question("direction", ("red circle",), ("left", "right", "up", "down"))
    # The only needed fact is left out: none stated could be wrong, and any direction is a guess.
    trace = write_trace(question, world, ["wrong_fact", "missing_fact", "wrong_reasoning"], rng)
    assert trace.errors == ("missing_fact",)
    cut_off = {"missing_fact", "wrong_answer"}
    listed = {
        write_trace(question, world, [*cut_off, "broken_template"], random.Random(seed)).errors
        for seed in range(60)
    }
    assert listed == {
        ("missing_fact", "wrong_answer", "broken_template"),
        ("missing_fact", "broken_template"),  # the answer is cut off
        ("wrong_answer", "broken_template"),  # the observation is cut off
    }


def test_lies_of_words_stay_two_words_at_different_seconds():
    world = World((), (Sign(WORDS[0], 1, 1, 1), Sign(WORDS[1], 1, 1, 2)))
    for seed in range(50):
        trace = write_trace(Question("words"), world, ["wrong_fact"], random.Random(seed))
        first, second = read(parse(trace.text).observation)
        assert isinstance(first, Shown)
        assert first.word != second.word
        assert first.second != second.second


@given(
    st.sampled_from(KINDS),
    st.lists(st.sampled_from(ERRORS), unique=True),
    st.integers(0, 10**6),
)
@settings(max_examples=300, deadline=None)
def test_listed_errors_are_there_and_no_others(kind, errors, seed):
    question, world, trace = planted(kind, errors, seed)
    assert set(trace.errors) <= set(errors)
    assert list(trace.errors) == [name for name in ERRORS if name in trace.errors]
    response = parse(trace.text)
    assert bool(response.problems) == ("broken_template" in trace.errors)
    if "observation not opened" in response.problems or response.observation is None:
        return
    facts, needed = read(response.observation), needed_facts(question, world)
    if "leak" in trace.errors:
        assert facts == []
        return
    lies = [fact for fact in facts if not fact.holds(world)]
    assert len(lies) == len({"wrong_fact", "invented_fact"} & set(trace.errors))
    assert len(needed) - len(facts) == (
        ("missing_fact" in trace.errors) - ("invented_fact" in trace.errors)
    )
    assert not any(isinstance(f, Motion) and f.direction is None for f in facts)


def test_annotation_depends_on_its_seed_alone():
    rates = ErrorRates(*[0.3] * len(ERRORS))
    world, question = sample_question(random.Random(1), "order")
    texts = [
        Annotator(rates).annotate(question, world, seed=seed) for seed in (1, 2, 1, *range(30))
    ]
    assert texts[0] == texts[2] == texts[4]
    assert len({trace.text for trace in texts}) > 10


def test_rates_and_hardship():
    assert ErrorRates(wrong_fact=0.2).harder(10).wrong_fact == 0.9
    assert NO_ERRORS.harder(10) == NO_ERRORS
    hard = Annotator(replace(NO_ERRORS, missing_fact=0.2), {"order": 4.5, "side": 0.0})
    counts = Counter()
    for kind in ("order", "distance", "side"):
        for seed in range(300):
            world, question = sample_question(random.Random(f"{kind}{seed}"), kind)
            counts[kind] += hard.annotate(question, world, seed=seed).errors == ("missing_fact",)
    assert counts["side"] == 0
    assert 0.83 * 300 < counts["order"] < 0.97 * 300
    assert 0.12 * 300 < counts["distance"] < 0.28 * 300
