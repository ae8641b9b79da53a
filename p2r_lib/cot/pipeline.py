"""The three-step pipeline (section 3.1.1): annotate, verify, judge whether observations suffice.

Each step writes what it learns to a file of its own in the output folder, batch by batch, and
reads it there when it runs again: what succeeded is never asked again, what failed is asked anew.

    annotations.jsonl    step 1: responses and failures
    verification.jsonl   step 2: faults of the template and scores of the answers
    verdicts.jsonl       step 3: verdicts and failures
    kept.json            the samples kept, with observation, process and output (VideoP2R schema)
    dropped.jsonl        the samples not kept, each with its reason
    manifest.json        settings, versions, counts per reason, tokens and cost
"""

import hashlib
import json
import logging
import platform
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from p2r_lib import __version__
from p2r_lib.cot.base import Annotation, Annotator, prompt_of
from p2r_lib.cot.journal import Journal, Row, replace_text
from p2r_lib.cot.verify import THRESHOLD, Verification, verify
from p2r_lib.judges.base import Judge, JudgeRequest, Verdict, request_key
from p2r_lib.samples import DATA_TYPES, PROBLEM_TYPES, VideoQA, write_samples
from p2r_lib.template import build_prompt

REASONS = {
    "duplicate": ("input", "dropped"),
    "annotator failed": ("annotate", "failed"),
    "broken template": ("verify", "dropped"),
    "answer below threshold": ("verify", "dropped"),
    "judge failed": ("sufficiency", "failed"),
    "insufficient observation": ("sufficiency", "dropped"),
    "kept": ("sufficiency", "kept"),
}
"""What can become of a sample: the step that decides it, and whether that is dropped, failed or
kept. A response with a broken template counts as that, whatever its answer."""

_METRICS = ("rouge-score", "jiwer")  # whose versions can change a score
_SPENT = ("input_tokens", "output_tokens", "cost", "latency")
Item = TypeVar("Item")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one sample; `reason` is one of `REASONS`.

    A kept `sample` has its observation, process and output filled in, and in `extra` its score as
    `reward` and a true `select`. `text` is the response, `problems` are the template's faults and
    `score` is the answer's (None without a response); `explanation` is the judge's, or says what
    failed.
    """

    sample: VideoQA
    reason: str
    text: str | None = None
    problems: tuple[str, ...] = ()
    score: float | None = None
    explanation: str = ""

    @property
    def step(self) -> str:
        """The step that decided: input, annotate, verify or sufficiency."""
        return REASONS[self.reason][0]

    @property
    def status(self) -> str:
        """kept, dropped, or failed: neither of the two yet, and asked anew by the next run."""
        return REASONS[self.reason][1]


@dataclass(frozen=True)
class PipelineResult:
    """The outcome of every sample given, in order, and where the files stand."""

    outcomes: tuple[Outcome, ...]
    threshold: float
    output_dir: Path

    @property
    def kept(self) -> list[VideoQA]:
        return [outcome.sample for outcome in self.outcomes if outcome.status == "kept"]

    @property
    def counts(self) -> dict[str, int]:
        """How many samples had each reason, every reason named."""
        found = Counter(outcome.reason for outcome in self.outcomes)
        return {reason: found[reason] for reason in REASONS}


def run_pipeline(
    samples: Sequence[VideoQA],
    annotator: Annotator,
    judge: Judge,
    *,
    output_dir: str | Path,
    threshold: float = THRESHOLD,
    batch_size: int = 64,
    progress: bool = True,
) -> PipelineResult:
    """Annotate samples, and keep what passes verification and the judge.

    Args:
        samples: questions with their answers; one that repeats an earlier one's question, options,
            path and answer is set aside as a duplicate.
        annotator: step 1; asked `batch_size` samples at a time.
        judge: step 3; reads the observations of the responses that passed step 2.
        output_dir: the folder of the files above, for one run at a time. A later run goes on from
            them; rows of other samples and settings may stand in them too, and are left alone.
        threshold: least score of an answer, in [0, 1].

    Raises ValueError for settings, samples or files that cannot be used. What annotator and judge
    raise (AnnotatorError, JudgeError, an interrupt) goes through; nothing written is lost.
    """
    if not 0 <= threshold <= 1 or batch_size < 1:
        raise ValueError(f"threshold={threshold} is not in [0, 1], or batch_size={batch_size} < 1")
    unique: dict[str, VideoQA] = {}
    for sample in samples:
        unique.setdefault(sample.sample_id, sample)
    prompts = {key: prompt_of(sample) for key, sample in unique.items()}
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(samples, annotator, judge, threshold, batch_size)
    _write_manifest(folder, "running", settings)
    steps = _Steps(folder, batch_size, progress)
    annotations = steps.annotate(unique, prompts, annotator)
    verifications = steps.verify(unique, annotations, threshold)
    verdicts = steps.judge(unique, verifications, judge)
    outcomes = _outcomes(samples, annotations, verifications, verdicts)
    result = PipelineResult(outcomes, threshold, folder)
    _write_outcomes(result)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if failed:
        _log.warning("%s: %d samples failed; run again to ask them anew", folder, failed)
    findings = {**_findings(result), "spent": steps.spent}
    _write_manifest(folder, "incomplete" if failed else "complete", {**settings, **findings})
    return result


# ---------------------------------------------------------------- the steps


@dataclass
class _Steps:
    """The three steps over one folder. Samples and findings go by sample_id."""

    folder: Path
    batch_size: int
    progress: bool
    spent: dict[str, dict[str, float]] = field(default_factory=dict)

    def annotate(
        self, samples: Mapping[str, VideoQA], prompts: Mapping[str, str], annotator: Annotator
    ) -> dict[str, Annotation]:
        keys = {key: _digest("annotate", annotator.id, key, prompts[key]) for key in samples}
        journal = Journal(self.folder / "annotations.jsonl")
        rows = self._ask("annotate", "text", journal, keys, samples, annotator.annotate)
        return {key: _from_row(Annotation, row) for key, row in rows.items()}

    def verify(
        self,
        samples: Mapping[str, VideoQA],
        annotations: Mapping[str, Annotation],
        threshold: float,
    ) -> dict[str, Verification]:
        """Done anew on every run, for it is cheap; a row is added where the finding is new."""
        journal = Journal(self.folder / "verification.jsonl")
        known, rows, findings = journal.latest(), [], {}
        answered = [key for key in samples if annotations[key].text is not None]
        with self._bar("verify", total=len(answered)) as bar:
            for key in answered:
                text, truncated = annotations[key].text, annotations[key].truncated
                found = verify(samples[key], text, truncated=truncated, threshold=threshold)
                findings[key], row = found, _verification_row(key, samples[key], found)
                rows += [row] if known.get(row["key"]) != row else []
                bar.update()
        journal.append(rows)
        return findings

    def judge(
        self, samples: Mapping[str, VideoQA], findings: Mapping[str, Verification], judge: Judge
    ) -> dict[str, Verdict]:
        requests = {
            key: JudgeRequest(samples[key], found.response.observation)
            for key, found in findings.items()
            if found.passed
        }
        version = getattr(judge, "prompt_hash", "")
        keys = {
            key: _digest("sufficiency", judge.id, version, request_key(request))
            for key, request in requests.items()
        }
        journal = Journal(self.folder / "verdicts.jsonl")
        rows = self._ask("sufficiency", "sufficient", journal, keys, requests, judge.judge)
        return {key: _from_row(Verdict, row) for key, row in rows.items()}

    def _ask(
        self,
        step: str,
        answer: str,
        journal: Journal,
        keys: Mapping[str, str],
        items: Mapping[str, Item],
        ask: Callable[[list[Item]], Sequence[Any]],
    ) -> dict[str, Row]:
        """The row of every item, asking for those whose `answer` no row of the journal holds."""
        known = {row["key"] for row in journal.rows if row[answer] is not None}
        todo = [name for name in items if keys[name] not in known]
        with self._bar(step, total=len(items), initial=len(items) - len(todo)) as bar:
            for names in _batches(todo, self.batch_size):
                answers = ask([items[name] for name in names])
                if len(answers) != len(names):
                    raise ValueError(f"{step}: {len(answers)} answers to {len(names)} requests")
                pairs = zip(names, answers, strict=True)
                journal.append({"key": keys[n], "sample_id": n, **asdict(a)} for n, a in pairs)
                bar.update(len(names))
        self.spent[step] = _spent(journal.rows, set(keys.values()), answer)
        # An answer counts, whatever failed before or (in files put together) stands after it.
        rows = {r["key"]: r for r in sorted(journal.rows, key=lambda r: r[answer] is not None)}
        return {name: rows[keys[name]] for name in items}

    def _bar(self, step: str, *, total: int, initial: int = 0) -> Any:
        from tqdm.auto import tqdm

        return tqdm(
            desc=step, total=total, initial=initial, unit=" samples", disable=not self.progress
        )


def _batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _digest(*parts: str) -> str:
    """The key of what is asked: another one wherever the answer could be another."""
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()[:24]


def _from_row(kind: type[Item], row: Row) -> Item:
    """An `Annotation` or `Verdict` from its row."""
    return kind(**{f.name: row[f.name] for f in fields(kind) if f.name in row})


def _verification_row(sample_id: str, sample: VideoQA, found: Verification) -> Row:
    threshold = str(found.threshold)
    return {
        "key": _digest("verify", sample_id, sample.problem_type, found.response.text, threshold),
        "sample_id": sample_id,
        "problems": list(found.problems),
        "score": found.score,
        "threshold": found.threshold,
        "passed": found.passed,
    }


def _spent(rows: Iterable[Row], keys: Collection[str], answer: str) -> dict[str, float]:
    """What answers and failures to these keys took, in every run so far."""
    mine = [row for row in rows if row["key"] in keys]
    spent = {name: sum(row[name] for row in mine) for name in _SPENT}
    return {"asked": len(mine), "failed": sum(row[answer] is None for row in mine), **spent}


# ---------------------------------------------------------------- what became of each sample


def _outcomes(
    samples: Iterable[VideoQA],
    annotations: Mapping[str, Annotation],
    verifications: Mapping[str, Verification],
    verdicts: Mapping[str, Verdict],
) -> tuple[Outcome, ...]:
    outcomes: dict[str, Outcome] = {}
    listed = []
    for sample in samples:
        key = sample.sample_id
        if key in outcomes:
            listed.append(Outcome(sample, "duplicate"))
            continue
        found = annotations[key], verifications.get(key), verdicts.get(key)
        outcomes[key] = _outcome(sample, *found)
        listed.append(outcomes[key])
    return tuple(listed)


def _outcome(
    sample: VideoQA,
    annotation: Annotation,
    found: Verification | None,
    verdict: Verdict | None,
) -> Outcome:
    if found is None:
        return Outcome(sample, "annotator failed", explanation=annotation.error or "")
    checked = Outcome(sample, "kept", annotation.text, found.problems, found.score)
    if not found.format_ok:
        return replace(checked, reason="broken template")
    if not found.answer_ok:
        return replace(checked, reason="answer below threshold")
    if verdict.sufficient is None:
        return replace(checked, reason="judge failed", explanation=verdict.error or "")
    judged = replace(checked, explanation=verdict.explanation)
    if not verdict.sufficient:
        return replace(judged, reason="insufficient observation")
    return replace(judged, sample=_annotated(sample, found))


def _annotated(sample: VideoQA, found: Verification) -> VideoQA:
    """The sample with its response filled in, as the released CoT records have it."""
    return replace(
        sample,
        observation=found.response.observation,
        process=found.response.think,
        output=found.response.text,
        extra={**sample.extra, "reward": found.score, "select": True},
    )


# ---------------------------------------------------------------- files


def _write_outcomes(result: PipelineResult) -> None:
    write_samples(result.kept, result.output_dir / "kept.json", schema="videop2r")
    dropped = [
        {
            "sample_id": outcome.sample.sample_id,
            "problem_id": outcome.sample.problem_id,
            "status": outcome.status,
            "step": outcome.step,
            "reason": outcome.reason,
            "problems": list(outcome.problems),
            "score": outcome.score,
            "explanation": outcome.explanation,
        }
        for outcome in result.outcomes
        if outcome.status != "kept"
    ]
    lines = "".join(json.dumps(row) + "\n" for row in dropped)
    replace_text(result.output_dir / "dropped.jsonl", lines)


def _write_manifest(folder: Path, status: str, content: Mapping[str, Any]) -> None:
    text = json.dumps({"status": status, **content}, indent=2) + "\n"
    replace_text(folder / "manifest.json", text)


def _settings(
    samples: Sequence[VideoQA],
    annotator: Annotator,
    judge: Judge,
    threshold: float,
    batch_size: int,
) -> dict[str, Any]:
    """What the result depends on, and with which versions."""
    prompts = [
        build_prompt("Q", ["A. a"], problem_type=problem_type, data_type=data_type)
        for problem_type in PROBLEM_TYPES
        for data_type in DATA_TYPES
    ]
    return {
        "settings": {
            "annotator": annotator.id,
            "judge": judge.id,
            "judge_prompt": getattr(judge, "prompt_hash", ""),
            "prompt": _digest("prompt", *prompts),
            "threshold": threshold,
            "batch_size": batch_size,
        },
        "samples": {
            "count": len(samples),
            "digest": _digest("samples", *(sample.sample_id for sample in samples)),
        },
        "versions": {
            "p2r_lib": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in _METRICS},
        },
    }


def _findings(result: PipelineResult) -> dict[str, Any]:
    problems = Counter(code for outcome in result.outcomes for code in outcome.problems)
    return {"counts": result.counts, "template_problems": dict(sorted(problems.items()))}
