"""Recorded verdicts: read back as written; a miss is a failure."""

import json

import pytest

from p2r_lib.judges import JudgeRequest, Verdict
from p2r_lib.judges.recorded import RecordedJudge, write_recording
from p2r_lib.samples import VideoQA

SAMPLE = VideoQA("1", "Which?", "video", "multiple choice", ("A. red", "B. blue"), "B", "x.mp4")
OTHER = VideoQA("1", "Which?", "video", "multiple choice", ("A. red", "B. blue"), "A", "x.mp4")


def test_what_was_written_is_read_and_failures_are_not_written(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    asked = [JudgeRequest(SAMPLE, text) for text in ("yes é\u2028 ball", "no", "failed")]
    given = [Verdict(True, "why", "j"), Verdict(False, "", "j"), Verdict(None, error="down")]
    assert write_recording(path, asked, given) == 2
    judge = RecordedJudge.read(path)
    assert judge.id == "recorded:verdicts.jsonl"
    first, second, third = judge.judge(asked)
    assert (first, second) == (Verdict(True, "why", "j"), Verdict(False, "", "j"))
    assert third.sufficient is None and "not recorded" in third.error


def test_another_sample_or_text_is_a_miss(tmp_path):
    path = tmp_path / "v.jsonl"
    write_recording(path, [JudgeRequest(SAMPLE, "o")], [Verdict(True)])
    judge = RecordedJudge.read(path)
    asked = [JudgeRequest(OTHER, "o"), JudgeRequest(SAMPLE, "p"), JudgeRequest(SAMPLE, " o\n")]
    assert [v.sufficient for v in judge.judge(asked)] == [None, None, True]
    assert judge.judge([]) == []


GOOD = {"sample_id": "s", "observation": "o", "sufficient": True}


@pytest.mark.parametrize(
    "second, why",
    [
        ("{", "line 2"),
        ("[]", "one object a line"),
        (json.dumps(GOOD | {"sufficient": "yes"}), "true or false"),
        (json.dumps(GOOD | {"sufficient": None}), "true or false"),
        (json.dumps(GOOD | {"sufficient": False}), "opposite"),
        (json.dumps({"observation": "o", "sufficient": True}), "sample_id"),
        (json.dumps(GOOD | {"explanation": 1}), "explanation"),
    ],
)
def test_malformed_recordings_are_refused_with_their_line(tmp_path, second, why):
    path = tmp_path / "v.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + second + "\n")
    with pytest.raises(ValueError, match=why) as error:
        RecordedJudge.read(path)
    assert "v.jsonl, line 2" in str(error.value)
