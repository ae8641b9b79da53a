"""The three steps: every reason, resuming after interrupts, retries, and what is written."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2r_lib.answers import score
from p2r_lib.cot.base import Annotation, AnnotatorError, failed
from p2r_lib.cot.pipeline import REASONS, PipelineResult, run_pipeline
from p2r_lib.judges.base import JudgeError, JudgeRequest, Verdict
from p2r_lib.samples import VideoQA, read_samples
from p2r_lib.template import format_response, parse

JOURNALS = ("annotations.jsonl", "verification.jsonl", "verdicts.jsonl")
RESULTS = ("kept.json", "dropped.jsonl", "manifest.json")


def question(number: int, **changes) -> VideoQA:
    fields = {
        "problem_id": str(number),
        "problem": f"Which is number {number}?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ("A. red", "B. blue"),
        "answer": "A",
        "path": f"{number}.mp4",
    }
    return VideoQA(**(fields | changes))


def response(observation: str = "enough", answer: str = "A") -> str:
    return format_response(observation, "because", answer)


@dataclass
class FakeAnnotator:
    """Gives each sample the answer that `texts` holds for its number, and counts what it gave."""

    texts: Callable[[VideoQA], Annotation | str]
    id: str = "fake-annotator"
    succeeded: Counter = field(default_factory=Counter)
    batches: list[int] = field(default_factory=list)

    def annotate(self, samples: Sequence[VideoQA]) -> list[Annotation]:
        self.batches.append(len(samples))
        answers = [self.texts(sample) for sample in samples]
        given = [a if isinstance(a, Annotation) else Annotation(a, self.id) for a in answers]
        pairs = zip(samples, given, strict=True)
        self.succeeded.update(s.problem_id for s, a in pairs if a.text is not None)
        return given


@dataclass
class FakeJudge:
    """Finds an observation sufficient if it says "enough", fails where it says "broken"."""

    id: str = "fake-judge"
    prompt_hash: str = "v1"
    seen: list[JudgeRequest] = field(default_factory=list)
    succeeded: Counter = field(default_factory=Counter)

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        self.seen += requests
        verdicts = [self.verdict(request.observation) for request in requests]
        pairs = zip(requests, verdicts, strict=True)
        self.succeeded.update(r.sample.problem_id for r, v in pairs if v.sufficient is not None)
        return verdicts

    def verdict(self, observation: str) -> Verdict:
        if "broken" in observation:
            return Verdict(None, judge=self.id, error="no reply")
        return Verdict("enough" in observation, f"I read: {observation}", self.id, input_tokens=7)


def annotator_of(**texts: Annotation | str) -> FakeAnnotator:
    """Texts by number: annotator_of(n1=...); all others get a good response."""
    return FakeAnnotator(lambda sample: texts.get(f"n{sample.problem_id}", response()))


def run(folder: Path, samples, annotator, judge=None, **options) -> PipelineResult:
    options = {"progress": False, "batch_size": 3} | options
    return run_pipeline(samples, annotator, judge or FakeJudge(), output_dir=folder, **options)


def files(folder: Path, names: Sequence[str] = JOURNALS + RESULTS) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


# ---------------------------------------------------------------- by hand

MIXED = {
    "n1": failed("fake-annotator", "the clip cannot be read"),
    "n2": response().replace("</observation>", ""),
    "n3": response(answer="B"),
    "n4": response("a little"),
    "n5": response("broken"),
    "n6": response(answer="B").replace("<think>", ""),
    "n7": Annotation(response(), "fake-annotator", truncated=True, output_tokens=5, cost=0.5),
}
MIXED_SAMPLES = [*(question(number) for number in range(9)), question(0)]


def test_every_reason_by_hand(tmp_path):
    result = run(tmp_path, MIXED_SAMPLES, annotator_of(**MIXED))
    assert [outcome.reason for outcome in result.outcomes] == [
        "kept",
        "annotator failed",
        "broken template",
        "answer below threshold",
        "insufficient observation",
        "judge failed",
        "broken template",
        "broken template",
        "kept",
        "duplicate",
    ]
    assert set(result.counts) == set(REASONS)
    assert min(result.counts.values()) >= 1
    assert sum(result.counts.values()) == len(MIXED_SAMPLES)
    by_number = dict(enumerate(result.outcomes))
    assert by_number[1].explanation == "the clip cannot be read"
    assert by_number[2].problems == ("observation not closed",)
    assert (by_number[3].score, by_number[3].text) == (0.0, response(answer="B"))
    assert by_number[4].explanation == "I read: a little"
    assert by_number[5].explanation == "no reply"
    assert (by_number[6].problems, by_number[6].score) == (("think missing",), 0.0)
    assert (by_number[7].problems, by_number[7].score) == (("truncated",), 1.0)
    assert [outcome.status for outcome in result.outcomes if outcome.status != "dropped"] == [
        "kept",
        "failed",
        "failed",
        "kept",
    ]


def test_dropped_file_has_every_reason(tmp_path):
    result = run(tmp_path, MIXED_SAMPLES, annotator_of(**MIXED))
    rows = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    left = [outcome for outcome in result.outcomes if outcome.reason != "kept"]
    assert [row["reason"] for row in rows] == [outcome.reason for outcome in left]
    assert rows[3] == {
        "sample_id": question(4).sample_id,
        "problem_id": "4",
        "status": "dropped",
        "step": "sufficiency",
        "reason": "insufficient observation",
        "problems": [],
        "score": 1.0,
        "explanation": "I read: a little",
    }


def test_kept_samples_are_filled_in_and_read_back(tmp_path):
    samples = [question(0, extra={"clean_version": "v2"}), question(1), question(2, answer="B")]
    result = run(tmp_path, samples, annotator_of(n1=response("\nenough of it \n", "(a) red")))
    assert len(result.kept) == 2
    assert result.kept[1] == replace(
        question(1),
        observation="enough of it",
        process="because",
        output=response("\nenough of it \n", "(a) red"),
        extra={"reward": 1.0, "select": True},
    )
    assert result.kept[0].extra == {"clean_version": "v2", "reward": 1.0, "select": True}
    assert read_samples(tmp_path / "kept.json") == result.kept
    assert [sample.sample_id for sample in result.kept] == [s.sample_id for s in samples[:2]]


def test_the_judge_sees_only_what_passed_and_only_the_observation(tmp_path):
    judge = FakeJudge()
    run(tmp_path, MIXED_SAMPLES, annotator_of(**MIXED), judge)
    assert [request.sample.problem_id for request in judge.seen] == ["0", "4", "5", "8"]
    assert [request.observation for request in judge.seen] == [
        "enough",
        "a little",
        "broken",
        "enough",
    ]


def test_manifest_says_what_was_done(tmp_path):
    result = run(tmp_path, MIXED_SAMPLES, annotator_of(**MIXED), threshold=0.7)
    found = manifest(tmp_path)
    assert found["status"] == "incomplete"
    assert found["settings"]["annotator"] == "fake-annotator"
    assert found["settings"]["judge"] == "fake-judge"
    assert found["settings"]["judge_prompt"] == "v1"
    assert found["settings"]["threshold"] == 0.7
    assert found["samples"]["count"] == len(MIXED_SAMPLES)
    assert {"p2r_lib", "python", "rouge-score", "jiwer"} == set(found["versions"])
    assert found["counts"] == result.counts
    assert found["template_problems"] == {
        "observation not closed": 1,
        "think missing": 1,
        "truncated": 1,
    }
    spent = {"input_tokens": 0, "output_tokens": 5, "cost": 0.5, "latency": 0.0}
    assert found["spent"]["annotate"] == {"asked": 9, "failed": 1, **spent}
    assert found["spent"]["sufficiency"]["input_tokens"] == 3 * 7
    assert found["spent"]["sufficiency"]["failed"] == 1


def test_nothing_to_do(tmp_path):
    result = run(tmp_path, [], annotator_of())
    assert result.outcomes == ()
    assert read_samples(tmp_path / "kept.json") == []
    assert manifest(tmp_path)["status"] == "complete"


# ---------------------------------------------------------------- asked once, retried if failed


def test_a_second_run_asks_nothing_and_changes_nothing(tmp_path):
    samples = [question(number) for number in range(8)]
    texts = {"n3": response(answer="B"), "n4": response("a little"), "n5": "no template"}
    first = run(tmp_path, samples, annotator_of(**texts))
    before = files(tmp_path)
    annotator, judge = annotator_of(**texts), FakeJudge()
    assert run(tmp_path, samples, annotator, judge) == first
    assert annotator.batches == judge.seen == []
    assert files(tmp_path) == before


def test_failures_are_asked_again_and_nothing_else(tmp_path):
    samples = [question(number) for number in range(6)]
    texts = {"n1": failed("fake-annotator", "busy"), "n4": response("broken")}
    annotator, judge = annotator_of(**texts), FakeJudge()
    first = run(tmp_path, samples, annotator, judge)
    assert first.counts["annotator failed"] == first.counts["judge failed"] == 1
    assert first.counts["insufficient observation"] == 0  # a failure is no "no"
    annotator.texts = lambda sample: response()
    judge.verdict = lambda observation: Verdict(True, "on second thoughts")
    annotator.batches.clear(), judge.seen.clear()
    second = run(tmp_path, samples, annotator, judge)
    assert annotator.batches == [1]
    assert [request.sample.problem_id for request in judge.seen] == ["1", "4"]
    assert second.counts["kept"] == 6
    assert set(annotator.succeeded.values()) == set(judge.succeeded.values()) == {1}
    assert manifest(tmp_path)["status"] == "complete"
    assert manifest(tmp_path)["spent"]["annotate"] == {
        "asked": 7,
        "failed": 1,
        "input_tokens": 0,
        "output_tokens": 0,
        "cost": 0.0,
        "latency": 0.0,
    }


def test_a_verdict_of_none_is_a_failure_even_without_an_error(tmp_path):
    judge = FakeJudge()
    judge.verdict = lambda observation: Verdict(None)
    assert run(tmp_path, [question(0)], annotator_of(), judge).counts["judge failed"] == 1
    assert run(tmp_path, [question(0)], annotator_of()).counts["kept"] == 1


def test_a_failure_that_stands_after_a_success_does_not_undo_it(tmp_path):
    run(tmp_path, [question(0)], annotator_of())
    path = tmp_path / "annotations.jsonl"
    row = json.loads(path.read_text())
    path.write_text(
        path.read_text() + json.dumps({**row, "text": None, "error": "from another shard"}) + "\n"
    )
    annotator = annotator_of()
    assert run(tmp_path, [question(0)], annotator).counts["kept"] == 1
    assert annotator.batches == []


def test_other_settings_ask_only_what_they_change(tmp_path):
    samples = [question(number, problem_type="regression", options=(), answer="10") for number in
               range(4)]  # fmt: skip
    texts = {"n0": response(answer="10"), "n1": response(answer="7"), "n2": response(answer="5"),
             "n3": response(answer="1")}  # fmt: skip
    annotator, judge = annotator_of(**texts), FakeJudge()
    assert len(run(tmp_path, samples, annotator, judge).kept) == 2
    assert len(run(tmp_path, samples, annotator, judge, threshold=0.5).kept) == 3
    assert len(run(tmp_path, samples, annotator, judge, threshold=0.9).kept) == 1
    assert annotator.batches == [3, 1]
    assert [request.sample.problem_id for request in judge.seen] == ["0", "1", "2"]
    judge.prompt_hash = "v2"
    run(tmp_path, samples, annotator, judge)
    assert [request.sample.problem_id for request in judge.seen[3:]] == ["0", "1"]
    annotator.id = "another annotator"
    run(tmp_path, samples, annotator, judge)
    assert annotator.batches == [3, 1, 3, 1]
    assert len(judge.seen) == 5  # the observations are the same
    assert manifest(tmp_path)["spent"]["annotate"]["asked"] == 4  # not the other annotator's


def test_more_samples_join_in_any_order(tmp_path):
    annotator = annotator_of()
    run(tmp_path, [question(number) for number in range(4)], annotator)
    result = run(tmp_path, [question(number) for number in (5, 2, 4, 0)], annotator)
    assert [sample.problem_id for sample in result.kept] == ["5", "2", "4", "0"]
    assert annotator.succeeded == Counter("012345")


# ---------------------------------------------------------------- interrupts


class Crash(BaseException):
    """What an interrupt is: not an Exception, so nothing may swallow it."""


def mixed_samples(count: int) -> list[VideoQA]:
    return [question(number) for number in range(count)]


def mixed_text(sample: VideoQA) -> str:
    """A response that depends on the sample alone; about half pass."""
    rng = random.Random(sample.problem_id)
    text = response(rng.choice(["enough", "enough", "little"]), rng.choice("AAAB"))
    return text.replace("<think>", "") if rng.random() < 0.15 else text


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The files of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    result = run(folder, mixed_samples(40), FakeAnnotator(mixed_text))
    assert min(count for reason, count in result.counts.items() if "fail" not in reason and
               reason != "duplicate") >= 3  # fmt: skip
    return folder


@pytest.mark.parametrize("seed", range(25))
def test_interrupts_at_random_calls(tmp_path, whole, seed):
    """Killed again and again, in either step: same files, and nothing asked after its success."""
    rng = random.Random(seed)
    annotator, judge = FakeAnnotator(mixed_text), FakeJudge()
    ask, decide = annotator.texts, judge.verdict

    def fragile(answer):
        def call(asked):
            if rng.random() < 0.08:
                raise Crash
            return answer(asked)

        return call

    annotator.texts, judge.verdict = fragile(ask), fragile(decide)
    interrupts = 0
    while True:
        try:
            run(tmp_path, mixed_samples(40), annotator, judge)
            break
        except Crash:
            interrupts += 1
            assert manifest(tmp_path)["status"] == "running"
    assert interrupts
    assert files(tmp_path) == files(whole)
    assert set(annotator.succeeded.values()) == set(judge.succeeded.values()) == {1}


@pytest.mark.parametrize("seed", range(40))
def test_files_cut_at_random_bytes(tmp_path, whole, seed):
    """The process died while it wrote: what is cut off is asked again, and only that."""
    rng = random.Random(seed)
    left = files(whole, JOURNALS)
    name = rng.choice(JOURNALS)
    left[name] = left[name][: rng.randint(0, len(left[name]))]
    later = JOURNALS[JOURNALS.index(name) + 1 :] if rng.random() < 0.5 else ()
    for path, content in left.items():
        if path not in later:
            (tmp_path / path).write_bytes(content)
    annotator, judge = FakeAnnotator(mixed_text), FakeJudge()
    run(tmp_path, mixed_samples(40), annotator, judge)
    assert files(tmp_path) == files(whole)
    lost = {n: left[n] if n not in later else b"" for n in JOURNALS}
    lines = {n: files(whole)[n].count(b"\n") - lost[n].count(b"\n") for n in JOURNALS}
    assert annotator.succeeded.total() == lines["annotations.jsonl"]
    assert judge.succeeded.total() == lines["verdicts.jsonl"]


def test_a_write_that_fails_half_way_is_mended(tmp_path, whole, monkeypatch):
    """The disk is full in the middle of a batch."""
    import p2r_lib.cot.journal as journal

    def full(*_):
        raise OSError(28, "No space left on device")

    annotator = FakeAnnotator(mixed_text)
    run(tmp_path, mixed_samples(6), annotator)
    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            run(tmp_path, mixed_samples(40), annotator)
    with open(tmp_path / "annotations.jsonl", "r+b") as file:
        file.truncate((tmp_path / "annotations.jsonl").stat().st_size - 9)
    again = run(tmp_path, mixed_samples(40), annotator)
    assert read_samples(whole / "kept.json") == again.kept


@pytest.mark.parametrize("error", [AnnotatorError("the key was refused"), KeyboardInterrupt()])
def test_what_dooms_every_sample_goes_through_and_keeps_what_is_there(tmp_path, error):
    def texts(sample: VideoQA) -> str:
        if sample.problem_id == "4":
            raise error
        return response()

    annotator = FakeAnnotator(texts)
    with pytest.raises(type(error)):
        run(tmp_path, mixed_samples(6), annotator)
    annotator.texts = lambda sample: response()
    assert len(run(tmp_path, mixed_samples(6), annotator).kept) == 6
    assert annotator.succeeded == Counter("012345")


def test_a_judge_that_cannot_go_on_costs_no_annotation(tmp_path):
    judge, annotator = FakeJudge(), annotator_of()

    def refused(requests):
        raise JudgeError("no credit")

    judge.judge = refused
    with pytest.raises(JudgeError, match="no credit"):
        run(tmp_path, mixed_samples(6), annotator, judge)
    assert len(run(tmp_path, mixed_samples(6), annotator).kept) == 6
    assert annotator.batches == [3, 3]


# ---------------------------------------------------------------- what cannot be used


def test_unusable_settings(tmp_path):
    for options in ({"threshold": 1.1}, {"threshold": -0.1}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="is not in"):
            run(tmp_path / "new", [question(0)], annotator_of(), **options)
    assert not (tmp_path / "new").exists()


def test_unusable_samples_are_named_before_anything_is_asked(tmp_path):
    annotator = annotator_of()
    with pytest.raises(ValueError, match="sample 1: unknown problem_type"):
        run(tmp_path, [question(0), question(1, problem_type="essay")], annotator)
    assert annotator.batches == []


def test_a_wrong_number_of_answers_is_refused(tmp_path):
    annotator = annotator_of()
    annotator.annotate = lambda samples: [Annotation("x")]
    with pytest.raises(ValueError, match="annotate: 1 answers to 3 requests"):
        run(tmp_path, [question(number) for number in range(3)], annotator)


# ---------------------------------------------------------------- properties

PIECES = st.sampled_from(
    ["<observation>", "</observation>", "<think>", "</think>", "<answer>", "</answer>",
     "enough", "A", "B", "3", "4", " ", "\ud800"]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(PIECES, max_size=9).map("".join),
    st.builds(
        format_response,
        st.sampled_from(["enough", "little", "broken", " ", "enough \x00 \U0001f600"]),
        st.sampled_from(["because", ""]),
        st.sampled_from(["A", "B", "3", "4", "red", ""]),
    ),
)
ANNOTATIONS = st.one_of(
    st.builds(lambda text, cut: Annotation(text, truncated=cut), TEXTS, st.booleans()),
    st.just(failed("fake-annotator", "busy")),
)
KINDS = st.sampled_from(
    [("multiple choice", ("A. red", "B. blue"), "A"), ("numerical", (), "3"),
     ("regression", (), "4"), ("OCR", (), "A 3"), ("free-form", (), "A red ball")]
)  # fmt: skip


@given(given=st.lists(st.tuples(KINDS, ANNOTATIONS), max_size=6), threshold=st.floats(0, 1))
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_kept_implies_all_three_checks(tmp_path_factory, given, threshold):
    samples, texts = [], {}
    for number, ((problem_type, options, answer), annotation) in enumerate(given):
        kind = {"problem_type": problem_type, "options": options, "answer": answer}
        samples.append(question(number, **kind))
        texts[f"n{number}"] = annotation
    judge = FakeJudge()
    folder = tmp_path_factory.mktemp("run")
    result = run(folder, samples, annotator_of(**texts), judge, threshold=threshold)
    assert [outcome.sample.sample_id for outcome in result.outcomes] == [
        sample.sample_id for sample in samples
    ]
    for outcome in result.outcomes:
        annotation = texts[f"n{outcome.sample.problem_id}"]
        assert (outcome.reason == "annotator failed") == (annotation.text is None)
        if annotation.text is None:
            continue
        found = parse(annotation.text, truncated=annotation.truncated)
        sample = outcome.sample
        points = score(sample.problem_type, found.answer, sample.answer, options=sample.options)
        well_formed = found.perception_ok and found.reasoning_ok
        checked = well_formed and points >= threshold
        verdict = judge.verdict(found.observation).sufficient if checked else False
        assert (outcome.status == "kept") == (checked and verdict is True)
        assert (outcome.status == "failed") == (checked and verdict is None)
        assert (outcome.reason == "broken template") == (not well_formed)
    assert read_samples(folder / "kept.json") == result.kept
