import doctest
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2r_lib import answers
from p2r_lib.answers import option_letter, parse_number, score
from p2r_lib.samples import PROBLEM_TYPES

COLOURS = ("A. red circle", "B. A blue ball", "C. 5", "D. green")

text = st.text(max_size=40)
word = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
sentence = st.lists(word, min_size=1, max_size=8).map(" ".join)
number = st.integers(-(10**9), 10**9) | st.floats(-1e12, 1e12, allow_nan=False)


# ------------------------------------------------------------- all five


@settings(deadline=None)
@given(st.sampled_from(PROBLEM_TYPES), text, text, st.lists(text, max_size=5))
def test_every_score_lies_between_0_and_1(problem_type, predicted, truth, options):
    assert 0.0 <= score(problem_type, predicted, truth, options=options) <= 1.0


@settings(deadline=None)
@given(st.sampled_from(("OCR", "free-form")), sentence)
def test_the_truth_scores_1_for_text(problem_type, truth):
    assert score(problem_type, truth, truth) == pytest.approx(1.0)


@settings(deadline=None)
@given(st.sampled_from(("numerical", "regression")), number)
def test_the_truth_scores_1_for_numbers(problem_type, truth):
    assert score(problem_type, str(truth), str(truth)) == 1.0


@settings(deadline=None)
@given(st.lists(sentence, min_size=1, max_size=6, unique=True), st.data())
def test_the_truth_scores_1_for_options(texts, data):
    options = [f"{chr(65 + i)}. {option}" for i, option in enumerate(texts)]
    chosen = data.draw(st.integers(0, len(options) - 1))
    letter = chr(65 + chosen)
    for predicted in (letter, f"({letter.lower()})", options[chosen]):
        assert score("multiple choice", predicted, letter, options=options) == 1.0
    for other in set(range(len(options))) - {chosen}:
        assert score("multiple choice", chr(65 + other), letter, options=options) == 0.0


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@pytest.mark.parametrize("predicted", [None, "", " \n"])
@pytest.mark.parametrize("truth", ["A", "0", "", " "])
def test_an_empty_answer_scores_0_whatever_the_truth(problem_type, predicted, truth):
    assert score(problem_type, predicted, truth) == 0.0


@pytest.mark.parametrize("predicted", ["red", "", None])
def test_an_unknown_problem_type_names_the_five(predicted):
    with pytest.raises(ValueError) as error:
        score("ocr", predicted, "red")
    assert all(name in str(error.value) for name in ("'ocr'", *PROBLEM_TYPES))


# ------------------------------------------------------------- multiple choice


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("(b).", "B"),
        (" B ", "B"),
        ("A. red circle", "A"),
        ("(A) Red  Circle.", "A"),
        ("a) red circle", "A"),
        ("A red circle", "A"),
        ("red circle", "A"),
        ("A blue ball", "B"),
        ("a blue ball.", "B"),
        ("5", "C"),
        ("A. the round red thing", "A"),
        ("D: green", "D"),
        ("A green thing", None),
        ("A red ball", None),
        ("E", None),
        ("A or B", None),
        ("A. B.", None),
        ("A. or (B)", None),
        ("A. green", None),
        ("A, B", None),
        ("circle", None),
        ("...", None),
        ("", None),
    ],
)
def test_option_letter(answer, letter):
    assert option_letter(answer, COLOURS) == letter


def test_a_letter_comes_before_an_option_that_consists_of_that_letter():
    assert option_letter("B", ["A. B", "B. A"]) == "B"
    assert option_letter("X", ["A. X", "B. Y"]) == "A"


def test_text_that_two_options_share_names_neither():
    assert option_letter("red", ["A. red", "B. red"]) is None


def test_options_without_letters_are_counted():
    assert option_letter("blue", ["red", "blue"]) == "B"
    assert option_letter("c", ["red", "blue"]) is None


def test_without_options_only_a_letter_can_be_named():
    assert option_letter("(q)") == "Q"
    assert option_letter("B. red circle") == "B"
    assert option_letter("A red ball") is None


def test_the_truth_may_be_an_option_in_full():
    assert score("multiple choice", "a", "A. red circle", options=COLOURS) == 1.0
    assert score("multiple choice", "B", "red circle", options=COLOURS) == 0.0


# ------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ("5", "5", 1.0),
        (" 5 ", "5", 1.0),
        ("05", "5", 1.0),
        ("5.0", "5", 0.0),  # a separator on one side only
        ("5", "5.0", 0.0),
        ("5.", "5.0", 1.0),
        ("1,200", "1200", 0.0),
        ("1,200", "1200.0", 1.0),  # a separator on both, of whatever kind
        ("3.141", "3.14", 1.0),
        ("3.146", "3.14", 0.0),
        ("-2", "2", 0.0),
        ("1e3", "1000", 1.0),
        ("five", "5", 0.0),
        ("5 apples", "5", 0.0),
        ("5", "five", 0.0),
        ("five", "five", 0.0),
        ("nan", "nan", 0.0),
        ("inf", "inf", 0.0),
    ],
)
def test_numerical(predicted, truth, expected):
    assert score("numerical", predicted, truth) == expected


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ("10", "10", 1.0),
        ("9", "10", 0.9),
        ("12.5", "10", 0.75),
        ("-9", "-10", 0.9),
        ("1,100", "1000", 0.9),
        ("20", "10", 0.0),
        ("-10", "10", 0.0),
        ("0", "0", 1.0),
        ("-0.0", "0", 1.0),
        ("0.001", "0", 0.0),
        ("many", "10", 0.0),
        ("10", "many", 0.0),
        ("1e308", "5e-324", 0.0),
    ],
)
def test_regression(predicted, truth, expected):
    assert score("regression", predicted, truth) == pytest.approx(expected)


@settings(deadline=None)
@given(st.floats(1e-3, 1e6), st.floats(0, 0.9))
def test_regression_falls_by_the_relative_error(truth, error):
    assert score("regression", repr(truth * (1 + error)), repr(truth)) == pytest.approx(1 - error)


@pytest.mark.parametrize(
    ("text_", "expected"),
    [
        ("1,200.5", 1200.5),
        ("+.5", 0.5),
        ("2.", 2.0),
        ("1E-2", 0.01),
        ("1_000", None),
        ("0x10", None),
        ("1e999", None),
        ("-", None),
        (".", None),
        (",", None),
        ("50%", None),
        ("٣", None),
    ],
)
def test_parse_number(text_, expected):
    assert parse_number(text_) == expected


@settings(deadline=None)
@given(text)
def test_parse_number_gives_a_finite_number_or_none(text_):
    value = parse_number(text_)
    assert value is None or math.isfinite(value)


# ------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ("no parking here", "no parking here", 1.0),
        ("no\tparking\n here", "no parking\rhere", 1.0),
        ("no parking", "no parking here", 2 / 3),  # one word left out of three
        ("no barking here today", "no parking here", 1 / 3),  # one replaced, one put in
        ("a b c d e f g", "x", 0.0),  # more errors than words: clipped
        ("NO PARKING", "no parking", 0.0),  # letters are read as they stand
        ("no", " ", 0.0),
    ],
)
def test_ocr_is_one_minus_the_word_error_rate(predicted, truth, expected):
    assert score("OCR", predicted, truth) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("The cat sat.", "the cat sat", 1.0),
        ("the cats sat", "the cat sat", 1.0),  # the stemmer
        # ROUGE-1: 2 common words of 3 and 3; ROUGE-2: 1 common pair of 2 and 2; ROUGE-L: 2 of 3
        ("the cat ran", "the cat sat", (2 / 3 + 1 / 2 + 2 / 3) / 3),
        # ROUGE-1: 3 of 3; no common pair; longest common subsequence 1 word of 3
        ("sat cat the", "the cat sat", (1 + 0 + 1 / 3) / 3),
        ("a dog", "the cat sat", 0.0),
        ("red ball", "red", (2 / 3 + 0 + 2 / 3) / 3),
    ],
)
def test_free_form_is_the_mean_of_three_rouges(predicted, truth, expected):
    assert score("free-form", predicted, truth) == pytest.approx(expected)


@pytest.mark.parametrize("truth", ["red", "Red", "红色的球"])
def test_an_equal_free_form_answer_scores_1_where_rouge_is_undefined(truth):
    assert score("free-form", f" {truth.lower()} ", truth) == 1.0


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(answers)
    assert result.attempted >= 3
    assert result.failed == 0
