import dataclasses
import doctest
import gzip
import itertools
import json
import logging
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2r_lib import samples as module
from p2r_lib.samples import (
    DATA_TYPES,
    PROBLEM_TYPES,
    SCHEMAS,
    SampleError,
    VideoQA,
    read_report,
    read_samples,
    resolve_media,
    split_options,
    write_samples,
)

RECORD = {
    "problem_id": 7,
    "problem": "Which shape moves first?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. red circle", "B. blue square"],
    "solution": "<answer>B</answer>",
    "path": "./toy/7.mp4",
    "data_source": "toy",
}
COT = {
    **RECORD,
    "answer": "B",
    "observation": "Based on the question, I need to notice ...",
    "process": "Based on the observations, ...",
    "output": "<observation>...</observation>",
    "reward": 1.0,
    "select": True,
    "clean_version": "2",
}

filled = st.text(min_size=1, max_size=30).map(str.strip).filter(bool)
annotation = st.none() | st.text(min_size=1, max_size=30)
extras = st.fixed_dictionaries(
    {},
    optional={
        "reward": st.none() | st.floats(0, 1),
        "select": st.none() | st.booleans(),
        "clean_version": st.text(max_size=5),
    },
)


@st.composite
def questions(draw) -> VideoQA:
    problem_type = draw(st.sampled_from(PROBLEM_TYPES))
    options, answer = (), draw(filled)
    if problem_type == "multiple choice":
        options = tuple(draw(st.lists(st.text(max_size=9), min_size=1, max_size=26)))
        answer = draw(st.sampled_from([letter for letter, _ in split_options(options)]))
    return VideoQA(
        problem_id=draw(filled | st.integers().map(str)),
        problem=draw(filled),
        data_type=draw(st.sampled_from(DATA_TYPES)),
        problem_type=problem_type,
        options=options,
        answer=answer,
        path=draw(filled),
        data_source=draw(st.text(max_size=9)),
        observation=draw(annotation),
        process=draw(annotation),
        output=draw(annotation),
        extra=draw(extras),
    )


def write_rows(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


# ------------------------------------------------------------- round trips


@settings(deadline=None, max_examples=60)
@given(st.lists(questions(), max_size=4), st.sampled_from(("json", "jsonl")), st.booleans())
def test_what_is_written_is_read_again(tmp_path_factory, written, ending, zipped):
    path = tmp_path_factory.mktemp("round") / f"samples.{ending}{'.gz' if zipped else ''}"
    for schema in SCHEMAS:
        write_samples(written, path, schema=schema)
        expected = written
        if schema == "video-r1":
            expected = [dataclasses.replace(s, observation=None, output=None) for s in written]
        assert read_samples(path) == expected


@settings(deadline=None, max_examples=60)
@given(questions())
def test_options_are_read_from_python_and_json_text(sample):
    options = list(sample.options)
    for text in (str(options), repr(tuple(options)), json.dumps(options)):
        assert module._options(text) == sample.options


def test_the_schemas_have_the_released_types(tmp_path):
    sample = read_samples(write_rows(tmp_path / "in.jsonl", COT))[0]
    rows = {}
    for schema in SCHEMAS:
        write_samples([sample], tmp_path / "out.json", schema=schema)
        (rows[schema],) = json.loads((tmp_path / "out.json").read_text())
    assert rows["videop2r"] == COT
    video_r1 = {"process": COT["process"], "reward": 1.0, "select": True, "clean_version": "2"}
    assert rows["video-r1"] == {**RECORD, **video_r1}
    strings = rows["videop2r-strings"]
    assert set(strings) == set(COT)
    assert all(isinstance(value, str) for value in strings.values())
    assert strings["problem_id"] == "7"
    assert strings["options"] == "['A. red circle', 'B. blue square']"
    assert (strings["reward"], strings["select"]) == ("1.0", "True")


def test_a_record_is_read_into_its_fields(tmp_path):
    sample = read_samples(write_rows(tmp_path / "in.jsonl", COT))[0]
    assert sample == VideoQA(
        problem_id="7",
        problem="Which shape moves first?",
        data_type="video",
        problem_type="multiple choice",
        options=("A. red circle", "B. blue square"),
        answer="B",
        path="./toy/7.mp4",
        data_source="toy",
        observation=COT["observation"],
        process=COT["process"],
        output=COT["output"],
        extra={"reward": 1.0, "select": True, "clean_version": "2"},
    )
    assert sample.solution == "<answer>B</answer>"


def test_an_annotators_answer_does_not_take_the_place_of_the_truth(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", {**COT, "answer": "A"})
    (sample,) = read_samples(path)
    assert (sample.answer, sample.extra["answer"]) == ("B", "A")
    write_samples([sample], path, schema="videop2r")
    assert read_samples(path) == [sample]


def test_answer_stands_in_for_a_missing_solution(tmp_path):
    row = {name: value for name, value in COT.items() if name != "solution"}
    (sample,) = read_samples(write_rows(tmp_path / "in.jsonl", row))
    assert sample.answer == "B"
    assert "answer" not in sample.extra


def test_the_form_of_a_file_is_read_from_its_content(tmp_path):
    as_list, as_lines = json.dumps([RECORD, RECORD], indent=1), f"{json.dumps(RECORD)}\n\n" * 2
    for text in (as_list, as_lines, "\ufeff" + as_list, "\n  " + as_lines.replace("\n", "\r\n")):
        for data in (text.encode(), gzip.compress(text.encode())):
            path = tmp_path / "misleading.jsonl.gz"
            path.write_bytes(data)
            assert [sample.problem_id for sample in read_samples(path)] == ["7", "7"]


def test_an_id_keeps_its_zeros(tmp_path):
    (sample,) = read_samples(write_rows(tmp_path / "in.jsonl", {**RECORD, "problem_id": "007"}))
    write_samples([sample], tmp_path / "out.jsonl", schema="video-r1")
    assert json.loads((tmp_path / "out.jsonl").read_text())["problem_id"] == "007"


def test_what_video_r1_cannot_hold_is_logged(tmp_path, caplog):
    samples = read_samples(write_rows(tmp_path / "in.jsonl", COT, RECORD))
    write_samples(samples, tmp_path / "out.json", schema="video-r1")
    assert "left out the observation or output of 1 samples" in caplog.text


def test_half_of_a_surrogate_pair_survives(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", {**RECORD, "problem": "\ud800 Ünïcode"})
    samples = read_samples(path)
    write_samples(samples, path, schema="videop2r")
    assert read_samples(path) == samples
    assert len(samples[0].sample_id) == 16


# ------------------------------------------------------------- faults of a row


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"problem": None}, "problem", "null, not a string"),
        ({"problem": 3}, "problem", "number, not a string"),
        ({"problem": " "}, "problem", "empty"),
        ({"problem_id": True}, "problem_id", "boolean"),
        ({"problem_id": 1.5}, "problem_id", "number"),
        ({"data_type": "audio"}, "data_type", "use one of video, image"),
        ({"problem_type": "mc"}, "problem_type", ", ".join(PROBLEM_TYPES)),
        ({"options": "[A, B]"}, "options", "write it as a JSON list"),
        ({"options": "__import__('os').getcwd()"}, "options", "write it as a JSON list"),
        ({"options": "['A. x'\n 'B. y']"}, "options", "without commas"),
        ({"options": ["A. x", 2]}, "options", "not a list of strings"),
        ({"options": {"A": "x"}}, "options", "not a list of strings"),
        ({"options": ["x"] * 27}, "options", "27 options"),
        ({"options": []}, "options", "add the options"),
        ({"options": "[" * 10_000}, "options", "write it as a JSON list"),
        ({"solution": "B"}, "solution", "<answer>...</answer>"),
        ({"solution": "<answer> </answer>"}, "solution", "empty"),
        ({"solution": ["B"]}, "solution", "list, not a string"),
        ({"solution": "<answer>C</answer>"}, "solution", "use one of A, B"),
        ({"solution": "<answer>blue square</answer>"}, "solution", "not the letter"),
        ({"path": ""}, "path", "empty"),
        ({"data_source": 1}, "data_source", "not a string"),
        ({"observation": ["x"]}, "observation", "list, not a string"),
        ({"reward": "good"}, "reward", "not a number"),
    ],
)
def test_a_faulty_field_is_named_with_its_row_and_the_fix(tmp_path, change, field, words):
    path = write_rows(tmp_path / "in.jsonl", RECORD, {**RECORD, **change})
    with pytest.raises(SampleError) as error:
        read_samples(path)
    assert (error.value.file, error.value.row, error.value.field) == (str(path), 2, field)
    assert words in str(error.value)
    assert all(part in str(error.value) for part in (str(path), "row 2", repr(field)))


@pytest.mark.parametrize("field", sorted(set(RECORD) - {"options", "data_source"}))
def test_a_missing_field_is_named(tmp_path, field):
    row = {name: value for name, value in RECORD.items() if name != field}
    with pytest.raises(SampleError, match=f"row 1, field '{field}': missing; add it"):
        read_samples(write_rows(tmp_path / "in.jsonl", row))


@pytest.mark.parametrize("value", [3, "text", None, [RECORD]])
def test_a_row_that_is_no_object_is_a_fault(tmp_path, value):
    path = tmp_path / "in.json"
    path.write_text(json.dumps([RECORD, value]))
    with pytest.raises(SampleError, match=r"row 2: a JSON .*, not an object"):
        read_samples(path)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(sorted(COT)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    ),
)
def test_any_value_in_any_field_is_read_or_is_a_sample_error(tmp_path_factory, field, value):
    path = write_rows(tmp_path_factory.mktemp("any") / "in.jsonl", {**COT, field: value})
    samples, errors = read_report(path)
    assert len(samples) + len(errors) == 1
    if samples:
        write_samples(samples, path, schema="videop2r")
        assert read_samples(path) == samples


def test_missing_media_are_found_beside_the_file_or_under_the_root(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", RECORD)
    with pytest.raises(SampleError, match=r"field 'path': there is no file .*7.mp4; fetch the med"):
        read_samples(path, require_media=True)
    for root in (tmp_path, tmp_path / "elsewhere"):
        (root / "toy").mkdir(parents=True)
        (root / "toy/7.mp4").touch()
    (sample,) = read_samples(path, require_media=True)
    assert read_samples(path, require_media=True, media_root=tmp_path / "elsewhere") == [sample]
    assert resolve_media(sample, tmp_path) == tmp_path / "toy/7.mp4"
    absolute = dataclasses.replace(sample, path="/clips/7.mp4")
    assert str(resolve_media(absolute, tmp_path)) == "/clips/7.mp4"


def test_skipped_rows_are_reported_and_logged(tmp_path, caplog):
    path = write_rows(tmp_path / "in.jsonl", RECORD, {**RECORD, "path": 1}, RECORD)
    path.write_text(path.read_text() + '{"problem": \n')
    with caplog.at_level(logging.WARNING):
        samples, errors = read_report(path)
    assert (len(samples), [error.row for error in errors]) == (2, [2, 4])
    assert "invalid JSON at line 4, column 13" in str(errors[1])
    assert "skipped 2 of 4 rows" in caplog.text
    caplog.clear()
    assert read_samples(path, on_error="skip") == samples
    assert "skipped 2 of 4 rows" in caplog.text
    with pytest.raises(ValueError, match='"stop" or "skip"'):
        read_samples(path, on_error="ignore")


# ------------------------------------------------------------- faults of a file


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("text", ["lines", "list"])
def test_a_truncated_gzip_file_is_never_read_as_a_whole(tmp_path, on_error, text):
    rows = [{**RECORD, "problem": os.urandom(20).hex()} for _ in range(500)]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    data = gzip.compress((lines if text == "lines" else json.dumps(rows)).encode())
    path = tmp_path / "in.json.gz"
    for cut in (len(data) // 2, len(data) - 4):
        path.write_bytes(data[:cut])
        with pytest.raises(SampleError, match=r"cut short or damaged .*; fetch it again"):
            read_samples(path, on_error=on_error)
    path.write_bytes(data[: len(data) // 2] + b"\0" * 40 + data[len(data) // 2 + 40 :])
    with pytest.raises(SampleError):
        read_samples(path, on_error="stop")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (gzip.compress(b"", mtime=0), "the file is empty"),
        (b'[{"problem": 1},\n {"a" 2}]', "invalid JSON at line 2, column 7"),
        (b'\n\n[{"problem": 1},', "invalid JSON at line 3, column 17"),
        (b'[{"problem": "\xff"}]', "not UTF-8"),
        (b"[" * 100_000, "cannot be parsed"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "in.json"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=words) as error:
        read_samples(path, on_error="skip")
    assert (error.value.file, error.value.row) == (str(path), None)


def test_one_object_over_several_lines_is_explained(tmp_path):
    path = tmp_path / "in.json"
    path.write_text(json.dumps(RECORD, indent=2))
    with pytest.raises(SampleError, match=r"line 1, column 2: .*one JSON object on each line"):
        read_samples(path)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a": ' * 100_000, f'{{"a": {"9" * 5000}}}'])
def test_a_hostile_line_is_a_fault_of_its_row(tmp_path, line):
    path = tmp_path / "in.jsonl"
    path.write_text(f"{json.dumps(RECORD)}\n{line}\n")
    samples, errors = read_report(path)
    assert (len(samples), errors[0].row) == (1, 2)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SampleError, match=r"cannot be read .*; check the path"):
            read_samples(path)


def test_gzipped_lines_are_streamed(tmp_path):
    path = tmp_path / "in.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f"{json.dumps(RECORD)}\n" for _ in range(20_000))
    path.write_bytes(path.read_bytes()[:-8])  # the end is missing: met only by reading on
    rows = module._rows(path)
    assert next(rows)[0] == 1


# ------------------------------------------------------------- writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_rows(tmp_path / "out.jsonl", RECORD)
    before, (sample,) = path.read_bytes(), read_samples(path)
    with pytest.raises(TypeError):
        broken = dataclasses.replace(sample, extra={"select": object()})
        write_samples([sample, broken], path, schema="videop2r")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_the_same_samples_give_the_same_bytes_at_any_time(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("time.time", lambda: 1000.0 * next(clock))
    (sample,) = read_samples(write_rows(tmp_path / "in.jsonl", RECORD))
    for name in ("a.json.gz", "b.json.gz"):
        write_samples([sample], tmp_path / name, schema="videop2r")
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_a_wrong_name_or_schema_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .json or .jsonl"):
        write_samples([], tmp_path / "out.csv", schema="videop2r")
    with pytest.raises(ValueError, match="use one of video-r1, videop2r, videop2r-strings"):
        write_samples([], tmp_path / "out.json", schema="r1")


# ------------------------------------------------------------- the dataclass


def test_sample_id_depends_on_question_options_path_and_answer_alone():
    sample = VideoQA("1", "q", "video", "multiple choice", ("A. x", "B. y"), "A", "p.mp4")
    same = dataclasses.replace(sample, problem_id="2", observation="seen", extra={"reward": 1})
    assert sample.sample_id == same.sample_id == "3ffa0cfb1364ba1f"
    changes = ({"problem": "r"}, {"options": ("A. x",)}, {"answer": "B"}, {"path": "r.mp4"})
    ids = {dataclasses.replace(sample, **change).sample_id for change in changes}
    assert len(ids | {sample.sample_id}) == 5


def test_samples_can_be_compared_and_kept_in_sets():
    first = VideoQA("1", "q", "video", "OCR", (), "stop", "p.mp4", extra={"reward": 1.0})
    assert len({first, dataclasses.replace(first), dataclasses.replace(first, answer="go")}) == 2


@pytest.mark.parametrize(
    ("options", "letters"),
    [
        (["A. red", "B. blue"], [("A", "red"), ("B", "blue")]),
        (["(a) red", "b) blue"], [("A", "red"), ("B", "blue")]),
        (["C. red", "A. blue"], [("C", "red"), ("A", "blue")]),
        (["A. red", "A. blue"], [("A", "A. red"), ("B", "A. blue")]),
        (["A red ball", "B. blue"], [("A", "A red ball"), ("B", "B. blue")]),
        ([], []),
    ],
)
def test_split_options(options, letters):
    assert list(split_options(options)) == letters


def test_more_options_than_letters_are_refused():
    with pytest.raises(ValueError, match="26"):
        split_options(["x"] * 27)


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(module)
    assert result.attempted >= 2
    assert result.failed == 0
