"""One question about one clip or image, and the files such questions are kept in.

Three record schemas are read and written: Video-R1's, VideoP2R's CoT records, and the RL file of
VideoP2R in which every value is a string. A file is a JSON list or JSON lines, gzipped or not.
"""

import hashlib
import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROBLEM_TYPES = ("multiple choice", "numerical", "OCR", "free-form", "regression")
DATA_TYPES = ("video", "image")

_LETTERED = re.compile(r"\s*\(?([A-Za-z])[.):]\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class VideoQA:
    """One question about one clip or image.

    `options` are as stored ("A. red"), `answer` is the truth without its tags, `path` is as stored
    (see `resolve_media`). `observation`, `process` (the reasoning) and `output` (the whole
    response) are an annotator's, as stored, or None. `extra` holds the record's other fields.
    """

    problem_id: str
    problem: str
    data_type: str
    problem_type: str
    options: tuple[str, ...]
    answer: str
    path: str
    data_source: str = ""
    observation: str | None = None
    process: str | None = None
    output: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def sample_id(self) -> str:
        """16 hex digits that depend on the question, options, path and answer alone."""
        key = json.dumps([self.problem, list(self.options), self.path, self.answer])
        return hashlib.sha256(key.encode("ascii")).hexdigest()[:16]

    @property
    def solution(self) -> str:
        """The truth as the released files store it: "<answer>B</answer>"."""
        return f"<answer>{self.answer}</answer>"


def split_options(options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(letter, text) of each option.

    The letters are those written before the texts if every option has one of its own, else
    A, B, C... by position.

    >>> split_options(["A. red", "B. blue"])
    (('A', 'red'), ('B', 'blue'))
    >>> split_options(["red", "blue"])
    (('A', 'red'), ('B', 'blue'))
    """
    if len(options) > len(string.ascii_uppercase):
        raise ValueError(f"{len(options)} options, but there are only 26 letters: use fewer")
    matches = [_LETTERED.fullmatch(option) for option in options]
    letters = [match[1].upper() for match in matches if match]
    if len(set(letters)) == len(options):
        return tuple((m[1].upper(), m[2].strip()) for m in matches if m)
    return tuple(zip(string.ascii_uppercase, (option.strip() for option in options), strict=False))
