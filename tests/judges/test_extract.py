"""What the reasoning alone chose: definitive wording, the end first, and no guesses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2r_lib.judges.extract import RuleAnswerExtractor
from p2r_lib.samples import VideoQA

settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault
settings.load_profile("no deadline")


def ask(think, options=("A. red", "B. blue", "C. dark blue", "D. green")):
    sample = VideoQA("1", "Which colour?", "video", "multiple choice", options, "B", "x.mp4")
    return RuleAnswerExtractor().extract(sample, think)


@pytest.mark.parametrize(
    "think, letter",
    [
        ("So the answer is B.", "B"),
        ("so the answer is **B**", "B"),
        ("The correct answer is (B).", "B"),
        ("Answer: B", "B"),
        ("The answer is: B", "B"),
        ("Therefore, the answer must be option D.", "D"),
        ("That is option C.", "C"),
        ("This matches option C, the dark one.", "C"),
        ("I will go with D.", "D"),
        ("I choose option A because the ball is bright.", "A"),
        ("Option D is correct.", "D"),
        ("B is the right choice.", "B"),
        ("The ball moves left, so B.", "B"),
        ("So, B.", "B"),
        ("Let me think.\nB", "B"),
        ("The answer is A.", "A"),
        ("The answer is A because it is bright.", "A"),
        ("I think the answer is B.", "B"),
        ("The answer is B. blue", "B"),
        ("The answer is C: it is dark.", "C"),
        ("Thus the final answer is \\boxed{B}.", "B"),
        ("Only option C matches.", "C"),
        ("It must be C.", "C"),
        ("This is consistent with option D.", "D"),
        ("It has no other hue, making B the correct answer.", "B"),
        ("A: red, which it is not. B: blue, and it is blue. Therefore the answer is B.", "B"),
    ],
)
def test_definitive_selections(think, letter):
    assert ask(think) == letter


@pytest.mark.parametrize(
    "think, letter",
    [
        ("It could be A, but the answer is B.", "B"),
        ("The answer is B. It could be A at first sight.", "B"),
        ("Maybe A? Perhaps C? The shade is plain, so the answer is B. C might be too dark.", "B"),
        ("Is it option A? No. That is option D.", "D"),
        ("If the ball were dark, the answer would be C. The answer is B.", "B"),
        ("The answer is B. If it were dark, the answer is C.", "B"),
        ("The answer is B, not A.", "B"),
        ("The answer is not A but B.", "B"),
        ("The answer is B rather than C.", "B"),
        ("The answer is B because A is wrong.", "B"),
        ("Option A is wrong. Option C is wrong. So option B.", "B"),
    ],
)
def test_definitive_wins_over_speculative_and_denied(think, letter):
    assert ask(think) == letter


@pytest.mark.parametrize(
    "think, letter",
    [
        ("The answer is A. Wait, looking again it is dark. So the answer is C.", "C"),
        ("So the answer is A. Let me double check. Yes, everything fits.", "A"),
        ("The answer is A. Then again, the answer is D.", "D"),
        ("The answer is A. No, that is wrong.", None),
        ("The answer is A. But option A is wrong.", None),
        ("The answer is A. Hmm, none of the options fit.", None),
        ("I cannot tell from the first frame. Later it shows, so the answer is D.", "D"),
    ],
)
def test_the_end_has_priority(think, letter):
    assert ask(think) == letter


@pytest.mark.parametrize(
    "think, letter",
    [
        ("So the ball is green.", "D"),
        ("Therefore the answer is dark blue.", "C"),
        ("Therefore the answer is blue.", "B"),
        ("The square is in the corner. The ball is red.", "A"),
        ("The ball is red. So the answer is D.", "D"),
        ("The ball is not red.", None),
        ("The ball is red or green.", None),
        ("So it is red and green.", None),
        ("The ball is bluegreen.", None),
    ],
)
def test_option_text_is_mapped_to_its_letter(think, letter):
    assert ask(think) == letter


@pytest.mark.parametrize(
    "think, letter",
    [
        ("It is probably B.", "B"),
        ("It could be A or it could be B.", None),
        ("Perhaps A. Perhaps D.", None),
        ("The answer might be option C.", "C"),
        ("The answer is A or B.", None),
        ("If it is dark, the answer is C.", "C"),
    ],
)
def test_speculation_counts_only_if_it_names_one_option(think, letter):
    assert ask(think) == letter


@pytest.mark.parametrize(
    "think",
    [
        "",
        "  \n",
        "A ball rolls to the left.",
        "So a ball is seen. A second one follows.",
        "None of the options fits.",
        "I cannot determine the colour.",
        "There is not enough information to choose.",
        "The answer is E.",
        "The answer is A ball.",
        "Vitamin B is good. Plan B failed.",
        "So I looked again.",
        "The options are A, B.",
        "Options A; B; C.",
        "Options A, B, C and D are given.",
    ],
)
def test_no_choice(think):
    assert ask(think) is None


def test_options_that_are_numbers_or_sentences():
    numbers = ("A. 2", "B. 3", "C. 2.5")
    assert ask("So there are 3 of them.", numbers) == "B"
    assert ask("So the answer is 2.5.", numbers) == "C"
    assert ask("So it takes 3.5 seconds.", numbers) is None
    sentences = ("A. The man sits down", "B. The man stands up", "C. Cannot be determined")
    assert ask("So the man stands up.", sentences) == "B"
    assert ask("So the answer cannot be determined.", sentences) in ("C", None)
    assert ask("The answer is C: it cannot be determined.", sentences) == "C"


def test_a_speaker_is_no_option():
    nine = tuple(f"{letter}. thing {letter}{letter}" for letter in "ABCDEFGHI")
    assert ask("So I looked at the frames.", nine) is None
    assert ask("The answer is I.", nine) == "I"


def test_questions_without_options_have_no_letter():
    assert ask("The answer is B.", ()) is None


@given(st.text(max_size=80))
def test_any_text_gives_a_letter_or_none(think):
    assert ask(think) in {None, "A", "B", "C", "D"}


words = ["A", "B", "the answer is", "option", "so", "not", "could be", "or", ".", ",", "red", "if"]


@given(st.lists(st.sampled_from(words), max_size=12).map(" ".join))
def test_a_closing_selection_settles_it(noise):
    assert ask(noise + ".\nTherefore, the answer is D.") == "D"
