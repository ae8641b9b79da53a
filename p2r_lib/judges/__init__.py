"""Judges of observations: what they share, and the ones that need no extra library.

`anthropic.AnthropicJudge` and `openai_compatible.OpenAICompatibleJudge` are imported from their
modules.
"""

from p2r_lib.judges.base import (
    AnswerExtractor,
    Judge,
    JudgeError,
    JudgeRequest,
    Verdict,
    clean_observation,
)
from p2r_lib.judges.cache import CachedJudge
from p2r_lib.judges.extract import RuleAnswerExtractor
from p2r_lib.judges.recorded import RecordedJudge, write_recording

__all__ = [
    "AnswerExtractor",
    "CachedJudge",
    "Judge",
    "JudgeError",
    "JudgeRequest",
    "RecordedJudge",
    "RuleAnswerExtractor",
    "Verdict",
    "clean_observation",
    "write_recording",
]
