"""Judges of observations, and what they share."""

from p2r_lib.judges.base import (
    AnswerExtractor,
    Judge,
    JudgeError,
    JudgeRequest,
    Verdict,
    clean_observation,
)

__all__ = [
    "AnswerExtractor",
    "Judge",
    "JudgeError",
    "JudgeRequest",
    "Verdict",
    "clean_observation",
]
