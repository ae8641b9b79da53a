"""The controlled English: every fact to its sentence and back, and nothing else is a fact."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from p2r_lib.toyworld.language import read, say, say_all
from p2r_lib.toyworld.world import (
    DIRECTIONS,
    GRID,
    MOVE_SECONDS,
    NAMES,
    WORDS,
    Motion,
    Place,
    Shown,
    Total,
)

coordinates = st.integers(1, GRID)
names, seconds = st.sampled_from(NAMES), st.sampled_from(MOVE_SECONDS)
facts = st.one_of(
    st.builds(Place, names, coordinates, coordinates),
    st.builds(Motion, names, st.sampled_from(list(DIRECTIONS)), seconds),
    st.builds(Motion, names, st.none(), st.none()),
    st.builds(Shown, st.sampled_from(WORDS), seconds),
    st.builds(Total, st.integers(0, 9)),
)


@pytest.mark.parametrize(
    ("fact", "sentence"),
    [
        (Place("red circle", 1, 3), "A red circle is at row 1, column 3."),
        (Motion("red circle", "up", 2), "The red circle moves up at second 2."),
        (Motion("red circle", None, None), "The red circle stays still."),
        (Shown(WORDS[0], 1), f"The word {WORDS[0]} appears at second 1."),
        (Total(1), "There is 1 object in total."),
        (Total(4), "There are 4 objects in total."),
    ],
)
def test_sentences_by_hand(fact, sentence):
    assert say(fact) == sentence
    assert read(sentence) == [fact]


@given(st.lists(facts))
def test_what_is_said_is_read_in_order(said):
    assert read(say_all(said)) == said


@given(facts, facts)
def test_different_facts_have_different_sentences(one, other):
    assume(one != other)
    assert say(one) != say(other)


CASES = (str.lower, str.upper, str.title, str.swapcase)


@given(
    st.lists(facts, min_size=1),
    st.sampled_from(CASES),
    st.lists(st.sampled_from([" ", "  ", "\n", "\t", "\n\n "]), min_size=1, max_size=7),
    st.sampled_from([".", "!", "?", ";", " .", "...", ".\n", "?!"]),
)
def test_case_spacing_and_end_marks_do_not_matter(said, case, spaces, end):
    words = case(say_all(said)).replace(".", end).split(" ")
    spaced = "".join(
        word + spaces[index % len(spaces)] if word else "" for index, word in enumerate(words)
    )
    assert read(f"\n {spaced}") == said


@given(st.lists(facts), st.lists(st.sampled_from([
    "Based on the question, I need to notice when the red circle moves.",
    "I see a red circle.",
    "Well.",
    "The answer is red circle.",
    "It is 3.5 cells away!",
])), st.randoms(use_true_random=False))  # fmt: skip
def test_other_sentences_are_passed_over(said, others, rng):
    sentences = [(fact, say(fact)) for fact in said] + [(None, other) for other in others]
    rng.shuffle(sentences)
    text = " ".join(sentence for _, sentence in sentences)
    assert read(text) == [fact for fact, _ in sentences if fact]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " . . ",
        "The red circle is at row 1, column 3.",  # a place is stated with «A»
        "A red circle is at row 1.",
        "A red circle is at column 3, row 1.",
        "A red circle is at row one, column three.",
        "A red circle is at row 12, column 3.",
        "A crimson circle is at row 1, column 3.",
        "A red circle is not at row 1, column 3.",
        "A red circle is at row 1, column 3, I think.",
        "Perhaps a red circle is at row 1, column 3.",
        "It is not true that the red circle stays still.",
        "The red circle moves up.",
        "The red circle moves up at second 2 or 3.",
        "The red circle and the blue square stay still.",
        "The word xyzzy appears at second 1.",
        "The word appears at second 1.",
        "There are three objects in total.",
        "There are 3 objects.",
        "A red circle is at row 1, column 3 The red circle stays still.",  # no end between
        "<observation>A red circle is at row 1, column 3</observation>",
    ],
)
def test_what_is_no_statement_of_the_four_forms_states_nothing(text):
    assert read(text) == []


def test_a_sentence_may_lack_its_end():
    assert read("the red circle stays still") == [Motion("red circle", None, None)]


def test_a_contradiction_is_read_as_two_facts():
    assert len(read("The red circle stays still. The red circle moves up at second 1.")) == 2


def test_only_facts_can_be_said():
    with pytest.raises(TypeError, match="not a fact"):
        say("The red circle stays still.")


@given(st.text())
@settings(max_examples=200)
def test_any_text_can_be_read(text):
    assert all(read(say(fact)) == [fact] for fact in read(text))
