"""The rule judge agrees with an exhaustive enumeration of worlds, written independently of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, product
from math import prod

import pytest

from p2r_lib.judges.base import JudgeRequest
from p2r_lib.samples import VideoQA
from p2r_lib.toyworld.judge import ReaderJudge, RuleJudge, sufficiency
from p2r_lib.toyworld.language import say_all
from p2r_lib.toyworld.questions import (
    KINDS,
    Question,
    conclusions,
    needed_facts,
    sample_question,
    solve,
)
from p2r_lib.toyworld.world import (
    COLOURS,
    DIRECTIONS,
    MAX_THINGS,
    NAMES,
    WORDS,
    Fact,
    Motion,
    Place,
    Shown,
    Sign,
    Thing,
    Total,
    World,
    facts_of,
)

# ---------------------------------------------------------------- every world there could be


def states(name: str) -> list[Thing]:
    """Every thing of this name: 9 cells, still or moving to a neighbouring cell at second 1..3."""
    colour, shape = name.split()
    things = []
    for row, column in product((1, 2, 3), repeat=2):
        things.append(Thing(colour, shape, row, column))
        neighbours = {
            "left": (row, column - 1),
            "right": (row, column + 1),
            "up": (row - 1, column),
            "down": (row + 1, column),
        }
        for direction, (to_row, to_column) in neighbours.items():
            if 1 <= to_row <= 3 and 1 <= to_column <= 3:
                things += [
                    Thing(colour, shape, row, column, direction, second) for second in (1, 2, 3)
                ]
    return things


STATES = {name: states(name) for name in NAMES}


def mentioned(question: Question, facts: Sequence[Fact]) -> list[str]:
    """Names of the things that the question or a fact speaks of."""
    asked = question.arguments[: {"direction": 1, "count": 0, "words": 0}.get(question.kind, 2)]
    return sorted({*asked, *(fact.name for fact in facts if isinstance(fact, Place | Motion))})


def fitting_states(name: str, facts: Sequence[Fact]) -> list[Thing]:
    """States of one thing in which every fact about it holds."""
    own = [fact for fact in facts if isinstance(fact, Place | Motion) and fact.name == name]
    return [t for t in STATES[name] if all(fact.holds(World((t,))) for fact in own)]


def apart(things: Sequence[Thing]) -> bool:
    return len({(thing.row, thing.column) for thing in things}) == len(things)


def with_others(things: tuple[Thing, ...], names: Sequence[str]) -> tuple[Thing, ...]:
    """These things and others of the given names, standing still in the first free cells."""
    taken = {(thing.row, thing.column) for thing in things}
    free = [cell for cell in product((1, 2, 3), repeat=2) if cell not in taken]
    return things + tuple(
        Thing(*name.split(), *cell) for name, cell in zip(names, free, strict=False)
    )


def things_worlds(question: Question, facts: Sequence[Fact]) -> Iterator[World]:
    """Worlds of up to four things in which the mentioned ones take every state that fits.

    Of the others only names and number can matter, so each set of names comes once for each state
    of the mentioned ones.
    """
    names = mentioned(question, facts)
    signs = tuple(Sign(f.word, 1, 1, f.second) for f in facts if isinstance(f, Shown))
    rest = [name for name in NAMES if name not in names]
    for extra in range(MAX_THINGS - len(names) + 1):
        sets = combinations(rest, extra) if question.kind == "count" else [rest[:extra]]
        for others in sets:
            for things in product(*(fitting_states(name, facts) for name in names)):
                world = World(with_others(things, others), signs)
                if apart(things) and all(fact.holds(world) for fact in facts):
                    yield world
                    if question.kind == "count":
                        break  # the next state of the same things counts the same


def words_worlds(facts: Sequence[Fact]) -> Iterator[World]:
    """Worlds with two cards, crossed with every state of the things that facts speak of."""
    somewhere = [world.things for world in things_worlds(Question("words"), facts)][:1]
    cards = product(product(WORDS, (1, 2, 3)), repeat=2)
    for (word, second), (other, later) in cards:
        if word != other and second != later and somewhere:
            world = World(somewhere[0], (Sign(word, 1, 1, second), Sign(other, 3, 3, later)))
            if all(fact.holds(world) for fact in facts if isinstance(fact, Shown)):
                yield world


def presupposed(question: Question, world: World) -> bool:
    """Whether what the question's text takes for granted is so."""
    if question.kind == "direction":
        return world.thing(question.arguments[0]).direction is not None
    if question.kind in ("order", "motion"):
        a, b = (world.thing(name) for name in question.arguments[:2])
        return a.second is not None and b.second is not None and a.second != b.second
    if question.kind == "side":
        a, b = (world.thing(name) for name in question.arguments)
        return a.row == b.row or a.column == b.column
    return True


def enumerated(question: Question, facts: Sequence[Fact]) -> set[str]:
    """The answer of every world that fits facts and question."""
    worlds = words_worlds(facts) if question.kind == "words" else things_worlds(question, facts)
    return {solve(question, world) for world in worlds if presupposed(question, world)}


def test_enumeration_covers_all_states():
    corners, edges, centre = 4 * (1 + 2 * 3), 4 * (1 + 3 * 3), 1 + 4 * 3
    assert all(len(set(things)) == corners + edges + centre == 81 for things in STATES.values())


# ---------------------------------------------------------------- facts to try


def lie(rng: random.Random, names: Sequence[str]) -> Fact:
    """A statement that need not be true, about one of these things or a word."""
    name = rng.choice(names)
    return rng.choice(
        [
            Place(name, rng.randint(1, 3), rng.randint(1, 3)),
            Motion(name, rng.choice(list(DIRECTIONS)), rng.randint(1, 3)),
            Motion(name, None, None),
            Total(rng.randint(0, MAX_THINGS + 1)),
            Shown(rng.choice(WORDS), rng.randint(1, 3)),
        ]
    )


def stated(rng: random.Random, question: Question, world: World) -> list[Fact]:
    """A random set of facts: true ones only, or with up to two lies among them."""
    true, needed = facts_of(world), needed_facts(question, world)
    facts = [fact for fact in needed if rng.random() < 0.7]
    facts += [fact for fact in true if fact not in facts and rng.random() < 0.35]
    names = [thing.name for thing in world.things] or list(NAMES)
    names = [*names * 4, rng.choice(NAMES)]
    facts += [lie(rng, names) for _ in range(rng.choice((0, 0, 0, 1, 1, 2)))]
    rng.shuffle(facts)
    return facts


def small_enough(question: Question, facts: Sequence[Fact], *, limit: int = 25_000) -> bool:
    return prod(len(fitting_states(n, facts)) for n in mentioned(question, facts)) <= limit


def cases(kind: str, count: int, seed: str) -> Iterator[tuple[Question, World, list[Fact]]]:
    rng = random.Random(f"{kind} {seed}")
    while count:
        image = kind in ("side", "count", "distance") and rng.random() < 0.3
        world, question = sample_question(rng, kind, data_type="image" if image else "video")
        facts = stated(rng, question, world)
        if small_enough(question, facts):
            count -= 1
            yield question, world, facts


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize("kind", KINDS)
def test_conclusions_and_verdict_agree_with_enumeration(kind):
    seen = {"sufficient": 0, "open": 0, "false": 0, "contradiction": 0}
    for question, world, facts in cases(kind, 100, "agree"):
        ends = enumerated(question, facts)
        assert conclusions(question, facts) == ends, (question, facts)
        truth = solve(question, world)
        true = all(fact.holds(world) for fact in facts)
        verdict, _ = sufficiency(question, question.answer(truth), say_all(facts), world)
        assert verdict == (true and ends == {truth}), (question, facts)
        what = "contradiction" if not ends else "false" if not true else "open"
        seen["sufficient" if verdict else what] += 1
    assert min(seen.values()) >= 3, seen  # every sort of case was met


@pytest.mark.parametrize("kind", ["order", "side", "distance", "motion"])
def test_pairs_agree_with_all_joint_states(kind):
    """The same with no state left out beforehand: 81 x 81 worlds for each question."""
    rng = random.Random(f"joint {kind}")
    for _ in range(25):
        world, question = sample_question(rng, kind)
        pair = question.arguments[:2]
        facts = [f for f in facts_of(world) if getattr(f, "name", None) in pair]
        facts = [f for f in facts if rng.random() < 0.5]
        facts += [lie(rng, pair) for _ in range(rng.choice((0, 0, 1)))]
        facts = [f for f in facts if isinstance(f, Place | Motion)]
        worlds = (World(pair) for pair in product(STATES[pair[0]], STATES[pair[1]]))
        ends = {
            solve(question, world)
            for world in worlds
            if all(fact.holds(world) for fact in facts)
            and apart(world.things)
            and presupposed(question, world)
        }
        assert conclusions(question, facts) == ends, (question, facts)


def test_counts_agree_with_every_world_of_a_small_vocabulary(monkeypatch):
    """Four names and at most three things, so that every world can be built, state by state."""
    import p2r_lib.toyworld.questions as questions

    names = [f"{colour} {shape}" for colour in ("red", "blue") for shape in ("circle", "square")]
    monkeypatch.setattr(questions, "NAMES", tuple(names))
    monkeypatch.setattr(questions, "MAX_THINGS", 3)
    still = {name: [thing for thing in STATES[name] if thing.second is None] for name in names}
    worlds = [
        World(things)
        for size in range(4)
        for chosen in combinations(names, size)
        for things in product(*(still[name] for name in chosen))
        if apart(things)
    ]
    assert len(worlds) == 1 + 4 * 9 + 6 * 72 + 4 * 504
    rng = random.Random(0)
    for _ in range(150):
        world = rng.choice(worlds)
        facts = [f for f in facts_of(world) if not isinstance(f, Motion) and rng.random() < 0.6]
        lies = [lie(rng, names) for _ in range(rng.choice((0, 1)))]
        facts += [f for f in lies if isinstance(f, Place | Total)]
        question = Question("count", (rng.choice(("red", "blue", "circles", "squares")),))
        left = {solve(question, w) for w in worlds if all(f.holds(w) for f in facts)}
        assert conclusions(question, facts) == left, (question, facts)


@pytest.mark.parametrize("kind", KINDS)
def test_no_set_of_true_facts_rules_out_the_truth(kind):
    """Sound: what holds of a world never excludes its answer, nor do more facts add answers."""
    rng = random.Random(f"sound {kind}")
    for _ in range(150):
        world, question = sample_question(rng, kind)
        facts = facts_of(world)
        rng.shuffle(facts)
        ends = [conclusions(question, facts[:size]) for size in range(len(facts) + 1)]
        assert all(later <= earlier for earlier, later in pairwise(ends))
        assert (
            ends[-1]
            == {solve(question, world)}
            == conclusions(question, needed_facts(question, world))
        )


def settled_anyway(question: Question, world: World, left: Sequence[Fact]) -> bool:
    """Whether the limits of the world make up for a needed fact that was left out.

    Nothing moves before second 1 or after second 3, so such a move is the first or the last; four
    things are all there can be, and three of one colour all of that colour.
    """
    if question.kind == "order":
        return left[0].second in (1, 3)
    return question.kind == "count" and len(world.things) >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_needed_fact_is_needed(kind):
    rng = random.Random(f"needed {kind}")
    for _ in range(60):
        world, question = sample_question(rng, kind)
        needed = needed_facts(question, world)
        for out in needed:
            left = [fact for fact in needed if fact != out]
            is_open = len(conclusions(question, left)) > 1
            assert is_open or settled_anyway(question, world, left), (question, left)
            if kind == "order":
                assert is_open == (left[0].second == 2)


# ---------------------------------------------------------------- by hand

RED, BLUE = Thing("red", "circle", 1, 1, "right", 1), Thing("blue", "square", 3, 1, "up", 3)
WORLD = World((RED, BLUE))
ORDER = Question(
    "order", ("red circle", "blue square", "last"), ("blue square", "red circle", "red square")
)


def judged(observation: str, *, question: Question = ORDER, answer: str = "A") -> tuple[bool, str]:
    return sufficiency(question, answer, observation, WORLD)


BOTH = "The red circle moves right at second 1. The blue square moves up at second 3."


def test_sufficient_by_hand():
    assert judged(BOTH) == (True, "The stated facts leave one answer: A")
    assert judged(f"I need to notice when they move. {BOTH} Now I know.")[0]
    # Second 3 is the last there is, so whatever moves at another second moves before it.
    assert judged("The blue square moves up at second 3.")[0]


def test_insufficient_by_hand():
    assert not judged("The red circle moves right at second 1, the blue square later.")[0]
    assert judged("")[1] == "The stated facts leave 2 answers open."


def test_one_false_fact_is_enough_to_fail():
    sufficient, why = judged(f"{BOTH} A blue square is at row 1, column 1.")
    assert not sufficient
    assert why == "Not true of the clip: A blue square is at row 1, column 1."
    assert not judged(f"{BOTH} The blue square moves up at second 2.")[0]  # and contradicts itself
    assert not judged(f"{BOTH} A green circle is at row 2, column 2.")[0]  # no such thing there


@pytest.mark.parametrize("kind", KINDS)
def test_naming_the_answer_or_the_option_does_not_suffice(kind):
    rng = random.Random(f"leak {kind}")
    for _ in range(20):
        world, question = sample_question(rng, kind)
        truth = solve(question, world)
        answer = question.answer(truth)
        leaks = [
            truth,
            answer,
            f"The answer is {answer}.",
            f"The right option is {answer}. {truth}",
            f"<answer>{answer}</answer>",
            f"{question.text} {truth}",
        ]
        assert not any(sufficiency(question, answer, leak, world)[0] for leak in leaks)


def test_facts_about_another_thing_can_settle_a_side():
    """Left of the blue square stands another thing, so the red circle can only be below it."""
    question = Question("side", ("red circle", "blue square"))
    facts = [
        Place("blue square", 1, 2),
        Place("green circle", 1, 1),
        Motion("red circle", "right", 2),
    ]
    assert conclusions(question, facts) == enumerated(question, facts) == {"below"}
    assert conclusions(question, facts[::2]) == {"left", "below"}


def test_facts_that_contradict_each_other_leave_nothing():
    question = Question("count", ("red",))
    two_places = [Place("red circle", 1, 1), Place("red circle", 2, 2)]
    one_cell = [Place("red circle", 1, 1), Place("blue circle", 1, 1)]
    off_grid = [Place("red circle", 1, 1), Motion("red circle", "left", 1)]
    too_few = [Total(1), Place("red circle", 1, 1), Place("blue circle", 2, 1)]
    too_many = [Place(f"{c} circle", 1, i) for i, c in enumerate(COLOURS[:3], 1)] + [
        Place("red square", 2, 1),
        Place("blue square", 2, 2),
    ]
    for facts in (two_places, one_cell, off_grid, too_few, too_many, [Total(1), Total(2)]):
        assert conclusions(question, facts) == enumerated(question, facts) == set()


# ---------------------------------------------------------------- the judge


def sample(question: Question, answer: str, path: str = "a.mp4", **changes) -> VideoQA:
    fields = {
        "problem_id": "1",
        "problem": question.text,
        "data_type": "video",
        "problem_type": question.problem_type,
        "options": question.lettered_options,
        "answer": answer,
        "path": path,
    }
    return VideoQA(**(fields | changes))


def test_judge_keeps_order_and_gives_reasons():
    judge = RuleJudge({"a.mp4": WORLD})
    good = JudgeRequest(sample(ORDER, "A"), BOTH)
    poor = JudgeRequest(sample(ORDER, "A"), "I see a red circle.")
    verdicts = judge.judge([good, poor, good])
    assert [verdict.sufficient for verdict in verdicts] == [True, False, True]
    assert all(verdict.judge == judge.id and verdict.explanation for verdict in verdicts)
    assert judge.judge([]) == []


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (sample(ORDER, "A", path="b.mp4"), "b.mp4"),
        (sample(ORDER, "A", problem="What is love?"), "What is love?"),
        (sample(ORDER, "A", options=("A. red", "B. blue")), "not in"),
    ],
)
def test_what_it_cannot_judge_is_a_failure_and_spares_the_others(broken, error):
    judge = RuleJudge({"a.mp4": WORLD})
    first, second = judge.judge(
        [JudgeRequest(broken, BOTH), JudgeRequest(sample(ORDER, "A"), BOTH)]
    )
    assert first.sufficient is None
    assert error in first.error
    assert second.sufficient is True


def test_stated_answer_must_be_the_true_one():
    """Facts that entail another answer than the sample's do not suffice for it."""
    assert judged(BOTH, answer="B")[0] is False


def test_a_reader_sees_no_falsehood_but_knows_what_follows():
    lie = "The word ox appears at second 1."
    assert judged(f"{BOTH} {lie}")[0] is False
    texts = [BOTH, f"{BOTH} {lie}", "I see a red circle.", "The right option is A."]
    requests = [JudgeRequest(sample(ORDER, "A"), text) for text in texts]
    verdicts = ReaderJudge().judge(requests)
    assert [verdict.sufficient for verdict in verdicts] == [True, True, False, False]
    assert all(verdict.judge == "toyworld-reader" and verdict.explanation for verdict in verdicts)
    unknown = sample(ORDER, "A", problem="What is love?")
    (failure,) = ReaderJudge().judge([JudgeRequest(unknown, BOTH)])
    assert failure.sufficient is None
    assert "What is love?" in failure.error
