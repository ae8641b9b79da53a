from pathlib import Path

from p2r_lib.cot.pipeline import REASONS, Outcome, PipelineResult
from p2r_lib.cot.report import funnel, markdown, template_problems, type_table
from p2r_lib.samples import VideoQA


def outcome(reason: str, problem_type="OCR", data_type="video", problems=()) -> Outcome:
    sample = VideoQA("1", "What?", data_type, problem_type, (), "x", "x.mp4")
    return Outcome(sample, reason, problems=problems)


RESULT = PipelineResult(
    (
        outcome("kept"),
        outcome("kept", "numerical"),
        outcome("kept", "numerical", "image"),
        outcome("insufficient observation", "free-form", "image"),
        outcome("broken template", problems=("think missing", "answer missing")),
        outcome("broken template", problems=("answer missing",)),
        outcome("judge failed"),
        outcome("duplicate"),
    ),
    0.6,
    Path("."),
)


def test_funnel_counts_every_sample_once():
    table = funnel(RESULT)
    assert table[0] == {"step": "input", "reason": "given", "samples": 8, "share": 1.0}
    assert [row["reason"] for row in table[1:]] == list(REASONS)
    assert sum(row["samples"] for row in table[1:]) == 8
    counts = {row["reason"]: row["samples"] for row in table}
    assert (counts["kept"], counts["broken template"], counts["judge failed"]) == (3, 2, 1)
    assert counts["annotator failed"] == 0
    steps = [row["step"] for row in table]
    assert [*dict.fromkeys(steps)] == ["input", "annotate", "verify", "sufficiency"]
    assert table[-1]["share"] == 3 / 8


def test_funnel_of_nothing():
    assert {row["share"] for row in funnel(PipelineResult((), 0.6, Path(".")))} == {0.0}


def test_template_problems_count_each_fault():
    assert template_problems(RESULT) == [
        {"problem": "answer missing", "samples": 2},
        {"problem": "think missing", "samples": 1},
    ]


def test_type_table_has_the_form_of_table_3():
    rows = {row["data type"]: row for row in type_table(RESULT)}
    assert list(rows) == ["image", "video", "sum"]
    assert list(rows["sum"]) == [
        "data type",
        "multiple choice",
        "numerical",
        "OCR",
        "free-form",
        "regression",
        "sum",
    ]
    assert (rows["image"]["numerical"], rows["video"]["numerical"]) == (1, 1)
    assert (rows["image"]["sum"], rows["video"]["sum"], rows["sum"]["sum"]) == (1, 2, 3)
    given = {row["data type"]: row for row in type_table(RESULT, kept=False)}
    assert given["sum"]["sum"] == 8
    assert given["image"]["free-form"] == 1


def test_markdown_is_one_line_a_row():
    text = markdown([{"a": "x", "n": 3, "share": 0.25}, {"a": "y", "n": 0, "share": None}])
    assert text.splitlines() == [
        "| a | n | share |",
        "| --- | ---: | ---: |",
        "| x | 3 | 25.0% |",
        "| y | 0 | - |",
    ]
    assert markdown([]) == ""
