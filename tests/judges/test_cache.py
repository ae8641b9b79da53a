"""The cache: asks once, never keeps a failure, keeps judges and prompts apart, shares a file."""

import multiprocessing
from dataclasses import dataclass, field

import pytest

from p2r_lib.judges import JudgeError, JudgeRequest, Verdict
from p2r_lib.judges.cache import CachedJudge
from p2r_lib.samples import VideoQA

SAMPLE = VideoQA("1", "Which?", "video", "multiple choice", ("A. red", "B. blue"), "B", "x.mp4")


@dataclass
class Counting:
    """Says yes to "yes", no to "no", and fails otherwise; remembers what it was asked."""

    id: str = "counting"
    prompt_hash: str = "p1"
    asked: list[str] = field(default_factory=list)

    def judge(self, requests):
        texts = [request.observation for request in requests]
        self.asked += texts
        if "fatal" in texts:
            raise JudgeError("no money")
        return [self.verdict(text) for text in texts]

    def verdict(self, text):
        said = {"yes": True, "no": False}.get(text[:3].strip())
        error = None if said is not None else "down"
        return Verdict(said, f"é {text}", self.id, error, False, 10, 5, 0.1, 0.2)


def ask(judge, *texts):
    return judge.judge([JudgeRequest(SAMPLE, text) for text in texts])


def test_a_verdict_is_asked_once(tmp_path):
    inner = Counting()
    judge = CachedJudge(inner, tmp_path / "new" / "cache.sqlite")
    first = ask(judge, "yes", "no")
    again = ask(CachedJudge(inner, judge.path), "no", "yes", "yes 2")
    assert inner.asked == ["yes", "no", "yes 2"]
    assert [v.sufficient for v in first + again] == [True, False, False, True, True]
    assert [v.cached for v in first + again] == [False, False, True, True, False]
    assert [v.explanation for v in again] == ["é no", "é yes", "é yes 2"]
    assert (first[0].cost, first[0].input_tokens) == (0.1, 10)
    assert (again[0].cost, again[0].input_tokens, again[0].latency) == (0.0, 0, 0.0)
    assert judge.id == again[0].judge == "counting" and judge.prompt_hash == "p1"


def test_failures_are_asked_again(tmp_path):
    inner = Counting()
    judge = CachedJudge(inner, tmp_path / "cache.sqlite")
    for _ in range(2):
        (verdict,) = ask(judge, "?")
        assert verdict.sufficient is None and verdict.error == "down" and not verdict.cached
    assert inner.asked == ["?", "?"]


def test_equal_requests_are_asked_and_paid_once(tmp_path):
    inner = Counting()
    verdicts = ask(CachedJudge(inner, tmp_path / "cache.sqlite"), "yes", "?", "yes", "?", "yes")
    assert inner.asked == ["yes", "?"]
    assert [v.sufficient for v in verdicts] == [True, None, True, None, True]
    assert [v.cost for v in verdicts] == [0.1, 0.1, 0.0, 0.0, 0.0]
    assert [v.cached for v in verdicts] == [False, False, True, False, True]


def test_judges_prompts_and_samples_are_kept_apart(tmp_path):
    path = tmp_path / "cache.sqlite"
    ask(CachedJudge(Counting(), path), "yes")
    for other in (Counting(id="other"), Counting(prompt_hash="p2")):
        assert not ask(CachedJudge(other, path), "yes")[0].cached
        assert other.asked == ["yes"]
    image = VideoQA("1", "Which?", "image", "OCR", (), "B", "x.mp4")
    assert not CachedJudge(Counting(), path).judge([JudgeRequest(image, "yes")])[0].cached
    assert ask(CachedJudge(Counting(), path), "yes")[0].cached


def test_nothing_to_ask(tmp_path):
    inner = Counting()
    assert ask(CachedJudge(inner, tmp_path / "cache.sqlite")) == [] and inner.asked == []


def test_a_fatal_error_passes_through(tmp_path):
    with pytest.raises(JudgeError, match="no money"):
        ask(CachedJudge(Counting(), tmp_path / "cache.sqlite"), "fatal")


def test_a_judge_that_loses_a_verdict_is_caught(tmp_path):
    inner = Counting()
    inner.judge = lambda requests: []
    with pytest.raises(ValueError, match="shorter"):
        ask(CachedJudge(inner, tmp_path / "cache.sqlite"), "yes")


def _worker(path, start, failures):
    start.wait()
    try:
        for i in range(15):
            ask(CachedJudge(Counting(), path), f"yes {i}", "no")
    except Exception as error:
        failures.put(repr(error))


def test_processes_share_a_file(tmp_path):
    context = multiprocessing.get_context("fork")
    start, failures = context.Event(), context.Queue()
    path = tmp_path / "cache.sqlite"
    workers = [context.Process(target=_worker, args=(path, start, failures)) for _ in range(6)]
    for worker in workers:
        worker.start()
    start.set()  # all of them create the file at once
    for worker in workers:
        worker.join(60)
    assert failures.empty(), failures.get()
    assert all(worker.exitcode == 0 for worker in workers)
    verdicts = ask(CachedJudge(Counting(), path), *(f"yes {i}" for i in range(15)), "no")
    assert all(verdict.cached for verdict in verdicts)
