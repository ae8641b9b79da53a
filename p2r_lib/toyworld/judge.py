"""The toy world's judges: a reader without the clip, and the rule judge, which knows the facts.

For the reader, sufficient means that the facts stated entail the answer; for the rule judge, also
that none of them is false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2r_lib.judges.base import JudgeRequest, Verdict
from p2r_lib.samples import VideoQA
from p2r_lib.toyworld.language import read, say
from p2r_lib.toyworld.questions import Question, conclusions, parse_question
from p2r_lib.toyworld.world import Fact, World


def sufficiency(
    question: Question, answer: str, observation: str, world: World
) -> tuple[bool, str]:
    """Whether an observation suffices for the answer, and why (not), in one sentence."""
    facts = read(observation)
    if lies := [fact for fact in facts if not fact.holds(world)]:
        return False, f"Not true of the clip: {say(lies[0])}"
    return _entails(question, answer, facts)


def _entails(question: Question, answer: str, facts: Sequence[Fact]) -> tuple[bool, str]:
    left = {question.answer(end) for end in conclusions(question, facts)}
    if left == {answer}:
        return True, f"The stated facts leave one answer: {answer}"
    return False, f"The stated facts leave {len(left)} answers open."


class ReaderJudge:
    """Judges observations of toy clips by their text alone, as a language model would.

    It cannot tell that a fact is invented: an observation suffices if the answer follows from it.
    """

    id = "toyworld-reader"

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        return [self._judge(request) for request in requests]

    def _judge(self, request: JudgeRequest) -> Verdict:
        sample = request.sample
        try:
            question = parse_question(sample.problem, sample.options)
            sufficient, why = _entails(question, sample.answer, read(request.observation))
        except ValueError as error:  # no question of ours, or options that lack a conclusion
            return Verdict(sufficient=None, judge=self.id, error=str(error))
        return Verdict(sufficient=sufficient, explanation=why, judge=self.id)


class RuleJudge:
    """Judges observations of toy clips, whose worlds it knows by their path."""

    id = "toyworld-rules"

    def __init__(self, worlds: Mapping[str, World]) -> None:
        self._worlds = worlds

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        return [self._judge(request) for request in requests]

    def _judge(self, request: JudgeRequest) -> Verdict:
        sample = request.sample
        if sample.path not in self._worlds:
            error = f"no facts are known of {sample.path}; load the worlds file beside the samples"
            return Verdict(sufficient=None, judge=self.id, error=error)
        world = self._worlds[sample.path]
        try:
            question = parse_question(sample.problem, sample.options)
            sufficient, why = sufficiency(question, sample.answer, request.observation, world)
        except ValueError as error:  # no question of ours, or options that lack a conclusion
            return Verdict(sufficient=None, judge=self.id, error=str(error))
        return Verdict(sufficient=sufficient, explanation=why, judge=self.id)


def for_dataset(samples: Sequence[VideoQA], run: Any) -> RuleJudge:
    """The rule judge of a toy data set, for `p2r rl --judge p2r_lib.toyworld.judge:for_dataset`.

    The facts lie beside the questions: `train.worlds.json` beside `train.json`.
    """
    from p2r_lib.toyworld.dataset import load

    path = Path(run.dataset)
    return RuleJudge(load(path.parent, path.stem).worlds)
