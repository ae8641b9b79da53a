import pytest

from p2r_lib.cot.verify import verify
from p2r_lib.samples import VideoQA
from p2r_lib.template import format_response

CHOICE = VideoQA("1", "Which?", "video", "multiple choice", ("A. red", "B. blue"), "B", "x.mp4")
NUMBER = VideoQA("2", "How far?", "video", "regression", (), "10", "x.mp4")


def response(answer: str) -> str:
    return format_response("a blue ball", "so blue", answer)


@pytest.mark.parametrize("answer", ["B", "b.", "B. blue", "blue"])
def test_right_answer_in_the_template_passes(answer):
    found = verify(CHOICE, response(answer))
    assert found.passed
    assert found.score == 1.0
    assert found.response.observation == "a blue ball"


def test_wrong_answer_does_not():
    found = verify(CHOICE, response("A"))
    assert found.format_ok
    assert not found.answer_ok
    assert not found.passed


@pytest.mark.parametrize(("answer", "passes"), [("6", True), ("14", True), ("5.9", False)])
def test_the_threshold_itself_passes(answer, passes):
    assert verify(NUMBER, response(answer)).passed is passes
    assert verify(NUMBER, response(answer), threshold=0.5).passed
    assert not verify(NUMBER, response(answer), threshold=0.7).passed


def test_faults_of_either_process_fail_it_whatever_the_answer():
    for text in (
        response("B").replace("<observation>", ""),
        response("B").replace("</think>", ""),
        response("B") + " or A",
    ):
        found = verify(CHOICE, text)
        assert found.problems
        assert not found.passed
    assert verify(CHOICE, response("B") + " or A").score == 1.0


def test_a_truncated_response_does_not_pass():
    found = verify(CHOICE, response("B"), truncated=True)
    assert found.problems == ("truncated",)
    assert not found.passed


def test_no_answer_scores_nothing():
    assert verify(CHOICE, "").score == 0.0
