"""Questions: their texts round-trip, their answers are what the frames show, options are fair."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2r_lib.answers import score
from p2r_lib.samples import PROBLEM_TYPES
from p2r_lib.toyworld.questions import (
    IMAGE_KINDS,
    KINDS,
    PROBLEM_TYPE,
    Question,
    ask,
    conclusions,
    needed_facts,
    parse_question,
    sample_question,
    solve,
)
from p2r_lib.toyworld.world import (
    COLOURS,
    DIRECTIONS,
    LAST_SECOND,
    MAX_THINGS,
    SHAPES,
    WORDS,
    Sign,
    Thing,
    World,
)

kinds, seeds = st.sampled_from(KINDS), st.integers(0, 2**32)


def drawn(kind: str, seed: int, data_type: str = "video") -> tuple[World, Question]:
    return sample_question(random.Random(seed), kind, data_type=data_type)


# ---------------------------------------------------------------- the answer, from the frames


def frames(world: World) -> list[dict[str, tuple[int, int]]]:
    """Where each thing is and each word is shown, second by second: all that a viewer has."""
    shown = []
    for second in range(LAST_SECOND + 1):
        cells = {thing.name: thing.cell_at(second) for thing in world.things}
        words = {s.word: (s.row, s.column) for s in world.signs if s.second == second}
        shown.append(cells | words)
    return shown


def move(shown: list[dict], name: str) -> tuple[int, str]:
    """(second, direction) at which a thing's cell changes."""
    second = next(s for s in range(1, len(shown)) if shown[s][name] != shown[s - 1][name])
    (row, column), (to_row, to_column) = shown[second - 1][name], shown[second][name]
    if row == to_row:
        return second, "left" if to_column < column else "right"
    return second, "up" if to_row < row else "down"


def watched(question: Question, world: World) -> str:
    """The answer that a viewer reads off the frames, worked out without the library's rules."""
    shown = frames(world)
    names = question.arguments
    if question.kind == "direction":
        return move(shown, names[0])[1]
    if question.kind == "order":
        by_time = sorted(names[:2], key=lambda name: move(shown, name))
        return by_time[0] if names[2] == "first" else by_time[1]
    if question.kind == "motion":
        (_, one, way), (_, two, other) = sorted(
            (second, name, way) for name in names for second, way in [move(shown, name)]
        )
        return f"The {one} moves {way}, then the {two} moves {other}."
    if question.kind == "words":
        words = [word for frame in shown for word in frame if word in WORDS]
        return " ".join(words)
    if question.kind == "count":
        wanted = names[0].rstrip("s") if names[0].endswith("s") else names[0]
        return str(sum(wanted in name.split() for name in shown[0] if name not in WORDS))
    (row, column), (other_row, other_column) = shown[0][names[0]], shown[0][names[1]]
    if question.kind == "distance":
        return str(abs(row - other_row) + abs(column - other_column))
    if row == other_row:
        return "left" if column < other_column else "right"
    return "above" if row < other_row else "below"


@given(kinds, seeds)
@settings(max_examples=400, deadline=None)
def test_the_answer_is_what_the_frames_show(kind, seed):
    world, question = drawn(kind, seed)
    assert question.kind == kind
    assert solve(question, world) == watched(question, world)


RED, BLUE = Thing("red", "circle", 1, 1, "right", 3), Thing("blue", "square", 3, 1, "up", 1)
WORLD = World(
    (RED, BLUE, Thing("red", "square", 3, 3)), (Sign(WORDS[1], 2, 2, 1), Sign(WORDS[0], 2, 2, 2))
)
PAIR = ("red circle", "blue square")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (Question("direction", PAIR[:1]), "right"),
        (Question("order", (*PAIR, "first")), "blue square"),
        (Question("order", (*PAIR, "last")), "red circle"),
        (Question("side", PAIR), "above"),
        (Question("side", PAIR[::-1]), "below"),
        (Question("side", ("blue square", "red square")), "left"),
        (Question("count", ("red",)), "2"),
        (Question("count", ("squares",)), "2"),
        (Question("count", ("triangles",)), "0"),
        (Question("distance", ("red circle", "red square")), "4"),
        (Question("motion", PAIR), "The blue square moves up, then the red circle moves right."),
        (Question("words"), f"{WORDS[1]} {WORDS[0]}"),
    ],
)
def test_answers_by_hand(question, answer):
    assert solve(question, WORLD) == watched(question, WORLD) == answer
    assert conclusions(question, needed_facts(question, WORLD)) == {answer}


# ---------------------------------------------------------------- texts


@given(kinds, seeds)
@settings(max_examples=300, deadline=None)
def test_questions_round_trip_through_their_text(kind, seed):
    _, question = drawn(kind, seed)
    assert parse_question(question.text, question.lettered_options) == question
    assert parse_question(f" {question.text}\n", question.lettered_options) == question


def test_texts_by_hand():
    question = Question("side", PAIR, ("left", "above", "right", "below"))
    assert question.text == (
        "The red circle and the blue square start in one row or column. "
        "On which side of the blue square is the red circle?"
    )
    assert question.lettered_options == ("A. left", "B. above", "C. right", "D. below")
    assert question.answer("above") == "B"
    assert Question("count", ("red",)).answer("2") == "2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "How many of the objects are?",
        "In which direction does the red circle move? And the blue square?",
        # the second mention must be of the same thing
        "The red circle and the blue square start in one row or column. "
        "On which side of the red circle is the red circle?",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="not a question of the toy world"):
        parse_question(text)


# ---------------------------------------------------------------- options, types, kinds


def test_the_five_problem_types_are_all_there():
    assert set(PROBLEM_TYPE.values()) == set(PROBLEM_TYPES)
    assert set(IMAGE_KINDS) < set(KINDS)


@given(kinds, seeds)
@settings(max_examples=300, deadline=None)
def test_options_are_different_and_hold_the_answer(kind, seed):
    world, question = drawn(kind, seed)
    assert bool(question.options) == (question.problem_type == "multiple choice")
    if question.options:
        assert len(set(question.options)) == len(question.options) == 4
        assert solve(question, world) in question.options
        ends = conclusions(question, [])
        assert ends <= set(question.options)  # else an answer could not be stated
    answer = question.answer(solve(question, world))
    options = question.lettered_options
    assert score(question.problem_type, answer, answer, options=options) == 1.0


@pytest.mark.parametrize("kind", ["direction", "order", "side"])
def test_the_right_option_stands_anywhere(kind):
    rng = random.Random(0)
    letters = Counter()
    for _ in range(600):
        world, question = sample_question(rng, kind)
        letters[question.answer(solve(question, world))] += 1
    assert set(letters) == set("ABCD")
    assert all(110 < count < 190 for count in letters.values()), letters


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("direction", set(DIRECTIONS)),
        ("side", {"left", "right", "above", "below"}),
        ("count", set("0123")),
        ("distance", set("1234")),
    ],
)
def test_every_answer_occurs_and_none_too_often(kind, answers):
    rng = random.Random(1)
    found = Counter()
    for _ in range(600):
        world, question = sample_question(rng, kind)
        found[solve(question, world)] += 1
    assert answers <= set(found)
    assert max(found.values()) < 0.6 * 600, found


@given(st.sampled_from(IMAGE_KINDS), seeds)
@settings(deadline=None)
def test_images_hold_nothing_that_takes_time(kind, seed):
    world, question = drawn(kind, seed, "image")
    assert world.data_type == "image"
    assert not world.signs
    assert all(thing.direction is None for thing in world.things)
    assert conclusions(question, needed_facts(question, world)) == {solve(question, world)}


@given(kinds, seeds)
@settings(max_examples=200, deadline=None)
def test_needed_facts_are_true_and_not_repeated(kind, seed):
    world, question = drawn(kind, seed)
    needed = needed_facts(question, world)
    assert all(fact.holds(world) for fact in needed)
    assert len(set(needed)) == len(needed) <= MAX_THINGS + 1


def test_a_world_without_matter_for_a_question():
    alone = World((Thing("red", "circle", 1, 1),))
    answers = {kind: ask(random.Random(0), kind, alone) for kind in KINDS}
    assert {kind for kind, question in answers.items() if question} == {"count"}
    assert ask(random.Random(0), "side", World((RED, Thing("red", "square", 2, 2)))) is None


def test_counting_asks_for_every_colour_and_shape():
    rng = random.Random(0)
    asked = {sample_question(rng, "count")[1].arguments[0] for _ in range(200)}
    assert asked == {*COLOURS, *(f"{shape}s" for shape in SHAPES)}


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind"):
        solve(Question("colour", ("red circle",)), WORLD)


def test_draws_depend_on_the_generator_alone():
    for kind in KINDS:
        assert drawn(kind, 5) == drawn(kind, 5)
        assert len({str(drawn(kind, seed)) for seed in range(20)}) > 15
