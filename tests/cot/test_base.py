import pytest

from p2r_lib.cot.base import Annotation, failed, prompt_of
from p2r_lib.samples import VideoQA
from p2r_lib.template import build_prompt

SAMPLE = VideoQA("7", "Which?", "image", "multiple choice", ("A. red", "B. blue"), "A", "x.png")


def test_annotation_is_a_text_or_a_failure():
    assert Annotation("").error is None  # an empty response is one
    assert failed("a", "no reply", latency=2.0) == Annotation(
        None, "a", error="no reply", latency=2.0
    )
    for text, error in ((None, None), ("text", "error")):
        with pytest.raises(ValueError, match="text"):
            Annotation(text, error=error)
    with pytest.raises(TypeError, match="use a string"):
        Annotation(b"bytes")


def test_prompt_is_the_template_prompt():
    assert prompt_of(SAMPLE) == build_prompt(
        "Which?", ["A. red", "B. blue"], problem_type="multiple choice", data_type="image"
    )


def test_prompt_names_the_sample_it_cannot_ask():
    broken = VideoQA("7", "Which?", "image", "essay", (), "A", "x.png")
    with pytest.raises(ValueError, match="sample 7: unknown problem_type 'essay'"):
        prompt_of(broken)
