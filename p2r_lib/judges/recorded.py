"""A judge that repeats verdicts from a file: for tests, lessons and runs without a network.

The file holds one JSON object a line, with the fields `sample_id`, `observation`, `sufficient`
(true or false), and, if wanted, `explanation` and `judge` (whose verdict it was).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2r_lib.judges.base import JudgeRequest, Verdict, failed

Key = tuple[str, str]  # sample id, observation


@dataclass(frozen=True)
class RecordedJudge:
    """Answers from `verdicts`; a request that is not among them fails, it is not a "no"."""

    verdicts: Mapping[Key, Verdict]
    id: str = "recorded"

    @classmethod
    def read(cls, path: str | Path) -> "RecordedJudge":
        """The judge of a recording. Raises ValueError, with the line, for a malformed record or
        two that disagree."""
        verdicts: dict[Key, Verdict] = {}
        for number, line in enumerate(Path(path).read_text("utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                key, verdict = _from_record(json.loads(line))
                if verdicts.setdefault(key, verdict).sufficient != verdict.sufficient:
                    raise ValueError("an earlier line says the opposite: keep one of them")
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
        return cls(verdicts, id=f"recorded:{Path(path).name}")

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        miss = failed(self.id, "this request was not recorded")
        return [self.verdicts.get(_key(request), miss) for request in requests]


def write_recording(
    path: str | Path, requests: Iterable[JudgeRequest], verdicts: Iterable[Verdict]
) -> int:
    """Writes the verdicts that did not fail, one line each, and returns how many there are."""
    lines = [
        json.dumps(_to_record(request, verdict), ensure_ascii=False)
        for request, verdict in zip(requests, verdicts, strict=True)
        if verdict.sufficient is not None
    ]
    Path(path).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return len(lines)


def _key(request: JudgeRequest) -> Key:
    return request.sample.sample_id, request.observation.strip()


def _to_record(request: JudgeRequest, verdict: Verdict) -> dict[str, Any]:
    sample_id, observation = _key(request)
    return {
        "sample_id": sample_id,
        "observation": observation,
        "sufficient": verdict.sufficient,
        "explanation": verdict.explanation,
        "judge": verdict.judge,
    }


def _from_record(record: Any) -> tuple[Key, Verdict]:
    if not isinstance(record, dict):
        raise ValueError("not a JSON object: write one object a line")
    texts = {name: record.get(name, "") for name in ("explanation", "judge")}
    texts |= {name: record.get(name) for name in ("sample_id", "observation")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"the field {name!r} is missing or no text")
    if not isinstance(record.get("sufficient"), bool):
        raise ValueError("the field 'sufficient' must be true or false")
    key = (texts["sample_id"], texts["observation"].strip())
    return key, Verdict(record["sufficient"], texts["explanation"], texts["judge"])
