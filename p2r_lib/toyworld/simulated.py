"""The simulated annotator in the CoT pipeline, and what the pipeline's filters make of its errors.

What should be dropped is known here: a response whose template is broken, whose answer scores
below the threshold, or whose observation is false or insufficient by the rules, whatever the
pipeline's own judge said.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from p2r_lib.cot.base import Annotation, failed
from p2r_lib.cot.pipeline import Outcome, PipelineResult
from p2r_lib.cot.verify import verify
from p2r_lib.samples import VideoQA
from p2r_lib.toyworld.annotator import ERRORS, Annotator, Trace
from p2r_lib.toyworld.judge import sufficiency
from p2r_lib.toyworld.questions import parse_question, solve
from p2r_lib.toyworld.world import World

DROPS = ("broken template", "answer below threshold", "insufficient observation")
Table = list[dict[str, Any]]


@dataclass(frozen=True)
class SimulatedAnnotator:
    """Annotates toy samples, whose worlds it knows by their path.

    A sample's trace depends on the sample and `seed` alone, not on batches or order.
    """

    worlds: Mapping[str, World]
    annotator: Annotator = field(default_factory=Annotator)
    seed: int = 0

    @property
    def id(self) -> str:
        settings = [asdict(self.annotator.rates), dict(self.annotator.hardship), self.seed]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return f"toyworld-simulated-{digest[:8]}"

    def annotate(self, samples: Sequence[VideoQA]) -> list[Annotation]:
        return [self._annotate(sample) for sample in samples]

    def _annotate(self, sample: VideoQA) -> Annotation:
        try:
            return Annotation(self.trace(sample).text, self.id)
        except ValueError as error:
            return failed(self.id, str(error))

    def trace(self, sample: VideoQA) -> Trace:
        """The sample's trace. ValueError if its world is unknown or its question not of ours."""
        if sample.path not in self.worlds:
            raise ValueError(f"no facts are known of {sample.path}: load the worlds file beside it")
        question = parse_question(sample.problem, sample.options)
        digest = hashlib.sha256(f"{self.seed} {sample.sample_id}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big")
        return self.annotator.annotate(question, self.worlds[sample.path], seed=seed)

    def planted(self, samples: Iterable[VideoQA]) -> dict[str, tuple[str, ...]]:
        """The errors planted in each sample's trace, by sample_id.

        They are drawn again, not remembered, so this holds for a run that was taken up later too.
        """
        known = (sample for sample in samples if sample.path in self.worlds)
        return {sample.sample_id: self.trace(sample).errors for sample in known}


def fault(sample: VideoQA, text: str, world: World, *, threshold: float) -> str | None:
    """Why a response should be dropped, in truth: the first of `DROPS` that holds, or None."""
    found = verify(sample, text, threshold=threshold)
    if not found.format_ok:
        return DROPS[0]
    if not found.answer_ok:
        return DROPS[1]
    question = parse_question(sample.problem, sample.options)
    observation = found.response.observation
    return None if sufficiency(question, sample.answer, observation, world)[0] else DROPS[2]


@dataclass(frozen=True)
class _Judged:
    """One trace: what was planted in it, what is wrong with it, and what the pipeline did."""

    outcome: Outcome
    errors: tuple[str, ...]
    fault: str | None

    @property
    def dropped(self) -> bool:
        return self.outcome.status == "dropped"


def _judged(
    result: PipelineResult, planted: Mapping[str, Sequence[str]], worlds: Mapping[str, World]
) -> list[_Judged]:
    """The traces on which the pipeline decided: failures and duplicates are left out."""
    return [
        _Judged(
            outcome,
            tuple(planted[outcome.sample.sample_id]),
            fault(
                outcome.sample,
                outcome.text,
                worlds[outcome.sample.path],
                threshold=result.threshold,
            ),
        )
        for outcome in result.outcomes
        if outcome.reason == "kept" or outcome.reason in DROPS
    ]


def filter_quality(
    result: PipelineResult,
    planted: Mapping[str, Sequence[str]],
    *,
    worlds: Mapping[str, World],
) -> Table:
    """How the pipeline treats each kind of planted error.

    One row for each kind, one for traces without error ("none") and one for all. A trace with
    several errors counts in the row of each. Columns:

    - traces: how many carry the error; harmful: how many of them should be dropped (see `fault`);
      harmless: the others, in which the error happens to do no harm;
    - one for each of `DROPS`: how many the pipeline dropped for that reason;
    - slipped: harmful ones that it kept;
    - recall: the share of harmful ones that it dropped; precision: the share of those it dropped
      that are harmful (None where there are none).
    """
    judged = _judged(result, planted, worlds)
    rows = {kind: [trace for trace in judged if kind in trace.errors] for kind in ERRORS}
    rows |= {"none": [trace for trace in judged if not trace.errors], "all": judged}
    return [{"planted": kind, **_quality(traces)} for kind, traces in rows.items()]


def _quality(traces: Sequence[_Judged]) -> dict[str, Any]:
    caught = Counter(trace.outcome.reason for trace in traces)
    harmful = sum(trace.fault is not None for trace in traces)
    dropped = sum(trace.dropped for trace in traces)
    rightly = sum(trace.dropped and trace.fault is not None for trace in traces)
    return {
        "traces": len(traces),
        "harmful": harmful,
        "harmless": len(traces) - harmful,
        **{reason: caught[reason] for reason in DROPS},
        "slipped": harmful - rightly,
        "recall": rightly / harmful if harmful else None,
        "precision": rightly / dropped if dropped else None,
    }


def slips(
    result: PipelineResult,
    planted: Mapping[str, Sequence[str]],
    *,
    worlds: Mapping[str, World],
) -> Table:
    """The traces with a planted error that were kept all the same: which errors, why, how many."""
    kept = [trace for trace in _judged(result, planted, worlds) if not trace.dropped]
    found = Counter(
        (", ".join(trace.errors), _why_kept(trace, worlds)) for trace in kept if trace.errors
    )
    return [
        {"planted": errors, "why it was kept": why, "traces": count}
        for (errors, why), count in found.most_common()
    ]


def _why_kept(trace: _Judged, worlds: Mapping[str, World]) -> str:
    sample = trace.outcome.sample
    question = parse_question(sample.problem, sample.options)
    truth = question.answer(solve(question, worlds[sample.path]))
    if trace.fault is not None:
        return "the judge let it pass"
    if verify(sample, trace.outcome.text).response.answer != truth:
        return "the wrong answer is near enough to score"
    if "guess" in trace.errors:
        return "the guess happens to be right"
    if {"wrong_reasoning", "wrong_answer"} & set(trace.errors):
        return "the reasoning ends elsewhere, but the answer is right"
    return "the fact left out was not needed"
